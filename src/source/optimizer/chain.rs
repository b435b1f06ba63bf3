//! The form of a rank's optimizer: one or several, their parameter groups, and where their state is.
//!
//! Source: `state_dict` of Megatron-LM's `Float16OptimizerWithFloat16Params`, `FP32Optimizer`, `DistributedOptimizer`, `ChainedOptimizer`.

use super::super::SourceError;
use super::wrong;
use crate::format::megatron::GroupKind;
use crate::format::megatron::keys::{MASTERS, OPTIMIZER, PARAM_GROUPS, STATE};
use crate::value::Value;

/// One optimizer of a rank.
pub(super) struct Chain<'a> {
    pub(super) form: StateForm,
    /// Its parameter groups.
    pub(super) groups: Vec<Group<'a>>,
    /// The inner optimizer: what holds `param_groups` and `state`.
    pub(super) inner: &'a Value,
    /// The masters, a list for each group.
    pub(super) masters: Option<&'a Value>,
}

/// A parameter group.
pub(super) struct Group<'a> {
    pub(super) kind: GroupKind,
    /// Its fields.
    pub(super) fields: &'a Value,
}

/// How state is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StateForm {
    /// Masters and moments by parameter.
    Mixed,
    /// Moments by parameter, without masters.
    Single,
    /// In a file of its own.
    Flat,
}

impl StateForm {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Mixed => "a mixed-precision optimizer",
            Self::Single => "an optimizer without 32-bit masters",
            Self::Flat => "a distributed optimizer",
        }
    }
}

/// The optimizers of a rank file.
pub(super) fn chains<'a>(optimizers: &'a [Value], file: &str) -> Result<Vec<Chain<'a>>, SourceError> {
    let chains: Vec<Chain<'a>> = optimizers.iter().map(|part| chain(part, file)).collect::<Result<_, _>>()?;
    for (index, one) in chains.iter().enumerate() {
        if one
            .groups
            .iter()
            .any(|group| one.groups.first().is_some_and(|first| first.kind.expert != group.kind.expert))
        {
            let what =
                "one optimizer has groups of the dense part and of experts; only one for each is known";
            return Err(wrong(file, what.into()));
        }
        let others = chains.iter().skip(index + 1).flat_map(|chain| &chain.groups);
        let within = one.groups.iter().enumerate();
        let twice = within.clone().any(|(at, group)| {
            one.groups.iter().skip(at + 1).chain(others.clone()).any(|other| other.kind == group.kind)
        });
        if twice {
            let what = "two of its parameter groups are of the same kind, so which parameters are in which is not known";
            return Err(wrong(file, what.into()));
        }
    }
    Ok(chains)
}

fn chain<'a>(value: &'a Value, file: &str) -> Result<Chain<'a>, SourceError> {
    let inner = value.get(OPTIMIZER).unwrap_or(value);
    let groups = inner.get(PARAM_GROUPS).and_then(Value::elements);
    let Some(groups) = groups.filter(|_| value.items().is_some()) else {
        let what = "it is of a kind that is not known: expected a dict with param_groups";
        return Err(wrong(file, what.into()));
    };
    let groups = groups.iter().map(|fields| match GroupKind::of(fields) {
        Ok(kind) => Ok(Group { kind, fields }),
        Err(error) => Err(wrong(file, format!("it is of a kind that is not known: {error}"))),
    });
    let groups: Vec<Group<'a>> = groups.collect::<Result<_, _>>()?;
    let masters = MASTERS.iter().find_map(|name| value.get(name));
    let has_state = inner.get(STATE).is_some();
    let form = match (has_state, masters) {
        (true, Some(_)) => StateForm::Mixed,
        (true, None) => StateForm::Single,
        (false, None) => StateForm::Flat,
        (false, Some(_)) => {
            return Err(wrong(file, "it has masters, but no state beside its param_groups".into()));
        }
    };
    Ok(Chain { form, groups, inner, masters })
}
