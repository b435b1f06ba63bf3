//! Which parameters are in which parameter group of an optimizer.
//!
//! Source: Megatron-LM's `optimizer/__init__.py` (`_get_param_groups`): biases and vectors have no weight decay; embedding and head may have a
//! learning rate of their own; experts have groups of their own where they are shared out differently.
//! Not here: the tensors in a group's state (`source`, `view`).

use crate::value::Value;

/// What makes a parameter group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKind {
    /// Whether weights decay.
    pub decays: bool,
    /// Whether it has the learning rate of embedding and head.
    pub decoupled: bool,
    /// Whether its parameters are experts that are shared out differently from the rest.
    pub expert: bool,
}

/// A parameter group that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a parameter group has {0}")]
pub struct GroupError(pub String);

impl GroupKind {
    /// The kind of a group, by the fields that Megatron tells groups apart with.
    ///
    /// # Errors
    /// [`GroupError`] where it lacks the multiplier of the weight decay, or has one of the learning rate.
    pub fn of(group: &Value) -> Result<Self, GroupError> {
        let multiplier = |name: &str| {
            let value = group.get(name).or_else(|| group.get(&format!("pre_{name}")));
            value.and_then(Value::as_number)
        };
        let decays = multiplier("wd_mult").ok_or_else(|| GroupError("no wd_mult".into()))?;
        // Which parameters such a group holds is decided by a function that is in no checkpoint.
        if let Some(other) = multiplier("lr_mult").filter(|multiplier| *multiplier != 1.0) {
            return Err(GroupError(format!("lr_mult {other}, and which parameters it holds is not known")));
        }
        let is_set = |name: &str| group.get(name).is_some_and(Value::is_truthy);
        Ok(Self {
            decays: decays != 0.0,
            decoupled: is_set("is_decoupled_lr"),
            expert: is_set("is_expert_parallel"),
        })
    }

    /// Whether a parameter of this name and number of dimensions has weight decay, in a run with these args.
    #[must_use]
    pub fn decays(args: Option<&Value>, name: &str, rank: usize) -> bool {
        // A choice of the run, made for Qwen3-Next.
        let norms_decay =
            || args.and_then(|args| args.attribute("apply_wd_to_qk_layernorm")).is_some_and(Value::is_truthy);
        let is_qk_norm = ["q_layernorm.", "k_layernorm."].iter().any(|part| name.contains(part));
        (rank != 1 && !name.ends_with(".bias")) || (is_qk_norm && norms_decay())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Construct, Object};

    fn group(fields: &[(&str, Value)]) -> Value {
        Value::Dict(fields.iter().map(|(key, value)| (Value::str(key), value.clone())).collect())
    }

    #[test]
    fn kinds_are_read_off_the_fields() {
        let plain = GroupKind::of(&group(&[("wd_mult", Value::Float(1.0)), ("lr_mult", Value::Float(1.0))]));
        assert_eq!(plain, Ok(GroupKind { decays: true, decoupled: false, expert: false }));
        let other = group(&[
            ("wd_mult", Value::Float(0.0)),
            ("is_decoupled_lr", Value::Bool(true)),
            ("is_expert_parallel", Value::Bool(true)),
        ]);
        assert_eq!(GroupKind::of(&other), Ok(GroupKind { decays: false, decoupled: true, expert: true }));
        assert!(GroupKind::of(&group(&[])).is_err());
        assert!(
            GroupKind::of(&group(&[("wd_mult", Value::Int(1)), ("lr_mult", Value::Float(10.0))])).is_err()
        );
    }

    #[test]
    fn vectors_and_biases_do_not_decay() {
        let decays = |name, rank| GroupKind::decays(None, name, rank);
        assert!(decays("a.weight", 2));
        assert!(!decays("norm.weight", 1) && !decays("q_layernorm.weight", 1));
        assert!(!decays("a.bias", 2));
        let args = Value::Object(std::sync::Arc::new(Object {
            construct: Construct::New,
            callable: Value::None,
            args: Value::None,
            appended: vec![],
            items: vec![],
            state: Some(group(&[("apply_wd_to_qk_layernorm", Value::Bool(true))])),
        }));
        let decays = |name, rank| GroupKind::decays(Some(&args), name, rank);
        assert!(decays("layers.0.q_layernorm.weight", 1) && decays("layers.0.k_layernorm.bias", 1));
        assert!(!decays("norm.weight", 1));
    }
}
