//! Files that belong to a model and hold none of its own tensors.

use crate::extent::Extent;

/// A tokenizer, a chat template, a generation config, code of the model's own; an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuxFile {
    /// Its path in the directory, `/`-separated.
    pub name: String,
    /// What it is, by its name.
    pub kind: AuxKind,
    /// Its bytes.
    pub extent: Extent,
}

/// What a file beside a model's own weights is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuxKind {
    /// It says how the model is used, and goes with the weights in every format that has a config.
    Description,
    /// Part of an adapter: a loader may add it to the weights, so all of it goes along or nothing.
    Adapter,
    /// Weights or state that are none of the model's own: no index names them.
    More,
}
