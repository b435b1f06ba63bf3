//! Whether the chunks of a tensor tile it: every position in one chunk and in no second one.
//!
//! Loaders do not check that. Rows that no chunk holds keep whatever was in memory, so a checkpoint with a hole must never be written.
//!
//! A box is told by its corners, each with a sign: plus, and for each axis on which the corner is the upper one, times minus one. Those of
//! several boxes add up to those of another one exactly where the boxes tile it, because the sum is the derivative along every axis of how
//! often positions are covered. The first corner that is left is the first position covered otherwise, and what is left there says how
//! often. So a million chunks are one pass over their corners, of which neighbours cancel each other at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::WriteError;
use super::spec::{Chunk, Tensor};

/// Axes that a tensor may be cut along: a chunk has two to this power of corners.
const MOST_AXES: usize = 16;

/// Holds the chunks of `tensor` against its shape.
///
/// # Errors
/// [`WriteError::Outside`], [`WriteError::SamePlace`], [`WriteError::Hole`], [`WriteError::Overlap`], [`WriteError::Axes`],
/// [`WriteError::ChunkAxes`]
pub(super) fn check(tensor: &Tensor) -> Result<(), WriteError> {
    let sizes = &tensor.shape.0;
    if tensor.chunks.axes() != sizes.len() {
        let axes = tensor.chunks.axes();
        return Err(WriteError::ChunkAxes { expected: sizes.len(), found: [axes, axes] });
    }
    are_within(tensor)?;
    have_places_of_their_own(tensor)?;
    if sizes.contains(&0) {
        return Ok(());
    }
    let grid = Grid::of(tensor)?;
    let mut corners: HashMap<u128, i64> = HashMap::new();
    for chunk in filled(tensor) {
        grid.add(&mut corners, chunk.offsets, chunk.sizes, 1);
    }
    grid.add(&mut corners, &vec![0; sizes.len()], sizes, -1);
    let Some((corner, left)) = corners.into_iter().min() else { return Ok(()) };
    let (key, shape) = (Arc::clone(&tensor.key), tensor.shape.clone());
    let at = grid.position(corner, sizes.len());
    Err(if left < 0 {
        WriteError::Hole { key, at, shape }
    } else {
        WriteError::Overlap { key, at, times: left.saturating_add(1), shape }
    })
}

/// The chunks that hold anything.
fn filled(tensor: &Tensor) -> impl Iterator<Item = Chunk<'_>> {
    tensor.chunks.iter().filter(|chunk| !chunk.sizes.contains(&0))
}

fn are_within(tensor: &Tensor) -> Result<(), WriteError> {
    for (index, chunk) in tensor.chunks.iter().enumerate() {
        let bounds = chunk.offsets.iter().zip(chunk.sizes).zip(&tensor.shape.0);
        let fits = |((offset, size), whole): ((&u64, &u64), &u64)| {
            offset.checked_add(*size).is_some_and(|end| end <= *whole)
        };
        if !bounds.into_iter().all(fits) {
            return Err(WriteError::Outside {
                key: Arc::clone(&tensor.key),
                chunk: index,
                offsets: chunk.offsets.to_vec(),
                sizes: chunk.sizes.to_vec(),
                shape: tensor.shape.clone(),
            });
        }
    }
    Ok(())
}

/// Chunks that hold something and begin at one place overlap, which is found anyway; an empty one hides another.
fn have_places_of_their_own(tensor: &Tensor) -> Result<(), WriteError> {
    if tensor.chunks.iter().all(|chunk| !chunk.sizes.contains(&0)) {
        return Ok(());
    }
    let mut places = HashSet::new();
    match tensor.chunks.iter().find(|chunk| !places.insert(chunk.offsets)) {
        Some(chunk) => {
            Err(WriteError::SamePlace { key: Arc::clone(&tensor.key), at: chunk.offsets.to_vec() })
        }
        None => Ok(()),
    }
}

/// Numbers for corners, in the order of their positions. Axes that no chunk is cut along do not count.
struct Grid {
    /// Axis, and what a step along it adds to the number.
    steps: Vec<(usize, u128)>,
}

impl Grid {
    fn of(tensor: &Tensor) -> Result<Self, WriteError> {
        let mut cut = vec![false; tensor.shape.rank()];
        for chunk in filled(tensor) {
            for ((cut, size), whole) in cut.iter_mut().zip(chunk.sizes).zip(&tensor.shape.0) {
                *cut |= size != whole;
            }
        }
        let axes = cut.iter().filter(|cut| **cut).count();
        if axes > MOST_AXES {
            return Err(WriteError::Axes { key: Arc::clone(&tensor.key), axes, most: MOST_AXES });
        }
        let mut step = 1u128;
        let mut steps = Vec::with_capacity(axes);
        for (axis, whole) in tensor.shape.0.iter().enumerate().rev().filter(|(axis, _)| cut.get(*axis) == Some(&true)) {
            steps.push((axis, step));
            // Corners lie at the far end too. The product of the sizes fits 64 bits, and each is at least two here.
            step = step.saturating_mul(u128::from(*whole).saturating_add(1));
        }
        steps.reverse();
        Ok(Self { steps })
    }

    /// Adds the corners of a box, `sign` times.
    fn add(&self, corners: &mut HashMap<u128, i64>, offsets: &[u64], sizes: &[u64], sign: i64) {
        let mut all = vec![(0u128, sign)];
        for (axis, step) in &self.steps {
            let (Some(offset), Some(size)) = (offsets.get(*axis), sizes.get(*axis)) else { continue };
            let (low, high) = (u128::from(*offset) * step, u128::from(*offset + *size) * step);
            let far: Vec<_> = all.iter().map(|(corner, sign)| (corner + high, -sign)).collect();
            all.iter_mut().for_each(|(corner, _)| *corner += low);
            all.extend(far);
        }
        for (corner, sign) in all {
            let count = corners.entry(corner).or_insert(0);
            *count += sign;
            if *count == 0 {
                corners.remove(&corner);
            }
        }
    }

    /// The position of a corner.
    fn position(&self, corner: u128, axes: usize) -> Vec<u64> {
        let mut rest = corner;
        let mut position = vec![0; axes];
        for (axis, step) in &self.steps {
            if let Some(at) = position.get_mut(*axis) {
                // A coordinate, so it fits.
                *at = (rest / step) as u64;
            }
            rest %= step;
        }
        position
    }
}
