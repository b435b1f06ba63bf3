//! Tensors that were saved flattened: each tensor-parallel and layer fragment as one row, cut among data-parallel ranks wherever that came out.
//!
//! Megatron-core 0.8 to 0.14 kept the state of its distributed optimizer so (`fully_sharded_model_space`). The stored shape is the number of
//! fragments on every axis of the tensor, and then the elements of one fragment. Source: `dist_checkpointing/strategies/torch.py` of those
//! versions (`mcore_to_pyt_state_dict`, `nd_reformulated_orig_global_shape`).

use crate::catalog::Chunk;
use crate::format::dcp::metadata::Tensor;
use crate::tensor::{Region, Shape};

/// The pieces of a tensor as pieces of the shape that it has in the model. `None` where the two shapes do not fit each other.
pub(super) fn unflattened(tensor: &Tensor, pieces: Vec<Chunk>) -> Option<Vec<Chunk>> {
    let Some(original) = &tensor.original_shape else { return Some(pieces) };
    let fragments = Fragments::of(original, &tensor.shape)?;
    let mut found = Vec::new();
    for piece in &pieces {
        fragments.add(piece, tensor.dtype.size(), &mut found)?;
    }
    Some(found)
}

/// How a tensor is cut into fragments.
struct Fragments {
    /// Sizes of each.
    shape: Shape,
    /// Bytes of the numbers before, for each axis of a fragment.
    strides: Vec<u64>,
}

impl Fragments {
    fn of(original: &Shape, stored: &Shape) -> Option<Self> {
        let (elements, counts) = stored.0.split_last()?;
        if counts.len() != original.rank() {
            return None;
        }
        let sizes = original.0.iter().zip(counts).map(|(size, count)| {
            let divides = *count > 0 && size.is_multiple_of(*count);
            divides.then(|| size / count)
        });
        let shape = Shape(sizes.collect::<Option<_>>()?);
        let strides = shape.contiguous_strides()?;
        (shape.elements() == Some(*elements)).then_some(Self { shape, strides })
    }

    /// Adds what a piece has: stretches of one fragment, or of several.
    fn add(&self, piece: &Chunk, element: u64, found: &mut Vec<Chunk>) -> Option<()> {
        let (stretch, counts) = piece.region.ranges().split_last()?;
        let (row, outer) = piece.strides.split_last()?;
        let is_dense = *row == element || stretch.end - stretch.start <= 1;
        if !is_dense {
            return None;
        }
        let sizes = Shape(counts.iter().map(|range| range.end.saturating_sub(range.start)).collect());
        for number in 0..sizes.elements()? {
            let within = sizes.index_of(number);
            let mut start = piece.start;
            for (index, stride) in within.iter().zip(outer) {
                start = start.checked_add(index.checked_mul(*stride)?)?;
            }
            let fragment: Vec<u64> = within.iter().zip(counts).map(|(index, range)| range.start + index).collect();
            for region in Region::of_flat(&self.shape, stretch.clone())? {
                let elements = region.elements()?;
                let ranges = region.ranges().iter().zip(&fragment).zip(&self.shape.0).map(|((range, at), size)| {
                    let first = at.checked_mul(*size)?;
                    Some(first.checked_add(range.start)?..first.checked_add(range.end)?)
                });
                let strides = self.strides.iter().map(|stride| stride.checked_mul(element));
                found.push(Chunk {
                    region: Region::new(ranges.collect::<Option<_>>()?),
                    start,
                    strides: strides.collect::<Option<_>>()?,
                    period: None,
                    ..piece.clone()
                });
                start = start.checked_add(elements.checked_mul(element)?)?;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::extent::ObjectId;
    use crate::format::dcp::metadata::Chunks;
    use crate::layout::Rank;
    use crate::tensor::Dtype;

    fn tensor(stored: &[u64], original: &[u64]) -> Tensor {
        Tensor {
            key: Arc::from("t"),
            dtype: Dtype::Bfloat16,
            shape: Shape(stored.to_vec()),
            original_shape: Some(Shape(original.to_vec())),
            chunks: Chunks::default(),
        }
    }

    fn piece(offsets: &[u64], sizes: &[u64], start: u64) -> Chunk {
        let strides = Shape(sizes.to_vec()).contiguous_strides().unwrap().iter().map(|stride| stride * 2).collect();
        let (rank, object) = (Rank { pp: 0, tp: 0, ep: 0 }, ObjectId(0));
        Chunk { region: Region::at(offsets, sizes).unwrap(), rank, object, start, strides, period: None }
    }

    /// Two layers of two tensor-parallel halves of 3 x 4 each, cut in the middle of a row: element by element.
    #[test]
    fn stretches_of_fragments_are_where_the_model_has_them() {
        let tensor = tensor(&[2, 2, 1, 12], &[2, 6, 4]);
        let stored = [piece(&[1, 1, 0, 0], &[1, 1, 1, 5], 100), piece(&[1, 1, 0, 5], &[1, 1, 1, 7], 900)];
        let found = unflattened(&tensor, stored.to_vec()).unwrap();
        for row in 0..3u64 {
            for column in 0..4u64 {
                let index = [1, 3 + row, column];
                let having: Vec<&Chunk> = found.iter().filter(|piece| piece.region.has(&index)).collect();
                let [only] = having[..] else { panic!("{index:?}: {having:?}") };
                let within = index.iter().zip(only.region.ranges()).zip(&only.strides);
                let byte = within.fold(only.start, |at, ((index, range), stride)| at + (index - range.start) * stride);
                let element = row * 4 + column;
                assert_eq!(byte, if element < 5 { 100 + 2 * element } else { 900 + 2 * (element - 5) });
            }
        }
        let elements: u64 = found.iter().filter_map(|piece| piece.region.elements()).sum();
        assert_eq!(elements, 12);
    }

    #[test]
    fn shapes_that_do_not_fit_are_none() {
        let none = |stored: &[u64], original: &[u64]| unflattened(&tensor(stored, original), Vec::new()).is_none();
        assert!(none(&[2, 2, 12], &[2, 6, 4]));
        assert!(none(&[2, 4, 1, 6], &[2, 6, 4]));
        assert!(none(&[2, 2, 1, 11], &[2, 6, 4]));
        assert!(none(&[0, 2, 1, 12], &[2, 6, 4]));
        assert!(!none(&[2, 2, 1, 12], &[2, 6, 4]));
        let plain = Tensor { original_shape: None, ..tensor(&[4], &[4]) };
        assert_eq!(unflattened(&plain, vec![piece(&[0], &[4], 0)]).unwrap().len(), 1);
    }
}
