//! Stripes of elements whose pieces are cut along several axes: a grid of ranks, or a stretch that begins and ends in the middle of a row.
//!
//! The bound to keep: one stripe for each row of the grid along the outermost axis.

use std::ops::Range;

use super::{Builder, Dim, GatherError, MAX_UNROLLED, Piece, Stripe};
use crate::catalog::{Chunk, Param};
use crate::extent::ObjectId;
use crate::tensor::{Region, slabs};

/// Elements of a tensor that one chunk holds.
#[derive(Debug)]
pub(super) struct Cell<'catalog> {
    /// Where in the tensor they are.
    region: Region,
    object: ObjectId,
    /// Byte of the first.
    start: u64,
    /// Bytes from one position to the next, for every axis.
    strides: &'catalog [u64],
}

/// Positions along the axis of a parameter, and where in the tensor the first of them is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'catalog> {
    pub(super) param: &'catalog Param,
    pub(super) from: u64,
    pub(super) at: u64,
    pub(super) len: u64,
}

/// Elements that one cell holds, or all of them shifted along an axis.
#[derive(Debug)]
struct Placed<'a, 'catalog> {
    cell: &'a Cell<'catalog>,
    region: Region,
}

impl<'catalog> Cell<'catalog> {
    /// What chunks hold of a run.
    pub(super) fn all(chunks: &[&'catalog Chunk], run: Run<'catalog>) -> Result<Vec<Self>, GatherError> {
        let mut cells = Vec::new();
        chunks.iter().try_for_each(|chunk| Self::of(chunk, run, &mut cells))?;
        Ok(cells)
    }

    /// What a chunk holds of a run: a cell, or one for each of its groups that the run meets.
    fn of(chunk: &'catalog Chunk, run: Run<'catalog>, cells: &mut Vec<Self>) -> Result<(), GatherError> {
        let axis = run.param.axis;
        let held = chunk.region.along(axis);
        let span = held.start.max(run.from)..held.end.min(run.from + run.len);
        let stride = chunk.stride(axis).filter(|_| chunk.strides.len() == run.param.shape.rank());
        let stride = stride.ok_or(GatherError::Axis { axis })?;
        let mut from = span.start;
        while from < span.end {
            let group_end = match chunk.period {
                None => span.end,
                Some(period) => from + period.len - (from - held.start) % period.len,
            };
            let end = group_end.min(span.end);
            // Elsewhere the tensor is the parameter, position by position.
            let region = chunk.region.clone().with(axis, run.at + (from - run.from)..run.at + (end - run.from));
            let start = chunk.byte_of(from, axis, stride);
            cells.push(Self { region, object: chunk.object, start, strides: &chunk.strides });
            from = end;
        }
        Ok(())
    }

    /// The bytes of `region`, all of which it holds; to those of the next row it is `step` bytes.
    fn piece(&self, region: &Region, step: u64, element: u64) -> Piece {
        let shape = region.shape();
        let loops = shape.0.iter().zip(self.strides).map(|(count, step)| Dim { count: *count, step: *step });
        let offsets = region.ranges().iter().zip(self.region.ranges()).zip(self.strides);
        let start = offsets.fold(self.start, |at, ((to, from), stride)| at + (to.start - from.start) * stride);
        Piece::new(self.object, start, step, &loops.collect::<Vec<_>>(), element)
    }
}

/// Appends the elements `region` of a tensor, row-major, of which `cells` have each exactly once.
///
/// # Errors
/// [`GatherError::Missing`] where they do not, [`GatherError::Scattered`].
pub(super) fn stripes(
    cells: &[Cell<'_>],
    region: &Region,
    element: u64,
    out: &mut Builder,
) -> Result<(), GatherError> {
    let cells: Vec<&Cell<'_>> = cells.iter().collect();
    Grid { element, unrolled: 0 }.stripes(&cells, region, 0, out)
}

/// The elements `region`, of which there is one position on the outermost axis, as pieces of a row that can be repeated as it is.
///
/// # Errors
/// As [`stripes`].
pub(super) fn row(cells: &[Cell<'_>], region: &Region, element: u64) -> Result<Vec<Piece>, GatherError> {
    let cells: Vec<&Cell<'_>> = cells.iter().collect();
    let mut placed = Vec::new();
    row_of(&cells, region, 0, &mut placed)?;
    Ok(placed.iter().map(|Placed { cell, region }| cell.piece(region, 0, element)).collect())
}

struct Grid {
    /// Bytes of an element.
    element: u64,
    /// Rows so far that had to be stripes of their own.
    unrolled: u64,
}

impl Grid {
    /// Appends `region`, which is one position on every axis before `axis`.
    fn stripes(
        &mut self,
        cells: &[&Cell<'_>],
        region: &Region,
        axis: usize,
        out: &mut Builder,
    ) -> Result<(), GatherError> {
        if let [only] = cells
            && only.region.contains(region)
        {
            out.stripe(Stripe::new(1, vec![only.piece(region, 0, self.element)]));
            return Ok(());
        }
        for (members, slab) in slabs_of(cells, region, axis)? {
            let rows = slab.along(axis);
            let is_held = matches!(members.as_slice(), [only] if only.region.contains(&slab));
            // The one row of an axis that is not the last but one may still be stripes inside.
            let is_outer = axis + 2 < region.ranges().len();
            if is_held || (rows.end - rows.start == 1 && is_outer) {
                self.stripes(&members, &slab, axis + 1, out)?;
                continue;
            }
            let row = slab.clone().with(axis, rows.start..rows.start + 1);
            let mut placed = Vec::new();
            if row_of(&members, &row, axis + 1, &mut placed).is_ok() {
                let pieces = placed.iter().map(|Placed { cell, region }| {
                    let step = cell.strides.get(axis).copied().ok_or(GatherError::Axis { axis })?;
                    Ok(cell.piece(region, step, self.element))
                });
                out.stripe(Stripe::new(rows.end - rows.start, pieces.collect::<Result<_, GatherError>>()?));
                continue;
            }
            // A row is more pieces than a stripe should have: each row is stripes of its own.
            for position in rows {
                self.unrolled += 1;
                if self.unrolled > MAX_UNROLLED {
                    return Err(GatherError::Scattered);
                }
                let row = slab.clone().with(axis, position..position + 1);
                self.stripes(&members, &row, axis + 1, out)?;
            }
        }
        Ok(())
    }
}

/// The pieces of one row, in its order, without stripes in it.
fn row_of<'a, 'catalog>(
    cells: &[&'a Cell<'catalog>],
    region: &Region,
    axis: usize,
    placed: &mut Vec<Placed<'a, 'catalog>>,
) -> Result<(), GatherError> {
    if let [only] = cells
        && only.region.contains(region)
    {
        placed.push(Placed { cell: only, region: region.clone() });
        return if placed.len() as u64 > MAX_UNROLLED { Err(GatherError::Scattered) } else { Ok(()) };
    }
    for (members, slab) in slabs_of(cells, region, axis)? {
        if matches!(members.as_slice(), [only] if only.region.contains(&slab)) {
            row_of(&members, &slab, axis + 1, placed)?;
            continue;
        }
        for position in slab.along(axis) {
            row_of(&members, &slab.clone().with(axis, position..position + 1), axis + 1, placed)?;
        }
    }
    Ok(())
}

/// `region` cut along an axis wherever a cell begins or ends, each with the cells it meets.
fn slabs_of<'a, 'catalog>(
    cells: &[&'a Cell<'catalog>],
    region: &Region,
    axis: usize,
) -> Result<Vec<(Vec<&'a Cell<'catalog>>, Region)>, GatherError> {
    let Some(within) = region.ranges().get(axis) else {
        // Every axis was looked at, and it is still not one cell that has it.
        return Err(if cells.is_empty() { GatherError::Hole(region.clone()) } else { GatherError::Twice(region.clone()) });
    };
    let ranges: Vec<Range<u64>> = cells.iter().map(|cell| cell.region.along(axis)).collect();
    let found = slabs(&ranges, within.clone()).into_iter().map(|slab| {
        let members: Vec<&Cell<'_>> = slab.members.iter().filter_map(|index| cells.get(*index).copied()).collect();
        let region = region.clone().with(axis, slab.span);
        if members.is_empty() { Err(GatherError::Hole(region)) } else { Ok((members, region)) }
    });
    found.collect()
}
