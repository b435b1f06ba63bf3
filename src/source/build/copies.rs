//! Tensors that are copies by the family: a tied head, an embedding that is saved twice.
//!
//! The tensor that the family calls the original is the parameter, in whatever order the two are met. On another stage a copy is a replica
//! like any other: `verify` compares it. Beside its original it must be the same, because views have only one of the two; that is told by
//! their bytes alone, so those are read here. Not here: replicas of other ranks.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Builder, Stored};
use crate::catalog::{Chunk, CopyNames, Param};
use crate::family::{Entry, Model, Numbers};
use crate::layout::Format;
use crate::layout::Rank;
use crate::source::workers::in_parallel;
use crate::source::{SourceError, TiedHead};
use crate::store::{Store, consistent};
use crate::tensor::Shape;

/// Read at a time of each of the two, by each of many threads.
const PIECE: usize = 128 << 10;

/// A copy, and what it is a copy of.
pub(super) struct Copied {
    param: Arc<str>,
    /// The parameter's name in the family, and the layer.
    template: String,
    layer: Option<u32>,
}

/// A copy whose rank has the original too.
pub(super) struct Beside {
    param: Arc<str>,
    rank: Rank,
    /// The file that it is in.
    file: String,
    names: CopyNames,
    advice: String,
}

impl Builder<'_> {
    /// Adds a tensor that is a copy. All tensors that are none have been added before.
    pub(super) fn copy(
        &mut self,
        stored: &Stored<'_>,
        entry: &Entry,
        numbers: Numbers,
    ) -> Result<(), SourceError> {
        for holding in &entry.holds {
            let param: Arc<str> = numbers.fill(&holding.param).into();
            let original = self.names.get(&param).map(|name| numbers.fill(name));
            let (template, layer) = (holding.param.clone(), numbers.layer);
            self.copied.push(Copied { param: param.clone(), template, layer });
            let Some(original) = original else { continue };
            let names = CopyNames { original, copy: stored.path.to_owned() };
            self.catalog.copied.insert(param.clone(), names.clone());
            let Some(known) = self.catalog.param(&param).filter(|known| is_stored_by(known, stored.rank))
            else {
                continue;
            };
            if self.tied_head == TiedHead::Ignore {
                let CopyNames { original, copy } = names;
                self.catalog.left_out.insert(format!(
                    "{copy} (--tied-head ignore: {original} takes its place, whatever the two hold)"
                ));
                return Ok(());
            }
            let advice = advice(self.model, entry);
            check_kind(known, stored, &names, &advice)?;
            if entry.only_if_pipelined && self.catalog.layout.pp() == 1 {
                let CopyNames { original, copy } = &names;
                self.catalog.left_out.insert(format!("{copy} (the same as {original})"));
            }
            let file = stored.file.to_owned();
            self.beside.push(Beside { param, rank: stored.rank, file, names, advice });
        }
        self.tensor(stored, entry, numbers)
    }

    /// A copy whose original no file has stands for it: views save it under the original's name.
    pub(in crate::source) fn name_originals(&mut self) {
        for Copied { param, template, layer } in std::mem::take(&mut self.copied) {
            let has_original = self.catalog.param(&param).is_some_and(|param| !param.chunks().is_empty());
            let holds = |entry: &&Entry| {
                let is_original = !entry.is_copy() && entry.fixed_part.is_none();
                is_original && entry.holds.iter().any(|holding| holding.param == template)
            };
            if let Some(entry) = self.model.entries().iter().find(holds).filter(|_| !has_original) {
                self.catalog.spell(&entry.name, layer);
            }
        }
    }
}

/// Whether this rank has stored pieces of the parameter that are no copies.
fn is_stored_by(param: &Param, rank: Rank) -> bool {
    param.chunks().iter().any(|chunk| chunk.rank == rank)
}

/// What to do about a copy that is none.
fn advice(model: &Model, entry: &Entry) -> String {
    let ignored = "--tied-head ignore leaves it out";
    match model.family().format() {
        _ if !entry.only_if_pipelined => format!("this version carries one of the two: {ignored}"),
        Format::Hf => format!(
            "by config.json (tie_word_embeddings) the two are one. To keep both, as transformers 5 does, set that to false; {ignored}, as \
             transformers 4 and vLLM do"
        ),
        _ => format!("by its args (untie_embeddings_and_output_weights) the two are one: {ignored}"),
    }
}

