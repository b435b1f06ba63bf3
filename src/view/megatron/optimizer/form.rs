//! How a view keeps its optimizer's state: as the source does, or in the other encoding of the same numbers.

use crate::catalog::{Buffers, Encoding, MASTER, Optimizer, StateOf};
use crate::family::DistributedBuffers;
use crate::tensor::Dtype;
use crate::value::Value;
use crate::view::{OptimizerChoice, Stock, ViewError};

/// How a view keeps its optimizer's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Masters and moments by parameter.
    Mixed,
    /// Moments by parameter; the weights have 32 bits and are their own masters.
    Single,
    /// In flat buffers.
    Distributed(Buffers),
}

impl From<Encoding> for Form {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Mixed => Self::Mixed,
            Encoding::Single => Self::Single,
            Encoding::Distributed(buffers) => Self::Distributed(buffers),
        }
    }
}

/// The form that `choice` means for this source; `None` where views show no optimizer.
pub(in crate::view) fn choose(stock: &Stock, choice: OptimizerChoice) -> Result<Option<Form>, ViewError> {
    let Some(optimizer) = &stock.catalog.optimizer else {
        return match choice {
            OptimizerChoice::Keep | OptimizerChoice::Nothing => Ok(None),
            OptimizerChoice::Mixed | OptimizerChoice::Distributed => Err(ViewError::NoOptimizer),
        };
    };
    match choice {
        OptimizerChoice::Nothing => Ok(None),
        OptimizerChoice::Keep => Ok(Some(optimizer.encoding.into())),
        OptimizerChoice::Mixed => Ok(Some(elementwise(stock, optimizer))),
        OptimizerChoice::Distributed => Ok(Some(Form::Distributed(buffers(stock, optimizer)?))),
    }
}

fn elementwise(stock: &Stock, optimizer: &Optimizer) -> Form {
    let is_half = |dtype: Dtype| matches!(dtype, Dtype::Float16 | Dtype::Bfloat16);
    match optimizer.encoding {
        Encoding::Distributed(_) if stock.catalog.params().iter().any(|param| is_half(param.dtype)) => {
            Form::Mixed
        }
        Encoding::Distributed(_) => Form::Single,
        known => known.into(),
    }
}

/// Buffers hold 32-bit numbers, one for each element, and nothing else.
fn buffers(stock: &Stock, optimizer: &Optimizer) -> Result<Buffers, ViewError> {
    if let Encoding::Distributed(buffers) = optimizer.encoding {
        return Ok(buffers);
    }
    for state in &optimizer.states {
        let fits = match &state.of {
            StateOf::Elements(params) => params.all().iter().all(|param| param.dtype == Dtype::Float32),
            StateOf::Scalar(_) | StateOf::Same(_) => &*state.name == "step" && optimizer.step.is_some(),
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
    let kept = stock.args().and_then(|args| stock.model.distributed_buffers(args));
    match kept {
        Some(DistributedBuffers::Coalesced) => Ok(Buffers { coalesced: true, aligned: true }),
        // Without 32-bit gradients each width of weights has a buffer of its own; how such runs keep them is not known.
        Some(DistributedBuffers::Dense) if !has_wide_gradients(stock) && has_several_widths(stock) => {
            Err(ViewError::NoBuffers {
                why: "weights of several element types have gradients of several types",
            })
        }
        Some(DistributedBuffers::Dense) => Ok(Buffers { coalesced: false, aligned: false }),
        None => Err(ViewError::UnknownBuffers { family: stock.model.family().name.clone() }),
    }
}

fn has_wide_gradients(stock: &Stock) -> bool {
    let field = stock.args().and_then(|args| args.attribute("accumulate_allreduce_grads_in_fp32"));
    field.is_some_and(Value::is_truthy)
}

fn has_several_widths(stock: &Stock) -> bool {
    let mut dtypes = stock.catalog.params().iter().map(|param| param.dtype);
    let first = dtypes.next();
    dtypes.any(|dtype| Some(dtype) != first)
}
