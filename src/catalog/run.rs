//! What a rank saved beside its part of the model: the state of the run, and, of a rank file that is a pickle, every entry as it stands.
//!
//! Not here: what the entries are called (`format`), and how they are told apart (`source`).

use crate::value::Value;

/// The state of the run that saved a rank, or, of a source that no run saved, that of one which could have.
#[derive(Debug, Clone)]
pub struct RunState {
    /// Arguments of training: a namespace, or a dict that stands for one.
    pub args: Value,
    /// Version of the order of rows in fused tensors.
    pub checkpoint_version: Option<f64>,
    /// Steps taken, as far as the rank says.
    pub iteration: Option<u64>,
    /// The optimizer as the rank file has it: settings, parameter groups, and its state where that is not in a file of its own.
    pub optimizer: Option<Value>,
    /// Random-number state of the rank.
    pub rng: Option<Value>,
}

/// An entry of a rank file that is a pickle.
#[derive(Debug, Clone)]
pub struct SavedEntry {
    /// Its key.
    pub key: Value,
    /// What it is.
    pub kind: EntryKind,
    /// What stands there, tensors as references.
    pub value: Value,
}

/// What an entry of a rank file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Arguments of training.
    Args,
    /// This part of the model.
    Model(u32),
    /// How far the run was and how it orders rows: says nothing that another format lacks.
    Progress,
    /// The optimizer's state.
    Optimizer,
    /// What sets the optimizer's learning rate.
    Schedule,
    /// Random-number state.
    Rng,
    /// Other state of one rank alone.
    RankState,
    /// Anything else.
    Other,
}

impl RunState {
    /// That of a run of which only the arguments are known.
    #[must_use]
    pub fn of_args(args: Value) -> Self {
        Self { args, checkpoint_version: None, iteration: None, optimizer: None, rng: None }
    }

    /// The rank's optimizers: one, or one for the dense part and one for the experts.
    #[must_use]
    pub fn optimizers(&self) -> &[Value] {
        match &self.optimizer {
            Some(all) => one_or_more(all),
            None => &[],
        }
    }
}

impl EntryKind {
    /// What people call an entry of this kind that is called `key`.
    #[must_use]
    pub fn words(self, key: &str) -> String {
        match self {
            Self::Optimizer => "optimizer state".to_owned(),
            Self::Schedule => format!("learning-rate schedule ({key})"),
            _ => key.to_owned(),
        }
    }
}

/// The elements of a list, or the value itself: so is saved what there may be several of.
#[must_use]
pub fn one_or_more(value: &Value) -> &[Value] {
    match value.elements() {
        Some(elements) => elements,
        None => std::slice::from_ref(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optimizers_are_those_of_a_list_or_the_one() {
        let of = |optimizer| RunState { optimizer, ..RunState::of_args(Value::None) };
        assert_eq!(of(None).optimizers().len(), 0);
        assert_eq!(of(Some(Value::Dict([].into()))).optimizers().len(), 1);
        assert_eq!(of(Some(Value::List([Value::None, Value::None].into()))).optimizers().len(), 2);
    }
}
