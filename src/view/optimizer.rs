//! What a view shows of the optimizer's state: nothing, or its numbers in the source's encoding or in the other one.
//!
//! Not here: what files hold of it (`megatron::optimizer`).

use std::collections::BTreeSet;

use super::ViewError;
use crate::catalog::{Buffers, Catalog, Encoding, MASTER, Optimizer, StateOf};
use crate::family::{DistributedBuffers, Model};
use crate::format::megatron::GroupKind;
use crate::format::megatron::keys::{OPTIMIZER, PARAM_GROUPS, STEP};
use crate::tensor::Dtype;
use crate::value::Value;

/// How the optimizer's state is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OptimizerChoice {
    /// As the source keeps it.
    #[default]
    Keep,
    /// Masters and moments by parameter, in the rank file.
    Mixed,
    /// In flat buffers, in a file of its own.
    Distributed,
    /// Not at all.
    Nothing,
}

/// The optimizer that a source has, and what decides how it can be shown.
#[derive(Clone, Copy)]
pub(super) struct Trained<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) model: &'a Model,
    /// `args` of the source's first rank.
    pub(super) args: Option<&'a Value>,
}

/// The encoding that `choice` means for this source; `None` where views show no optimizer.
pub(super) fn choose(of: Trained<'_>, choice: OptimizerChoice) -> Result<Option<Encoding>, ViewError> {
    let Some(optimizer) = &of.catalog.optimizer else {
        return match choice {
            OptimizerChoice::Keep | OptimizerChoice::Nothing => Ok(None),
            OptimizerChoice::Mixed | OptimizerChoice::Distributed => Err(ViewError::NoOptimizer),
        };
    };
    match choice {
        OptimizerChoice::Nothing => Ok(None),
        OptimizerChoice::Keep => match optimizer.encoding {
            // Rank files have none of that kind.
            Encoding::Named => Ok(Some(elementwise(of, optimizer))),
            encoding => Ok(Some(encoding)),
        },
        OptimizerChoice::Mixed => Ok(Some(elementwise(of, optimizer))),
        OptimizerChoice::Distributed => Ok(Some(Encoding::Distributed(buffers(of, optimizer)?))),
    }
}

fn elementwise(of: Trained<'_>, optimizer: &Optimizer) -> Encoding {
    let is_half = |dtype: Dtype| matches!(dtype, Dtype::Float16 | Dtype::Bfloat16);
    match optimizer.encoding {
        Encoding::Distributed(_) | Encoding::Named
            if of.catalog.params().iter().any(|param| is_half(param.dtype)) =>
        {
            Encoding::Mixed
        }
        Encoding::Distributed(_) | Encoding::Named => Encoding::Single,
        known => known,
    }
}

/// Buffers hold 32-bit numbers, one for each element, and nothing else.
fn buffers(of: Trained<'_>, optimizer: &Optimizer) -> Result<Buffers, ViewError> {
    if let Encoding::Distributed(buffers) = optimizer.encoding {
        return Ok(buffers);
    }
    for state in &optimizer.states {
        let fits = match &state.of {
            StateOf::Elements(params) => params.all().iter().all(|param| param.dtype == Dtype::Float32),
            StateOf::Scalar(_) | StateOf::Same(_) => &*state.name == STEP && optimizer.step.is_some(),
        };
        if !fits {
            return Err(ViewError::NotForBuffers { state: state.name.to_string() });
        }
    }
    if optimizer.state(MASTER).is_none() {
        return Err(ViewError::NotForBuffers { state: MASTER.to_owned() });
    }
    if optimizer.elements().count() < 2 {
        return Err(ViewError::NoBuffers { why: "there are no moments (perhaps it has not stepped yet)" });
    }
    let kept = of.args.and_then(|args| of.model.distributed_buffers(args));
    match kept {
        Some(DistributedBuffers::Coalesced) => Ok(Buffers { coalesced: true, aligned: true }),
        // Without 32-bit gradients each width of weights has a buffer of its own; how such runs keep them is not known.
        Some(DistributedBuffers::Dense) if !has_wide_gradients(of) && has_several_widths(of) => {
            Err(ViewError::NoBuffers {
                why: "weights of several element types have gradients of several types",
            })
        }
        Some(DistributedBuffers::Dense) => Ok(Buffers { coalesced: false, aligned: false }),
        None => Err(ViewError::UnknownBuffers { family: of.model.family().name.clone() }),
    }
}

fn has_wide_gradients(of: Trained<'_>) -> bool {
    let field = of.args.and_then(|args| args.attribute("accumulate_allreduce_grads_in_fp32"));
    field.is_some_and(Value::is_truthy)
}

fn has_several_widths(of: Trained<'_>) -> bool {
    let mut dtypes = of.catalog.params().iter().map(|param| param.dtype);
    let first = dtypes.next();
    dtypes.any(|dtype| Some(dtype) != first)
}

/// What torch's own optimizer saved, and whether that is within something else.
pub(super) fn inner_of(optimizer: &Value) -> (&Value, bool) {
    optimizer.get(OPTIMIZER).map_or((optimizer, false), |inner| (inner, true))
}

/// Kinds of parameter groups that any rank of the source has.
pub(super) fn group_kinds(catalog: &Catalog) -> BTreeSet<GroupKind> {
    let optimizers = catalog.ranks.iter().flat_map(|file| file.run.optimizers());
    let groups = optimizers.filter_map(|optimizer| inner_of(optimizer).0.get(PARAM_GROUPS)?.elements()).flatten();
    groups.filter_map(|fields| GroupKind::of(fields).ok()).collect()
}
