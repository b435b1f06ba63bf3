//! The tensors of a checkpoint, and in which pieces each is.
//!
//! FSDP's ranks read rows, so tensors are cut along their first axis where the family cuts them there too; others are one piece.

use std::ops::Range;
use std::sync::Arc;

use super::keys::{Key, Keys};
use crate::catalog::StateOf;
use crate::family::Saved;
use crate::format::dcp::write::Step;
use crate::layout::Layout;
use crate::plan::Target;
use crate::tensor::{Dtype, Shape};
use crate::view::dcp_files::pieces;
use crate::view::dcp_files::values::Values;
use crate::view::hf::WHOLE;
use crate::view::target::{TargetTensor, tensor_of_values};
use crate::view::{Basis, ViewError};

/// A tensor of the checkpoint.
#[derive(Debug)]
pub(super) struct DcpTensor {
    pub(super) key: Arc<str>,
    /// How dicts were nested.
    pub(super) path: Vec<Step>,
    pub(super) dtype: Dtype,
    pub(super) shape: Shape,
    pub(super) content: Content,
    /// Rows that are a piece; one for a tensor in one piece, whatever axes it has.
    pub(super) pieces: Arc<[Range<u64>]>,
}

/// What a tensor holds.
#[derive(Debug)]
pub(super) enum Content {
    /// The weights or a state of the optimizer, of this tensor of the model.
    Values {
        /// Which.
        values: Values,
        /// The tensor.
        saved: Saved,
    },
    /// The one number of a state that the source has of this parameter.
    Scalar {
        /// Which state of the optimizer.
        state: usize,
        /// The parameter.
        param: Arc<str>,
    },
    /// This number.
    Number(f32),
}

impl DcpTensor {
    /// A tensor of one number.
    pub(super) fn scalar((key, path): Key, dtype: Dtype, content: Content) -> Self {
        let pieces = Arc::new([0..1]);
        Self { key: key.into(), path, dtype, shape: Shape::default(), content, pieces }
    }

    /// Offsets and sizes of a piece.
    pub(super) fn place(&self, piece: &Range<u64>) -> (Vec<u64>, Vec<u64>) {
        let (mut offsets, mut sizes) = (vec![0; self.shape.rank()], self.shape.0.clone());
        if self.pieces.len() > 1
            && let (Some(offset), Some(size)) = (offsets.first_mut(), sizes.first_mut())
        {
            (*offset, *size) = (piece.start, piece.end - piece.start);
        }
        (offsets, sizes)
    }

    /// Bytes of a piece.
    pub(super) fn bytes(&self, piece: &Range<u64>) -> u64 {
        let sizes = self.place(piece).1;
        sizes.iter().fold(self.dtype.size(), |all, size| all.saturating_mul(*size))
    }
}

/// A tensor of the model that a checkpoint has, by its name.
pub(super) struct Named<'basis> {
    pub(super) saved: Saved,
    pub(super) tensor: TargetTensor<'basis>,
}

/// Every tensor of the model that has these values, in its order.
pub(super) fn named<'basis>(
    basis: &'basis Basis,
    layout: &Layout,
    values: Values,
) -> Result<Vec<Named<'basis>>, ViewError> {
    let Some(of) = values.of(basis) else { return Ok(Vec::new()) };
    // A sharded state dict has the second copy of what is tied, too; of the optimizer's state there is one.
    let of = if values == Values::Weights { of.with_copies() } else { of };
    let mut all = Vec::new();
    for saved in basis.model.saved_at(layout, WHOLE) {
        let tensor = tensor_of_values(of, layout, WHOLE, saved)?;
        all.extend(tensor.filter(|tensor| tensor.target.is_some()).map(|tensor| Named { saved, tensor }));
    }
    Ok(all)
}

/// The weights.
pub(super) fn weights(
    basis: &Basis,
    layout: &Layout,
    keys: Keys,
    piece: u64,
) -> Result<Vec<DcpTensor>, ViewError> {
    let least = pieces::least_bytes(all_bytes(basis), piece);
    let named = named(basis, layout, Values::Weights)?;
    let of = |named: &Named<'_>| of_values(named, keys.weight(&named.tensor.name), Values::Weights, least);
    named.iter().map(of).collect()
}

/// Bytes of the weights and of all states.
pub(super) fn all_bytes(basis: &Basis) -> u64 {
    let states = basis.catalog.optimizer.iter().filter(|_| basis.optimizer.is_some()).flat_map(|all| &all.states);
    let states = states.filter_map(|state| match &state.of {
        StateOf::Elements(params) => Some(params.all()),
        StateOf::Scalar(_) | StateOf::Same(_) => None,
    });
    let params = basis.catalog.params().iter().chain(states.flatten());
    params.filter_map(|param| param.shape.bytes(param.dtype)).fold(0, u64::saturating_add)
}

/// A tensor of the model with these values, under this key.
pub(super) fn of_values(
    named: &Named<'_>,
    (key, path): Key,
    values: Values,
    least: u64,
) -> Result<DcpTensor, ViewError> {
    let target = named.tensor.target.as_ref().ok_or_else(|| named.tensor.too_large())?;
    target.shape.bytes(target.dtype).ok_or_else(|| named.tensor.too_large())?;
    Ok(DcpTensor {
        key: key.into(),
        path,
        dtype: target.dtype,
        shape: target.shape.clone(),
        content: Content::Values { values, saved: named.saved },
        pieces: cut(target, least).into(),
    })
}

fn cut(target: &Target<'_>, least: u64) -> Vec<Range<u64>> {
    match (target.parts.as_slice(), target.shape.0.split_first()) {
        ([part], Some((_, others))) if part.axis == 0 => {
            let row = others.iter().fold(target.dtype.size(), |all, size| all.saturating_mul(*size));
            pieces::of(part, row, least)
        }
        _ => vec![0..1],
    }
}