/// A copy is of the same type and shape.
fn check_kind(
    known: &Param,
    stored: &Stored<'_>,
    names: &CopyNames,
    advice: &str,
) -> Result<(), SourceError> {
    let of_rank = known.chunks().iter().filter(|chunk| chunk.rank == stored.rank);
    let spans: BTreeSet<(u64, u64)> = of_rank
        .map(|chunk| chunk.region.along(known.axis))
        .map(|span| (span.start, span.end))
        .collect();
    let positions = spans.iter().map(|(start, end)| end - start).sum();
    let (dtype, shape) = (stored.tensor.dtype, &stored.tensor.shape);
    let wanted = shape_of(known, positions);
    if (dtype, shape) == (known.dtype, &wanted) {
        return Ok(());
    }
    let original = &names.original;
    Err(stored.error(format!("it is {dtype} {shape}, but {original} is {} {wanted}; {advice}", known.dtype)))
}

/// The parameter's shape with so many positions along its axis.
fn shape_of(param: &Param, positions: u64) -> Shape {
    if param.shape.rank() == 0 { param.shape.clone() } else { param.shape.with(param.axis, positions) }
}

/// Compares the copies that stand beside their originals with them.
///
/// # Errors
/// [`SourceError::Tensor`] naming both where they differ.
pub(super) fn compare(builder: &Builder<'_>, store: &dyn Store) -> Result<(), SourceError> {
    for beside in &builder.beside {
        let lost = || beside.error("it was lost before it could be compared with");
        let param = builder.catalog.param(&beside.param).ok_or_else(lost)?;
        let copies: Vec<&Chunk> = param.copies().iter().filter(|copy| copy.rank == beside.rank).collect();
        if copies.is_empty() {
            return Err(lost());
        }
        for copy in copies {
            let is_original = |chunk: &&Chunk| (chunk.rank, &chunk.region) == (copy.rank, &copy.region);
            let original = param.chunks().iter().find(is_original);
            let (Some(original), Some(len)) = (original, bytes_in_row(param, copy)) else {
                return Err(beside.error("it is stored so that it cannot be compared with"));
            };
            if bytes_in_row(param, original).is_none() {
                return Err(beside.error("it is stored so that it cannot be compared with"));
            }
            beside.compare((original, copy), len, param, store)?;
        }
    }
    Ok(())
}

/// Bytes of a piece that is stored row after row without gaps.
fn bytes_in_row(param: &Param, chunk: &Chunk) -> Option<u64> {
    let shape = chunk.region.shape();
    let mut stride = param.dtype.size();
    for (size, found) in shape.0.iter().zip(&chunk.strides).rev() {
        if *size > 1 && *found != stride {
            return None;
        }
        stride = stride.checked_mul(*size)?;
    }
    (chunk.period.is_none()).then_some(stride)
}

impl Beside {
    fn error(&self, how: &str) -> SourceError {
        let (original, advice) = (&self.names.original, &self.advice);
        let what = format!("{how} {original}, of which it should be a copy; {advice}");
        SourceError::Tensor { file: self.file.clone(), tensor: self.names.copy.clone(), what }
    }

    /// Of several pieces that differ the first is told.
    fn compare(
        &self,
        (original, copy): (&Chunk, &Chunk),
        len: u64,
        param: &Param,
        store: &dyn Store,
    ) -> Result<(), SourceError> {
        let starts: Vec<u64> = (0..len).step_by(PIECE).collect();
        consistent(store, original.object, |originals| {
            consistent(store, copy.object, |copies| {
                in_parallel(&starts, |start| {
                    let mut bytes = vec![0; usize::try_from(len - start).unwrap_or(PIECE).min(PIECE)];
                    let mut other = bytes.clone();
                    originals.read_exact_at(original.start + start, &mut bytes)?;
                    copies.read_exact_at(copy.start + start, &mut other)?;
                    let same = bytes.iter().zip(&other).take_while(|(a, b)| a == b).count();
                    if same == bytes.len() {
                        return Ok(());
                    }
                    let element = (start + same as u64) / param.dtype.size();
                    let within = copy.region.shape().index_of(element);
                    let index = Shape(within);
                    Err(self.error(&format!("from element {index} on it is not the same as")))
                })
            })
        })?;
        Ok(())
    }
}
