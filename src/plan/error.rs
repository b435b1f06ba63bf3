//! Why a tensor cannot be made of the parameters it is said to hold.

use crate::tensor::{Dtype, Region, Shape};

/// Why a tensor cannot be made of the parameters it is said to hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatherError {
    /// The bands are not every position exactly once.
    #[error("positions along axis {axis} are not each described once (at {position} of {size})")]
    Bands {
        /// The axis.
        axis: usize,
        /// First position that is described twice or not at all.
        position: u64,
        /// Positions of the tensor.
        size: u64,
    },
    /// A parameter lacks a position.
    #[error("{param} has no position {position}")]
    Missing {
        /// The parameter.
        param: String,
        /// The position.
        position: u64,
    },
    /// Elements that no stored piece has.
    #[error("no stored piece has {0} of it")]
    Hole(Region),
    /// Elements that several stored pieces have which are no replicas.
    #[error("several stored pieces have {0} of it; this is a bug")]
    Twice(Region),
    /// A tensor that does not have the axis it is said to be cut along.
    #[error("it has no axis {axis} to be cut along; this is a bug")]
    Axis {
        /// The axis.
        axis: usize,
    },
    /// A parameter of another element type than the tensor it is put in.
    #[error("{param} is {dtype}, and is to share one tensor with what is {wanted}; save both in one type")]
    Dtype {
        /// The parameter.
        param: String,
        /// Its element type.
        dtype: Dtype,
        /// The tensor's.
        wanted: Dtype,
    },
    /// A parameter that is cut along another axis, or has other sizes beside it, than the tensor it is put in.
    #[error(
        "{param} is {shape} along axis {axis}, which does not fit the tensor it is put in; this is a bug"
    )]
    Unlike {
        /// The parameter.
        param: String,
        /// Its shape.
        shape: Shape,
        /// The axis along which it is stored in pieces.
        axis: usize,
    },
    /// What was planned is not as long as the tensor.
    #[error("{planned} bytes were planned for a tensor of {wanted:?} bytes; this is a bug")]
    Length {
        /// Bytes of the plan.
        planned: u64,
        /// Bytes of the tensor; `None` where they do not fit 64 bits.
        wanted: Option<u64>,
    },
    /// The source stores the tensor so scattered that a plan would be a list of single elements.
    #[error("it is stored with strides that cannot be cut in stripes; save it contiguous")]
    Scattered,
}
