//! Whether stored pieces are a whole parameter: regions that tile its shape.
//!
//! Not here: whether a model has all of its parameters (`source`).

use std::ops::Range;

use crate::tensor::{Region, Shape, slabs};

/// What is wrong with the pieces of a parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// No file stores these elements.
    #[error("no file holds {}", of_all(.missing, .shape, *.axis))]
    Uncovered {
        /// Elements nobody stores.
        missing: Region,
        /// What there should be.
        shape: Shape,
        /// The axis along which the parameter is cut.
        axis: usize,
    },
    /// Two files store regions that overlap without being the same.
    #[error("{} in one file overlap {} in another", positions(.one, .shape, *.axis), positions(.other, .shape, *.axis))]
    Overlap {
        /// One of the two.
        one: Region,
        /// The other.
        other: Region,
        /// Shape of the parameter.
        shape: Shape,
        /// The axis along which it is cut.
        axis: usize,
    },
    /// A piece of something that the parameter does not have.
    #[error("a file holds {region} of it, but its shape is {shape}")]
    Outside {
        /// Where the piece is.
        region: Region,
        /// Shape of the parameter.
        shape: Shape,
    },
    /// Pieces that would take for ever to be held against each other: those of no run of any size.
    #[error("its {pieces} pieces are cut in more ways than can be checked")]
    Scattered {
        /// Pieces there are.
        pieces: usize,
    },
}

/// The region for people: positions along the axis where it is whole on all others.
fn positions(region: &Region, shape: &Shape, axis: usize) -> String {
    let Range { start, end } = region.along(axis);
    if region.is_whole_beside(axis, shape) { format!("positions {start} to {end}") } else { region.to_string() }
}

fn of_all(region: &Region, shape: &Shape, axis: usize) -> String {
    match shape.along(axis) {
        Some(size) if region.is_whole_beside(axis, shape) => {
            format!("{} of its {size}", positions(region, shape, axis))
        }
        _ => format!("{region} of its {shape}"),
    }
}

/// Checks that `regions` have every element of `shape`, and each of them once where they are not the same region.
///
/// # Errors
/// [`ChunkError`]
pub(super) fn check(shape: &Shape, axis: usize, regions: &[&Region]) -> Result<(), ChunkError> {
    if let Some(region) = regions.iter().find(|region| !region.is_inside(shape)) {
        return Err(ChunkError::Outside { region: (**region).clone(), shape: shape.clone() });
    }
    let mut distinct = regions.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    // A grid of pieces takes a step or two for each of them.
    let budget = distinct.len().saturating_mul(1 << 10).max(1 << 16);
    let mut checker = Checker { shape, axis, pieces: distinct.len(), budget };
    // The axis that most are cut along comes first: each slab is then one piece.
    let axes: Vec<usize> =
        std::iter::once(axis).chain(0..shape.rank()).filter(|k| *k < shape.rank()).collect();
    checker.tiles(&distinct, &Region::whole(shape), &axes)
}

struct Checker<'a> {
    shape: &'a Shape,
    axis: usize,
    pieces: usize,
    /// Steps left.
    budget: usize,
}

