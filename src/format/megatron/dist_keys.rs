//! Keys of a torch_dist checkpoint, and the names that rank files give the same tensors.
//!
//! A dist key is a rank file's name without the numbers that a layout decides: layers are stacked under one key, experts too. Where layers
//! differ from each other, or every part is to have a key of its own, numbers stand in keys, and they are those of the whole model. Two norms
//! have the names that Transformer Engine's fused layers give them, whichever layers a model is built of.
//!
//! Names here are templates as families have them, with `{layer}`, `{expert}` and `{depth}` for numbers.
//!
//! Source: Megatron-LM's `gpt_layer_specs.py` (`sharded_state_dict_keys_map`), and `sharded_state_dict` of `transformer_block.py`, `mlp.py`,
//! `experts.py`, `multi_token_prediction.py` and `gpt_model.py`; megatron-core 0.12 to 0.16 and Megatron-LM after it. Not here: which tensors a
//! model has (`family`), how axes are cut.

mod common;
mod norms;
mod objects;
mod rank_names;
mod spec;
#[cfg(test)]
mod tests;

pub use common::{
    COMMON_FILE, COMMON_STATE, COMMON_STEP, CONTENT_METADATA, FULLY_RESHARDABLE, MASTERS, PARAM_STATE_SHARDING,
    content_metadata,
};
pub use norms::CORE_ATTENTION;
pub use objects::{ObjectKey, StateKey, object_key, state_key};
pub use spec::{Spec, layers_have_own_keys};

/// What a key or a name is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Of {
    /// The model as a whole.
    Model,
    /// Its layers.
    Layers,
    /// The layers that predict tokens beyond the next one, which are never stacked.
    Predictions,
}

/// One tensor or extra state as keys have it, free of layers and experts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DistName {
    /// What it is of.
    pub of: Of,
    /// Up to where the number of the layer is, or would be: `decoder.layers.`; empty for what is of the model.
    pub before: String,
    /// What follows, as keys have it: `self_attention.linear_qkv.weight`.
    pub rest: String,
    /// Whether each expert has one.
    pub of_experts: bool,
}

/// A key taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistKey {
    /// What it is, without numbers.
    pub name: DistName,
    /// Number of the layer or prediction in the model. `None`: layers are stacked along an axis of their own, or it is of the model.
    pub layer: Option<u32>,
    /// Number of the expert in the model. `None`: experts are stacked, or it is of none.
    pub expert: Option<u32>,
    /// Half of a gated tensor, where each has a key of its own.
    pub half: Option<Half>,
}

/// Which half of a gated tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// The first rows, `_w`.
    Gate,
    /// The rows behind them, `_v`.
    Up,
}

/// Ends the name of the list of layers.
const LAYERS: &str = "layers.";
/// The module of predictions.
const PREDICTIONS: &str = "mtp.";
/// What experts are called in keys; a number may follow.
const EXPERTS: &str = ".experts.experts.";
/// Ends the name of an extra state.
const EXTRA_STATE: &str = "_extra_state";

impl DistName {
    /// The key: of one layer or prediction of this number in the model, or without one of all layers stacked, or of what has no layers.
    /// Predictions are never stacked.
    #[must_use]
    pub fn key(&self, layer: Option<u32>) -> String {
        match layer {
            Some(layer) => format!("{}{layer}.{}", self.before, self.rest),
            None => format!("{}{}", self.before, self.rest),
        }
    }

    /// Whether it is an extra state: an object for each layer and expert, and no tensor.
    #[must_use]
    pub fn is_extra_state(&self) -> bool {
        self.rest.rsplit('.').next() == Some(EXTRA_STATE)
    }
}

impl DistKey {
    /// Takes a key of a tensor, or the first part of an object's ([`ObjectKey`]), apart. It is without what stands before optimizer states
    /// ([`StateKey`]).
    #[must_use]
    pub fn parse(key: &str) -> Self {
        let (before, rest, layer) = split_layer(key);
        let of = match before {
            "" => Of::Model,
            before if before.starts_with(PREDICTIONS) => Of::Predictions,
            _ => Of::Layers,
        };
        let (rest, half) = split_half(rest);
        let (rest, expert) = split_expert(rest);
        let of_experts = rest.contains(EXPERTS);
        Self { name: DistName { of, before: before.to_owned(), rest, of_experts }, layer, expert, half }
    }
}

/// What stands before the number of a layer, what follows it, and the number; nothing stands before what is of no layer.
fn split_layer(key: &str) -> (&str, &str, Option<u32>) {
    let starts = key.match_indices(LAYERS).map(|(at, _)| at);
    let is_part = |at: &usize| *at == 0 || key.as_bytes().get(at.wrapping_sub(1)) == Some(&b'.');
    let Some((before, after)) = starts.filter(is_part).find_map(|at| key.split_at_checked(at + LAYERS.len())) else {
        return ("", key, None);
    };
    match split_number(after) {
        Some((number, rest)) => (before, rest, Some(number)),
        None => (before, after, None),
    }
}

/// The number that a name begins with, and what follows it.
fn split_number(name: &str) -> Option<(u32, &str)> {
    let (number, rest) = name.split_once('.')?;
    let is_plain = number == "0" || !number.starts_with('0');
    super::digits(number).filter(|_| is_plain).map(|number| (number, rest))
}

/// The name of both halves together, and which one it is of.
fn split_half(rest: &str) -> (&str, Option<Half>) {
    let halves = [("_w", Half::Gate), ("_v", Half::Up)];
    let is_gated = |name: &&str| ["linear_fc1.weight", "linear_fc1.bias"].iter().any(|end| name.ends_with(end));
    let found = halves.into_iter().find_map(|(end, half)| Some((rest.strip_suffix(end).filter(is_gated)?, half)));
    found.map_or((rest, None), |(name, half)| (name, Some(half)))
}

/// The name of all experts together, and the number of the one that it is of.
fn split_expert(rest: &str) -> (String, Option<u32>) {
    let numbered = rest.split_once(EXPERTS).and_then(|(module, inner)| {
        let (expert, inner) = split_number(inner)?;
        Some((format!("{module}{EXPERTS}{inner}"), Some(expert)))
    });
    numbered.unwrap_or_else(|| (rest.to_owned(), None))
}
