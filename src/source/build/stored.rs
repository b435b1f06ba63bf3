//! Where the bytes of a stored tensor are: of a band of its positions, of one of the experts stacked in it.

use super::Stored;
use crate::catalog::{Chunk, Period};
use crate::source::SourceError;
use crate::tensor::{Band, Shape};
use crate::value::TensorRef;

/// Where the positions of a band are stored.
pub(super) fn chunk(stored: &Stored<'_>, band: &Band, axis: usize) -> Result<Chunk, SourceError> {
    checked_chunk(stored, band, axis).ok_or_else(|| stored.error("its strides are beyond reason".into()))
}

/// `None` where it is stored beyond 64 bits (strides of axes with one element may be anything).
fn checked_chunk(stored: &Stored<'_>, band: &Band, axis: usize) -> Option<Chunk> {
    let element = stored.tensor.dtype.size();
    let sizes = &stored.tensor.shape.0;
    let strides = stored.tensor.strides.iter().zip(sizes).map(|(stride, size)| {
        // The stride of an axis with one element leads nowhere.
        if *size <= 1 { Some(0) } else { stride.checked_mul(element) }
    });
    let strides: Vec<u64> = strides.collect::<Option<_>>()?;
    let stride = if strides.is_empty() { element } else { *strides.get(axis)? };
    let offset = stored.tensor.offset.checked_mul(element)?.checked_add(band.at.checked_mul(stride)?)?;
    let period = match band.repeat {
        1 => None,
        _ => Some(Period { len: band.len, step: band.at_step.checked_mul(stride)? }),
    };
    Some(Chunk {
        span: band.from..band.from.checked_add(band.positions())?,
        rank: stored.rank,
        object: stored.storage.object,
        start: stored.storage.offset.checked_add(offset)?,
        strides,
        period,
    })
}

/// What stands at index `expert` of the first axis.
pub(super) fn expert_of(tensor: &TensorRef, expert: u32) -> Option<TensorRef> {
    let (stride, strides) = tensor.strides.split_first()?;
    let offset = tensor.offset.checked_add(stride.checked_mul(expert.into())?)?;
    let shape = Shape(tensor.shape.0.get(1..)?.to_vec());
    Some(TensorRef { shape, strides: strides.to_vec(), offset, ..tensor.clone() })
}
