//! The optimizer's state: what training needs beside the weights to go on, free of how it is stored.
//!
//! Not here: how it is read (`source`) and written (`view`).

use std::collections::HashMap;
use std::sync::Arc;

use super::Params;
use crate::value::Value;

/// Name of the state that holds the 32-bit masters of the weights.
pub const MASTER: &str = "master";

/// Name of the state that says how many steps were taken.
pub const STEP: &str = "step";

/// The state of a checkpoint's optimizer.
#[derive(Debug, Clone)]
pub struct Optimizer {
    /// How the source stores it.
    pub encoding: Encoding,
    /// What it keeps for each parameter: the masters first, then its moments in the order of the source.
    pub states: Vec<State>,
    /// Steps taken, where the source says so.
    pub step: Option<f64>,
    /// How masters are wrapped (a tensor with Python attributes), by the family's name of the tensor.
    pub wrappers: HashMap<Arc<str>, Value>,
    /// Whether ranks save parameter groups without parameters.
    pub keeps_empty_groups: bool,
}

/// How optimizer state is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Masters and moments parameter by parameter, beside the model.
    Mixed,
    /// Moments parameter by parameter; the weights have 32 bits and are their own masters.
    Single,
    /// Flat buffers in a file of their own.
    Distributed(Buffers),
    /// State by the names of the model's tensors, each a tensor of its own.
    Named,
}

/// A part of an optimizer's state that is saved by the name of the tensor which it is of.
#[derive(Debug, Clone)]
pub struct NamedState {
    /// [`MASTER`], or the optimizer's own name: `exp_avg`.
    pub state: Arc<str>,
    /// Name of the tensor in the rank's model.
    pub of: Arc<str>,
    /// What is kept: a tensor of its shape, one without axes, or a plain value.
    pub value: Value,
}

/// How the flat buffers of a distributed optimizer are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// Megatron-core's way: numbered buffers, each with its element types and its length, instead of one for each part of the model.
    pub coalesced: bool,
    /// Whether parameters start at aligned positions.
    pub aligned: bool,
}

/// One thing that the optimizer keeps for each parameter.
#[derive(Debug, Clone)]
pub struct State {
    /// [`MASTER`], or the optimizer's own name: `exp_avg`.
    pub name: Arc<str>,
    /// What it is.
    pub of: StateOf,
}

/// What is kept for each parameter.
#[derive(Debug, Clone)]
pub enum StateOf {
    /// A number for each of its elements.
    Elements(Params),
    /// One tensor of one element, by each parameter of the tensor that it is for.
    Scalar(Params),
    /// One number, the same for all parameters.
    Same(Value),
}

impl Optimizer {
    /// The state called `name`.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<&State> {
        self.states.iter().find(|state| &*state.name == name)
    }

    /// States that have a number for each element, with their names.
    pub fn elements(&self) -> impl Iterator<Item = (&Arc<str>, &Params)> {
        self.states.iter().filter_map(State::elements)
    }
}

impl State {
    /// Its name and its numbers, where it has one for each element.
    #[must_use]
    pub fn elements(&self) -> Option<(&Arc<str>, &Params)> {
        match &self.of {
            StateOf::Elements(params) => Some((&self.name, params)),
            StateOf::Scalar(_) | StateOf::Same(_) => None,
        }
    }
}
