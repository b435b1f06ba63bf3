//! What tensors are called, and how dicts were nested: as FSDP by hand, accelerate and torchtitan have it.
//!
//! Source: torch's `get_state_dict`, accelerate's `save_fsdp_model` and `save_fsdp_optimizer`, torchtitan's `checkpoint.py`.

use crate::format::dcp::names::{ACCELERATE_MODEL, ACCELERATE_OPTIMIZER};
use crate::format::dcp::write::Step;
use crate::format::megatron::keys::{OPTIMIZER, PARAM_GROUPS, STATE, model_entry};

/// In which directories a distributed checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DcpLayout {
    /// One, of a dict with `model` and `optim`.
    #[default]
    Plain,
    /// As accelerate and the Trainer have it: one of the model, one of the optimizer.
    Accelerate,
}

/// What tensors are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DcpNames {
    /// As in transformers.
    #[default]
    Hf,
    /// As torchtitan calls them, at the root of the checkpoint.
    Torchtitan,
}

/// What FSDP by hand calls the optimizer, after torch's own examples.
const OPTIM: &str = "optim";

/// How keys are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    pub(super) layout: DcpLayout,
    pub(super) names: DcpNames,
}

/// A flat key, and the way to it in nested dicts.
pub(super) type Key = (String, Vec<Step>);

impl Keys {
    /// Names of the directories of the model and of the optimizer, where those are two.
    pub(super) fn directories(self) -> Option<[String; 2]> {
        match self.layout {
            DcpLayout::Plain => None,
            DcpLayout::Accelerate => {
                Some([ACCELERATE_MODEL, ACCELERATE_OPTIMIZER].map(|start| format!("{start}0/")))
            }
        }
    }

    /// The key of a tensor of the model.
    pub(super) fn weight(self, name: &str) -> Key {
        match self.names {
            DcpNames::Hf => key(&[&model_entry(0, 1), name]),
            DcpNames::Torchtitan => key(&[name]),
        }
    }

    /// The key of the state of a tensor.
    pub(super) fn state(self, name: &str, state: &str) -> Key {
        match self.names {
            DcpNames::Hf => key(&[self.optimizer(), STATE, name, state]),
            // Its optimizers are flattened.
            DcpNames::Torchtitan => key(&[self.optimizer(), &format!("{STATE}.{name}.{state}")]),
        }
    }

    /// The key of a setting of a parameter group.
    pub(super) fn setting(self, group: u32, name: &str) -> Key {
        let (mut flat, mut steps) = key(&[self.optimizer(), PARAM_GROUPS]);
        flat.push_str(&format!(".{group}.{name}"));
        steps.extend([Step::Index(group), Step::Key(name.into())]);
        (flat, steps)
    }

    /// The key of a setting of one tensor, in a flattened optimizer.
    pub(super) fn setting_of(self, tensor: &str, name: &str) -> Key {
        key(&[self.optimizer(), &format!("{PARAM_GROUPS}.{tensor}.{name}")])
    }

    fn optimizer(self) -> &'static str {
        match (self.layout, self.names) {
            (DcpLayout::Plain, DcpNames::Hf) => OPTIM,
            (DcpLayout::Accelerate, _) | (_, DcpNames::Torchtitan) => OPTIMIZER,
        }
    }
}

fn key(steps: &[&str]) -> Key {
    (steps.join("."), steps.iter().map(|step| Step::Key((*step).into())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_each_kind_of_program() {
        let of = |layout, names| {
            let keys = Keys { layout, names };
            [keys.weight("norm.weight").0, keys.state("norm.weight", "exp_avg").0, keys.setting(1, "lr").0]
        };
        let plain = of(DcpLayout::Plain, DcpNames::Hf);
        assert_eq!(plain, ["model.norm.weight", "optim.state.norm.weight.exp_avg", "optim.param_groups.1.lr"]);
        let accelerate = of(DcpLayout::Accelerate, DcpNames::Hf);
        assert_eq!(accelerate[1..], ["optimizer.state.norm.weight.exp_avg", "optimizer.param_groups.1.lr"]);
        let titan = of(DcpLayout::Plain, DcpNames::Torchtitan);
        assert_eq!(titan[..2], ["norm.weight", "optimizer.state.norm.weight.exp_avg"]);
    }

    #[test]
    fn names_with_dots_are_one_step() {
        let keys = Keys { layout: DcpLayout::Plain, names: DcpNames::Hf };
        assert_eq!(keys.weight("a.b").1, [Step::Key("model".into()), Step::Key("a.b".into())]);
        assert_eq!(keys.state("a.b", "step").1.len(), 4);
        assert_eq!(keys.setting(0, "lr").1[2..], [Step::Index(0), Step::Key("lr".into())]);
    }
}
