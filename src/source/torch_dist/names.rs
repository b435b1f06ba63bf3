//! The keys of a checkpoint, sorted by what they are of: weights, states of the optimizer, its flat buffers, objects.

use std::collections::{BTreeMap, HashSet};

use crate::family::{Model, Numbers};
use crate::format::dcp::metadata::{Metadata, Object, Tensor};
use crate::format::megatron::dist_keys::{DistKey, DistName, ObjectKey, Of, Spec, StateKey};
use crate::tensor::Dtype;

/// What stands before every key of NeMo's.
const MODULE: &str = "module.";
/// What stands before keys of flat buffers, and of what belongs to them.
pub(super) const DISTRIBUTED: &str = "optimizer.distributed.";
/// Before the number of one of several optimizers.
pub(super) const CHAINED: &str = "chained_";

/// A tensor of the model, or a state of one.
#[derive(Debug)]
pub(super) struct Weight<'a> {
    pub(super) tensor: &'a Tensor,
    pub(super) key: DistKey,
    /// Whether it is a norm that the checkpoint has under the names of both kinds of layers, and this the name of the other kind.
    pub(super) is_second: bool,
}

/// A state of a tensor.
#[derive(Debug)]
pub(super) struct StateOf<'a> {
    /// What the optimizer calls it.
    pub(super) state: &'a str,
    pub(super) weight: Weight<'a>,
}

/// All keys.
#[derive(Debug, Default)]
pub(super) struct Named<'a> {
    pub(super) weights: Vec<Weight<'a>>,
    pub(super) states: Vec<StateOf<'a>>,
    /// Flat buffers of a distributed optimizer.
    pub(super) buffers: Vec<&'a Tensor>,
    /// Objects of modules and ranks, with their keys taken apart.
    pub(super) objects: Vec<(&'a Object, ObjectKey<'a>)>,
    /// Objects of a distributed optimizer.
    pub(super) optimizer_objects: Vec<&'a Object>,
    /// Objects whose keys are not Megatron's.
    pub(super) foreign: Vec<&'a Object>,
}

impl<'a> Named<'a> {
    /// Sorts the keys.
    pub(super) fn of(metadata: &'a Metadata, spec: Spec) -> Self {
        let mut named = Self::sorted(metadata);
        second_names(named.weights.iter_mut(), spec);
        for state in named.states.chunk_by_mut(|one, other| one.state == other.state) {
            second_names(state.iter_mut().map(|state| &mut state.weight), spec);
        }
        named
    }

    fn sorted(metadata: &'a Metadata) -> Self {
        let mut named = Self::default();
        for tensor in &metadata.tensors {
            if is_of_buffers(&tensor.key) {
                named.buffers.push(tensor);
            } else if let Some(state) = StateKey::parse(&tensor.key) {
                let weight = Weight::of(tensor, state.key);
                named.states.push(StateOf { state: state.state, weight });
            } else {
                named.weights.push(Weight::of(tensor, &tensor.key));
            }
        }
        for object in &metadata.objects {
            if is_of_buffers(&object.key) {
                named.optimizer_objects.push(object);
            } else if let Some(key) = ObjectKey::parse(&object.key) {
                named.objects.push((object, key));
            } else {
                named.foreign.push(object);
            }
        }
        named
    }
}

/// Which of several optimizers a key is of, and what follows that: none and the key, where it does not say so.
pub(super) fn chained(key: &str) -> Option<(Option<u32>, &str)> {
    let Some(rest) = key.strip_prefix(CHAINED) else { return Some((None, key)) };
    let (number, key) = rest.split_once('.')?;
    Some((Some(number.parse().ok()?), key))
}

/// Whether a key is of the flat buffers of one of the optimizers.
fn is_of_buffers(key: &str) -> bool {
    chained(key).is_some_and(|(_, key)| key.starts_with(DISTRIBUTED))
}

/// The element type of most bytes of the weights.
pub(super) fn main_dtype(metadata: &Metadata) -> Dtype {
    let mut bytes: BTreeMap<Dtype, u64> = BTreeMap::new();
    let is_weight = |tensor: &&Tensor| !is_of_buffers(&tensor.key) && StateKey::parse(&tensor.key).is_none();
    for tensor in metadata.tensors.iter().filter(is_weight) {
        let of_type = bytes.entry(tensor.dtype).or_default();
        *of_type = of_type.saturating_add(tensor.shape.bytes(tensor.dtype).into_iter().sum());
    }
    bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map_or(Dtype::Float32, |(dtype, _)| dtype)
}

/// The key without what NeMo puts before it.
pub(super) fn without_module(key: &str) -> &str {
    match key.strip_prefix(MODULE) {
        Some(rest) => rest,
        None => key,
    }
}

/// Gives norms that are there under the names of both kinds of layers, as in views of this tool, the name of the model's own.
fn second_names<'w, 'a: 'w>(weights: impl Iterator<Item = &'w mut Weight<'a>>, spec: Spec) {
    let mut weights: Vec<_> = weights.collect();
    let all: HashSet<(DistName, Option<u32>)> =
        weights.iter().map(|weight| (weight.key.name.clone(), weight.key.layer)).collect();
    for weight in &mut weights {
        let name = &weight.key.name;
        if name.is_fused_norm() == spec.transformer_engine {
            continue;
        }
        let others = [false, true].into_iter().filter_map(|has_experts| name.other_norm(spec.latent, has_experts));
        if let Some(own) = others.into_iter().find(|own| all.contains(&(own.clone(), weight.key.layer))) {
            weight.key.name = own;
            weight.is_second = true;
        }
    }
}

impl<'a> Weight<'a> {
    /// The tensor of a weight's key.
    fn of(tensor: &'a Tensor, key: &str) -> Self {
        Self { tensor, key: DistKey::parse(without_module(key)), is_second: false }
    }
}

impl Weight<'_> {
    /// Whether the layers stand on each other.
    pub(super) fn has_layer_axis(&self) -> bool {
        self.key.name.of == Of::Layers && self.key.layer.is_none()
    }

    /// Whether the experts do.
    pub(super) fn has_expert_axis(&self) -> bool {
        self.key.name.of_experts && self.key.expert.is_none()
    }

    /// Names that rank files may have for it, with `{layer}` where names have a number.
    pub(super) fn templates(&self, spec: Spec) -> impl Iterator<Item = String> + use<> {
        let name = &self.key.name;
        let all = [name.rank_template(spec, false), name.rank_template(spec, true)];
        all.into_iter()
    }

    /// Rows of the first piece, by each name: what a rank has of a tensor that is not stacked.
    pub(super) fn rows_on_ranks(&self, spec: Spec) -> Vec<(String, u64)> {
        let axis = usize::from(self.has_layer_axis()) + usize::from(self.has_expert_axis());
        match self.tensor.chunks.iter().next().and_then(|chunk| chunk.sizes.get(axis).copied()) {
            Some(rows) => self.templates(spec).map(|name| (name, rows)).collect(),
            None => Vec::new(),
        }
    }

    /// The name in a rank file of one with these numbers.
    pub(super) fn name(&self, spec: Spec, model: &Model, numbers: Numbers) -> String {
        let has_experts = match numbers.layer {
            Some(layer) => model.kind_of(layer) == crate::family::LayerKind::Expert,
            // A prediction is a layer like the last one.
            None => model.size("experts").is_some(),
        };
        numbers.fill(&self.key.name.rank_template(spec, has_experts))
    }
}
