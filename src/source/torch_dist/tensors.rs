//! Stacked tensors as those of rank files: one for each layer and expert, in the pieces that it is stored in.
//!
//! Not here: what the tensors mean (`build`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::flattened::unflattened;
use super::names::Weight;
use crate::catalog::{Chunk, RankFile};
use crate::family::{Model, Numbers};
use crate::format::dcp::metadata::Tensor;
use crate::format::megatron::dist_keys::{Half, Of, Spec};
use crate::layout::{Experts, Layout, Place, Rank, Stages};
use crate::source::build::pieces_at;
use crate::source::dcp::Opened;
use crate::source::rank_tensor::RankTensor;
use crate::source::SourceError;
use crate::store::Store;
use crate::tensor::{Dtype, Shape};
use crate::value::Value;

/// The tensors of a rank file that these are, in the order of their keys.
pub(super) fn read(
    opened: &Opened,
    weights: &[Weight<'_>],
    model: &Model,
    spec: Spec,
    store: &dyn Store,
) -> Result<Vec<RankTensor>, SourceError> {
    let all: Vec<&Weight<'_>> = weights.iter().collect();
    let wanted: Vec<&Tensor> = all.iter().map(|weight| weight.tensor).collect();
    let pieces = opened.pieces(&wanted, store)?;
    of_pieces(opened, &all, pieces, model, spec)
}

/// As [`read`], of tensors whose pieces are known.
pub(super) fn of_pieces(
    opened: &Opened,
    weights: &[&Weight<'_>],
    pieces: Vec<Vec<Chunk>>,
    model: &Model,
    spec: Spec,
) -> Result<Vec<RankTensor>, SourceError> {
    let mut found: BTreeMap<String, Parts> = BTreeMap::new();
    for (weight, pieces) in weights.iter().zip(pieces) {
        let wrong = |what: &str| SourceError::Tensor {
            file: opened.directory().display().to_string(),
            tensor: weight.tensor.key.to_string(),
            what: what.to_owned(),
        };
        let shape = match &weight.tensor.original_shape {
            Some(shape) => shape,
            None => &weight.tensor.shape,
        };
        let pieces = unflattened(weight.tensor, pieces).ok_or_else(|| wrong(FRAGMENTS))?;
        for (numbers, shape, pieces) in unstacked(weight, shape, pieces).ok_or_else(|| wrong(UNLIKE))? {
            let name = weight.name(spec, model, numbers);
            let parts = found.entry(name).or_default();
            let part = Part { dtype: weight.tensor.dtype, shape, pieces };
            if weight.is_second {
                parts.replicas.push(part);
            } else if parts.put(weight.key.half, part).is_none() {
                return Err(wrong("another key stands for the same tensor of the same layer"));
            }
        }
    }
    let joined = found.into_iter().map(|(name, parts)| {
        parts.join(&name).ok_or_else(|| SourceError::Tensor {
            file: opened.directory().display().to_string(),
            tensor: name.clone(),
            what: UNLIKE_PARTS.to_owned(),
        })
    });
    joined.collect()
}

const FRAGMENTS: &str = "it was saved flattened, and its shape is not that of fragments of the one that it has in the model";
const UNLIKE_PARTS: &str = "its halves (_w and _v) are not both there, or are not alike, or it is there under two names and not alike";
const UNLIKE: &str = "it has fewer axes than its key says: layers and experts should stand first";

/// A tensor of each layer and expert that stand on each other, with its numbers.
type Unstacked = Vec<(Numbers, Shape, Vec<Chunk>)>;

fn unstacked(weight: &Weight<'_>, shape: &Shape, pieces: Vec<Chunk>) -> Option<Unstacked> {
    let of_name = Numbers {
        layer: weight.key.layer.filter(|_| weight.key.name.of == Of::Layers),
        depth: weight.key.layer.filter(|_| weight.key.name.of == Of::Predictions),
        expert: weight.key.expert,
    };
    let mut all: Unstacked = vec![(of_name, shape.clone(), pieces)];
    if weight.has_layer_axis() {
        all = split(all, |numbers, index| Numbers { layer: Some(index), ..numbers })?;
    }
    if weight.has_expert_axis() {
        all = split(all, |numbers, index| Numbers { expert: Some(index), ..numbers })?;
    }
    Some(all)
}

/// What stands at each index of the first axis.
fn split(all: Unstacked, number: impl Fn(Numbers, u32) -> Numbers) -> Option<Unstacked> {
    let mut found = Vec::new();
    for (numbers, shape, pieces) in all {
        let (count, inner) = shape.0.split_first()?;
        let inner = Shape(inner.to_vec());
        for (index, pieces) in by_index(*count, &pieces)?.into_iter().enumerate() {
            found.push((number(numbers, u32::try_from(index).ok()?), inner.clone(), pieces));
        }
    }
    Some(found)
}

/// The pieces at each index of the first axis.
fn by_index(count: u64, pieces: &[Chunk]) -> Option<Vec<Vec<Chunk>>> {
    /// No model has as many layers or experts.
    const MOST: u64 = 1 << 16;
    let count = usize::try_from(count).ok().filter(|count| *count as u64 <= MOST)?;
    let mut found: Vec<Vec<Chunk>> = (0..count).map(|_| Vec::new()).collect();
    for piece in pieces {
        for index in piece.region.along(0) {
            let at = found.get_mut(usize::try_from(index).ok()?)?;
            at.extend(pieces_at(std::slice::from_ref(piece), index)?);
        }
    }
    Some(found)
}

/// A tensor, or half of one.
#[derive(Debug)]
struct Part {
    dtype: Dtype,
    shape: Shape,
    pieces: Vec<Chunk>,
}

/// What keys have of a tensor.
#[derive(Debug, Default)]
struct Parts {
    whole: Option<Part>,
    gate: Option<Part>,
    up: Option<Part>,
    /// The whole once more, under another name.
    replicas: Vec<Part>,
}

impl Parts {
    /// Notes a part; `None` where it is there already.
    fn put(&mut self, half: Option<Half>, part: Part) -> Option<()> {
        let place = match half {
            None => &mut self.whole,
            Some(Half::Gate) => &mut self.gate,
            Some(Half::Up) => &mut self.up,
        };
        place.replace(part).is_none().then_some(())
    }

    /// The tensor: its rows of the gate come before those of up.
    fn join(self, name: &str) -> Option<RankTensor> {
        let whole = match (self.whole, self.gate, self.up) {
            (Some(whole), None, None) => whole,
            (None, Some(gate), Some(up)) => gate.followed_by(up)?,
            _ => return None,
        };
        let Part { dtype, shape, mut pieces } = whole;
        for replica in self.replicas {
            if (replica.dtype, &replica.shape) != (dtype, &shape) {
                return None;
            }
            pieces.extend(replica.pieces);
        }
        Some(RankTensor { name: name.to_owned(), dtype, shape, pieces })
    }
}

impl Part {
    fn followed_by(self, next: Self) -> Option<Self> {
        let Self { dtype, shape, mut pieces } = self;
        let (own, other) = (shape.0.first().copied()?, next.shape.0.first().copied()?);
        if next.dtype != dtype || shape.with(0, 0) != next.shape.with(0, 0) {
            return None;
        }
        for piece in next.pieces {
            let rows = piece.region.along(0);
            let moved = rows.start.checked_add(own)?..rows.end.checked_add(own)?;
            pieces.push(Chunk { region: piece.region.clone().with(0, moved), ..piece });
        }
        Some(Self { dtype, shape: shape.with(0, own.checked_add(other)?), pieces })
    }
}

/// Makes them, and the extra states of these names, the model that the rank saved, in the order in which a rank with everything saves.
pub(super) fn put(file: &mut RankFile, model: &Model, tensors: Vec<RankTensor>, states: Vec<String>) {
    let mut leaves: Vec<(Value, Value)> = Vec::new();
    for tensor in tensors {
        let key: Arc<str> = tensor.name.as_str().into();
        leaves.push((Value::Str(key.clone()), Value::Tensor(Arc::new(tensor.reference(&key)))));
        file.pieces.insert(key, tensor.pieces);
    }
    leaves.extend(states.into_iter().map(|name| (Value::str(&name), Value::None)));
    let order = in_order(model);
    // What the family does not have is refused by whoever looks at it, wherever it stands.
    let place = |name: &Value| name.as_str().and_then(|name| order.get(name)).copied();
    leaves.sort_by_key(|(name, _)| (place(name).is_none(), place(name)));
    file.models = vec![Value::Dict(leaves.into())];
}

/// Where in its list a rank with everything has each name.
fn in_order(model: &Model) -> HashMap<String, usize> {
    let layers = model.size("layers").and_then(|layers| u32::try_from(layers).ok());
    let Some(stages) = layers.and_then(|layers| Stages::new(vec![layers])) else { return HashMap::new() };
    let experts = model.size("experts").map(|_| Experts { ep: 1, etp: 1 });
    let layout = Layout { experts, ..Layout::dense(1, stages) };
    let place = Place { rank: Rank { pp: 0, tp: 0, ep: 0 }, chunk: 0 };
    let saved = model.saved_at(&layout, place).into_iter().enumerate();
    saved.map(|(index, saved)| (saved.local.fill(&model.entry_of(saved).name), index)).collect()
}

/// The whole of a tensor of this shape as a piece would have it.
#[cfg(test)]
fn whole(shape: &Shape, start: u64) -> Chunk {
    use crate::extent::ObjectId;
    use crate::tensor::Region;

    let strides = shape.contiguous_strides().unwrap();
    let rank = Rank { pp: 0, tp: 0, ep: 0 };
    Chunk { region: Region::whole(shape), rank, object: ObjectId(0), start, strides, period: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(rows: u64, start: u64) -> Part {
        let shape = Shape(vec![rows, 3]);
        Part { dtype: Dtype::Int8, pieces: vec![whole(&shape, start)], shape }
    }

    #[test]
    fn halves_follow_each_other() {
        let mut parts = Parts::default();
        assert!(parts.put(Some(Half::Up), part(2, 100)).is_some());
        assert!(parts.put(Some(Half::Up), part(2, 100)).is_none());
        assert!(parts.put(Some(Half::Gate), part(2, 0)).is_some());
        let joined = parts.join("t").unwrap();
        assert_eq!(joined.shape, Shape(vec![4, 3]));
        let regions: Vec<_> = joined.pieces.iter().map(|piece| (piece.region.to_string(), piece.start)).collect();
        assert_eq!(regions, [("[0:2, 0:3]".to_owned(), 0), ("[2:4, 0:3]".to_owned(), 100)]);
        let half = Parts { gate: Some(part(2, 0)), ..Parts::default() };
        assert!(half.join("t").is_none());
        let both = Parts { gate: Some(part(2, 0)), whole: Some(part(2, 0)), ..Parts::default() };
        assert!(both.join("t").is_none());
    }

    #[test]
    fn pieces_are_those_of_their_layers() {
        let shape = Shape(vec![3, 2, 4]);
        let all = by_index(3, &[whole(&shape, 0)]).unwrap();
        let starts: Vec<_> = all.iter().map(|pieces| (pieces.len(), pieces[0].start)).collect();
        assert_eq!(starts, [(1, 0), (1, 8), (1, 16)]);
        assert!(by_index(2, &[whole(&shape, 0)]).is_none());
        assert!(by_index(1 << 40, &[]).is_none());
    }
}
