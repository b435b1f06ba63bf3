//! The parameters of a rank in the order in which its optimizer counts them.
//!
//! That is the order in which the model registers them, which is the order in which it saves them.

use super::super::SourceError;
use super::super::build::{Builder, Bytes, Stored};
use super::super::known::Known;
use super::chain::Chain;
use super::wrong;
use crate::catalog::{Chunk, RankFile};
use crate::family::Numbers;
use crate::format::megatron::GroupKind;
use crate::layout::Place;
use crate::tensor::{Dtype, Region, Shape};
use crate::value::{Storage, TensorRef};

/// One parameter of a rank.
pub(super) struct Slot<'a> {
    pub(super) known: &'a Known<'a>,
    /// Its weight.
    pub(super) weight: &'a TensorRef,
    /// The kind of parameter group that it is in.
    pub(super) kind: GroupKind,
    /// Numbers of its layer and expert in the model.
    numbers: Numbers,
    /// Whether it is an embedding that other stages have too.
    pub(super) shared_embedding: bool,
}

/// The parameters of the rank in `file`, whose optimizers are `chains`.
pub(super) fn slots<'a>(
    builder: &Builder<'_>,
    file: &RankFile,
    known: impl Iterator<Item = &'a Known<'a>>,
    chains: &[Chain<'_>],
) -> Result<Vec<Slot<'a>>, SourceError> {
    let layout = &builder.catalog.layout;
    let any = |test: fn(&GroupKind) -> bool| {
        chains.iter().flat_map(|chain| &chain.groups).any(|group| test(&group.kind))
    };
    let (any_expert, any_decoupled) = (any(|kind| kind.expert), any(|kind| kind.decoupled));
    let mut slots = Vec::new();
    for known in known {
        let Some(weight) = known.leaf.value.tensor().filter(|_| known.entry.is_trained()) else { continue };
        let name = &*known.entry.name;
        let kind = GroupKind {
            decays: GroupKind::decays(Some(&file.run.args), name, weight.shape.rank()),
            decoupled: any_decoupled && known.entry.is_vocabulary(),
            expert: any_expert && known.entry.is_expert(),
        };
        let place = Place { rank: file.rank, chunk: known.chunk };
        let numbers = builder.in_model(known.numbers, place);
        let shared_embedding = builder.model.shares_embedding(known.entry, layout);
        slots.push(Slot { known, weight, kind, numbers, shared_embedding });
    }
    let has_group =
        |slot: &&Slot<'_>| chains.iter().flat_map(|chain| &chain.groups).any(|group| group.kind == slot.kind);
    match slots.iter().find(|slot| !has_group(slot)) {
        None => Ok(slots),
        Some(slot) => {
            let decays = if slot.kind.decays { "with" } else { "without" };
            let what = format!(
                "there is no parameter group for {} (one {decays} weight decay)",
                slot.known.leaf.path
            );
            Err(wrong(&file.name, what))
        }
    }
}

impl Slot<'_> {
    /// Elements of the parameter on its rank. Weights lie in files, so the number fits.
    pub(super) fn elements(&self) -> u64 {
        self.weight.shape.elements().unwrap_or(u64::MAX)
    }

    /// Whether the weight has masters of its own.
    pub(super) fn is_half(&self) -> bool {
        matches!(self.weight.dtype, Dtype::Float16 | Dtype::Bfloat16)
    }

    /// Adds a tensor that stands for this parameter in the state that is selected.
    pub(super) fn add(
        &self,
        builder: &mut Builder<'_>,
        file: &RankFile,
        within: (&str, &TensorRef, Bytes<'_>),
    ) -> Result<(), SourceError> {
        let (name, tensor, bytes) = within;
        let stored = Stored {
            rank: file.rank,
            file: name,
            path: &self.known.leaf.path,
            tensor,
            bytes,
        };
        let added = if tensor.shape.rank() == 0 && self.weight.shape.rank() != 0 {
            builder.scalar(&stored, self.known.entry, self.numbers)
        } else {
            builder.tensor(&stored, self.known.entry, self.numbers)
        };
        added.map_err(|error| SourceError::State(Box::new(error)))
    }
}

/// The part of a flat buffer that is a parameter of this shape, `start` elements into the buffer.
pub(super) fn part_of(buffer: &TensorRef, start: u64, shape: &Shape) -> Option<TensorRef> {
    Some(TensorRef {
        dtype: buffer.dtype,
        shape: shape.clone(),
        strides: shape.contiguous_strides()?,
        offset: buffer.offset.checked_add(start)?,
        storage: Storage::clone(&buffer.storage),
        requires_grad: false,
    })
}

/// The same of a buffer that is stored in pieces: those of the parameter, each a stretch of its elements.
pub(super) fn pieces_of_part(buffer: &[Chunk], element: u64, start: u64, shape: &Shape) -> Option<Vec<Chunk>> {
    let end = start.checked_add(shape.elements()?)?;
    let strides: Vec<u64> =
        shape.contiguous_strides()?.iter().map(|stride| stride.checked_mul(element)).collect::<Option<_>>()?;
    let mut found = Vec::new();
    for piece in buffer {
        let held = piece.region.along(0);
        let stretch = held.start.max(start)..held.end.min(end);
        if stretch.is_empty() {
            continue;
        }
        if held.end - held.start > 1 && piece.stride(0) != Some(element) {
            return None;
        }
        let mut at = piece.start.checked_add((stretch.start - held.start).checked_mul(element)?)?;
        for region in Region::of_flat(shape, stretch.start - start..stretch.end - start)? {
            let bytes = region.elements()?.checked_mul(element)?;
            found.push(Chunk { region, start: at, strides: strides.clone(), period: None, ..piece.clone() });
            at = at.checked_add(bytes)?;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::ObjectId;
    use crate::layout::Rank;

    /// A 3 x 4 parameter at element 5 of a buffer of 32-bit numbers that is cut at 3, 9 and 11: element by element.
    #[test]
    fn a_parameter_in_a_cut_buffer_is_its_stretches() {
        let cut = |span: std::ops::Range<u64>, start| Chunk {
            region: Region::new(vec![span]),
            rank: Rank { pp: 0, tp: 0, ep: 0 },
            object: ObjectId(0),
            start,
            strides: vec![4],
            period: None,
        };
        let buffer = [cut(0..3, 0), cut(3..9, 1000), cut(9..11, 2000), cut(11..40, 3000)];
        let shape = Shape(vec![3, 4]);
        let found = pieces_of_part(&buffer, 4, 5, &shape).unwrap();
        for element in 0..12u64 {
            let index = shape.index_of(element);
            let having: Vec<&Chunk> = found.iter().filter(|piece| piece.region.has(&index)).collect();
            let [only] = having[..] else { panic!("{index:?}: {having:?}") };
            let within = index.iter().zip(only.region.ranges()).zip(&only.strides);
            let byte = within.fold(only.start, |at, ((index, range), stride)| at + (index - range.start) * stride);
            let wanted = match element + 5 {
                at @ ..9 => 1000 + (at - 3) * 4,
                at @ ..11 => 2000 + (at - 9) * 4,
                at => 3000 + (at - 11) * 4,
            };
            assert_eq!(byte, wanted, "{index:?}");
        }
        assert!(found.len() <= 3 * 3);
        assert!(pieces_of_part(&buffer, 2, 5, &shape).is_none());
        assert!(pieces_of_part(&[], 4, 5, &shape).is_some_and(|none| none.is_empty()));
    }
}
