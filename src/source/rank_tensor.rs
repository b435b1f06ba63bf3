//! A tensor under the name that a rank file would give it, in the pieces that it is stored in elsewhere.
//!
//! Not here: what it means (`build`), and how it was found (`torch_dist`).

use std::sync::Arc;

use crate::catalog::Chunk;
use crate::tensor::{Dtype, Shape};
use crate::value::{Storage, TensorRef};

/// A tensor as a rank file would have it.
#[derive(Debug)]
pub(super) struct RankTensor {
    /// Its name there.
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Shape,
    /// Where its bytes are.
    pub(super) pieces: Vec<Chunk>,
}

impl RankTensor {
    /// The tensor as a state dict has it: it stands for itself as a storage, and its pieces say where that is.
    pub(super) fn reference(&self, key: &Arc<str>) -> TensorRef {
        TensorRef {
            dtype: self.dtype,
            shape: self.shape.clone(),
            strides: self.shape.contiguous_strides().into_iter().flatten().collect(),
            offset: 0,
            storage: Storage { key: key.clone(), bytes: self.shape.bytes(self.dtype).into_iter().sum() },
            requires_grad: false,
        }
    }
}