impl Checker<'_> {
    /// Whether `regions` tile `within`, of which every one has all on the axes that are not among `axes`.
    fn tiles(&mut self, regions: &[&Region], within: &Region, axes: &[usize]) -> Result<(), ChunkError> {
        self.budget =
            self.budget.checked_sub(regions.len()).ok_or(ChunkError::Scattered { pieces: self.pieces })?;
        match (regions, axes.split_first()) {
            ([only], _) if only.contains(within) => Ok(()),
            _ if within.is_empty() => Ok(()),
            ([], _) => Err(self.uncovered(within)),
            (_, Some((axis, inner))) => {
                let along: Vec<_> = regions.iter().map(|region| region.along(*axis)).collect();
                for slab in slabs(&along, within.along(*axis)) {
                    let members: Vec<&Region> =
                        slab.members.iter().filter_map(|index| regions.get(*index).copied()).collect();
                    self.tiles(&members, &within.clone().with(*axis, slab.span), inner)?;
                }
                Ok(())
            }
            ([one, other, ..], None) => Err(self.overlap(one, other)),
            // One region that has all on every axis was taken above.
            ([_], None) => Err(self.uncovered(within)),
        }
    }

    fn uncovered(&self, missing: &Region) -> ChunkError {
        ChunkError::Uncovered { missing: missing.clone(), shape: self.shape.clone(), axis: self.axis }
    }

    fn overlap(&self, one: &Region, other: &Region) -> ChunkError {
        let (one, other) = (one.clone(), other.clone());
        ChunkError::Overlap { one, other, shape: self.shape.clone(), axis: self.axis }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(sizes: &[u64], regions: &[&[Range<u64>]]) -> Result<(), ChunkError> {
        let regions: Vec<Region> = regions.iter().map(|ranges| Region::new(ranges.to_vec())).collect();
        check(&Shape(sizes.to_vec()), 0, &regions.iter().collect::<Vec<_>>())
    }

    fn said(sizes: &[u64], regions: &[&[Range<u64>]]) -> String {
        checked(sizes, regions).unwrap_err().to_string()
    }

    #[test]
    fn regions_that_tile_are_whole_whatever_the_cut() {
        assert_eq!(checked(&[], &[&[]]), Ok(()));
        assert_eq!(checked(&[0, 4], &[]), Ok(()));
        assert_eq!(checked(&[4, 6], &[&[0..4, 0..6]]), Ok(()));
        assert_eq!(checked(&[4, 6], &[&[0..4, 3..6], &[0..4, 0..3], &[0..4, 0..3]]), Ok(()));
        // A pinwheel: no cut goes through.
        let pinwheel: [&[Range<u64>]; 5] = [&[0..1, 0..2], &[0..2, 2..3], &[2..3, 1..3], &[1..3, 0..1], &[1..2, 1..2]];
        assert_eq!(checked(&[3, 3], &pinwheel), Ok(()));
        // A stretch in the middle of rows.
        assert_eq!(checked(&[3, 4], &[&[0..1, 0..4], &[1..2, 0..1], &[1..2, 1..4], &[2..3, 0..4]]), Ok(()));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(said(&[], &[]), "no file holds positions 0 to 1 of its 1");
        assert_eq!(said(&[8, 6], &[&[0..4, 0..6]]), "no file holds positions 4 to 8 of its 8");
        assert_eq!(said(&[8, 6], &[&[0..4, 0..6], &[4..8, 0..3]]), "no file holds [4:8, 3:6] of its [8, 6]");
        assert_eq!(said(&[8, 6], &[&[0..4, 0..6], &[5..8, 0..6]]), "no file holds positions 4 to 5 of its 8");
        assert_eq!(
            said(&[3, 3], &[&[0..1, 0..2], &[0..2, 2..3], &[2..3, 1..3], &[1..3, 0..1]]),
            "no file holds [1:2, 1:2] of its [3, 3]"
        );
    }

    #[test]
    fn what_is_there_twice_is_named() {
        assert_eq!(
            said(&[8, 6], &[&[0..4, 0..6], &[2..8, 0..6]]),
            "positions 0 to 4 in one file overlap positions 2 to 8 in another"
        );
        assert_eq!(
            said(&[8, 6], &[&[0..8, 0..4], &[2..4, 3..6], &[0..2, 4..6], &[4..8, 4..6]]),
            "[0:8, 0:4] in one file overlap [2:4, 3:6] in another"
        );
        assert_eq!(said(&[8], &[&[0..9]]), "a file holds [0:9] of it, but its shape is [8]");
        assert_eq!(said(&[8], &[&[0..8, 0..1]]), "a file holds [0:8, 0:1] of it, but its shape is [8]");
    }

    /// Staircases are not what runs write, and may not take for ever.
    #[test]
    fn pieces_without_a_grid_are_not_checked_for_ever() {
        let steps = 3000u64;
        let below = (0..steps).map(|k| Region::new(vec![k..k + 1, 0..k + 1]));
        let above = (0..steps - 1).map(|k| Region::new(vec![0..k + 1, k + 1..k + 2]));
        let all: Vec<Region> = below.chain(above).collect();
        let shape = Shape(vec![steps, steps]);
        assert_eq!(check(&shape, 1, &all.iter().collect::<Vec<_>>()), Err(ChunkError::Scattered { pieces: 5999 }));
    }

    #[test]
    fn grids_of_any_size_are_checked() {
        let grid = (0..64).flat_map(|row| (0..64).map(move |column| Region::new(vec![row..row + 1, column..column + 1])));
        let all: Vec<Region> = grid.collect();
        let shape = Shape(vec![64, 64]);
        assert_eq!(check(&shape, 0, &all.iter().collect::<Vec<_>>()), Ok(()));
        assert!(check(&shape, 0, &all[1..].iter().collect::<Vec<_>>()).is_err());
    }
}
