//! Extra state of modules: what a module keeps beside its parameters, such as the scales of fp8.
//!
//! It belongs to a module as one rank has it, so it goes along only where a view has the same module.

use crate::layout::Rank;
use crate::value::Value;

/// The extra state of one module on one rank.
#[derive(Debug, Clone)]
pub struct ExtraState {
    /// The rank that saved it.
    pub rank: Rank,
    /// What it saved: opaque, its tensors are in the rank's file.
    pub value: Value,
}
