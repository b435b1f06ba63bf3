//! From parameters to stripes: the bytes of one tensor of a target file, row-major, as source bytes.
//!
//! The bound to keep: segments per tensor <= source shards x parts of the arrangement, never rows; where pieces are cut along several axes
//! one for each row of their grid more (`grid`).

mod check;
mod grid;
mod walk;

use std::ops::Range;

use super::{Builder, Dim, FilePlan, GatherError, Piece, Stripe};
use crate::catalog::{Chunk, Held, Param, Row};
use crate::tensor::{Band, Dtype, Region, Shape};
use check::{cells, check_bands, check_params};
use grid::{Cell, Run};
use walk::{innermost_step, shift, walks_in_one_step};

/// What the positions of a band hold.
#[derive(Debug, Clone, Copy)]
pub enum Source<'catalog> {
    /// Positions of a parameter.
    Param(&'catalog Param),
    /// Positions that the source does not have.
    Fill(Fill<'catalog>),
}

/// What new positions hold.
#[derive(Debug, Clone, Copy)]
pub enum Fill<'catalog> {
    /// Zeros.
    Zero,
    /// This number in each element, which is a 32-bit float.
    Float(f32),
    /// Copies of the last position of this parameter.
    Last(&'catalog Param),
}

/// One tensor to be made.
#[derive(Debug)]
pub struct Target<'catalog> {
    /// Element type.
    pub dtype: Dtype,
    /// Its own shape, on its rank.
    pub shape: Shape,
    /// What it is made of, one after the other: one part, or one for each index of its first axis.
    pub parts: Vec<Part<'catalog>>,
}

/// A tensor, or what stands at one index of its first axis.
#[derive(Debug)]
pub struct Part<'catalog> {
    /// Its shape.
    pub shape: Shape,
    /// The axis that the bands run along.
    pub axis: usize,
    /// What is where along the axis. Together the bands are every position exactly once.
    pub bands: Vec<(Band, Source<'catalog>)>,
}

/// Outer loops beyond this many are refused as scattered; real tensors need one.
const MAX_UNROLLED: u64 = 4096;

impl<'catalog> Target<'catalog> {
    /// A tensor of one part.
    #[must_use]
    pub fn single(dtype: Dtype, shape: Shape, axis: usize, bands: Vec<(Band, Source<'catalog>)>) -> Self {
        Self { dtype, shape: shape.clone(), parts: vec![Part { shape, axis, bands }] }
    }
}

/// Appends the bytes of `target` to `out`.
///
/// # Errors
/// [`GatherError`] where bands or parameters do not fit; `out` is then of no use.
pub fn gather(target: &Target<'_>, out: &mut Builder) -> Result<(), GatherError> {
    let start = out.position();
    target.parts.iter().try_for_each(|part| gather_part(part, target.dtype, out))?;
    // Whatever was left out or put in twice: all that comes later in the file would be somewhere else.
    let (planned, wanted) = (out.position() - start, target.shape.bytes(target.dtype));
    if wanted == Some(planned) { Ok(()) } else { Err(GatherError::Length { planned, wanted }) }
}

fn gather_part(part: &Part<'_>, dtype: Dtype, out: &mut Builder) -> Result<(), GatherError> {
    let mut bands = part.bands.clone();
    bands.sort_by_key(|(band, _)| band.at);
    if part.shape.elements() == Some(0) {
        return Ok(());
    }
    let size = part.shape.along(part.axis).ok_or(GatherError::Axis { axis: part.axis })?;
    check_bands(&bands, part.axis, size)?;
    check_params(&bands, part, dtype)?;
    let gatherer = Gatherer { element: dtype.size(), shape: &part.shape.0, axis: part.axis, size };
    if gatherer.outer() == 1 { gatherer.along_rows(&bands, out) } else { gatherer.across_rows(&bands, out) }
}

/// The plan of a parameter's first `positions` along its axis, whole on every other axis: what `verify` and `digest` read.
///
/// # Errors
/// As [`gather`].
pub fn whole(param: &Param, positions: u64) -> Result<FilePlan, GatherError> {
    let bands = if positions == 0 {
        Vec::new()
    } else {
        vec![(Band::once(0, 0, 0, positions), Source::Param(param))]
    };
    let shape =
        if param.shape.rank() == 0 { Shape::default() } else { param.shape.with(param.axis, positions) };
    let mut builder = Builder::new();
    gather(&Target::single(param.dtype, shape, param.axis, bands), &mut builder)?;
    Ok(builder.finish())
}

struct Gatherer<'a> {
    element: u64,
    /// Shape of the target tensor; outside the axis it is the shape of every parameter in it too.
    shape: &'a [u64],
    axis: usize,
    /// Positions along the axis.
    size: u64,
}

impl Gatherer<'_> {
    /// How many times the axis is walked: the product of the sizes before it.
    fn outer(&self) -> u64 {
        self.shape.iter().take(self.axis).product()
    }

    /// Bytes of one position.
    fn inner(&self) -> u64 {
        self.shape.iter().skip(self.axis + 1).product::<u64>() * self.element
    }

    /// The axis is the outermost: bands follow each other, and bands that repeat alike are one stripe.
    fn along_rows(&self, bands: &[(Band, Source<'_>)], out: &mut Builder) -> Result<(), GatherError> {
        for cell in cells(bands) {
            self.cell(cell, out)?;
        }
        Ok(())
    }

    /// Bands that repeat together. As long as each stays inside one chunk its address moves by a fixed step: one stripe.
    fn cell(&self, cell: &[(Band, Source<'_>)], out: &mut Builder) -> Result<(), GatherError> {
        let [(Band { repeat, .. }, _), ..] = *cell else { return Ok(()) };
        let mut k = 0;
        while k < repeat {
            let mut rounds = repeat - k;
            let mut pieces = Vec::new();
            for (band, source) in cell {
                let from = band.from + k * band.from_step;
                match source {
                    Source::Fill(fill) => {
                        // Only new vocabulary rows are filled, and their band stands alone.
                        self.fill(*fill, band.len, out)?;
                        rounds = 1;
                    }
                    Source::Param(param) => {
                        if let Some((piece, steady)) = self.steady(param, band, from)? {
                            pieces.push(piece);
                            rounds = rounds.min(steady);
                        } else {
                            self.rows(param, from, band.len, &mut pieces, out)?;
                            rounds = 1;
                        }
                    }
                }
            }
            if !pieces.is_empty() {
                out.stripe(Stripe::new(rounds, pieces));
            }
            k += rounds;
        }
        Ok(())
    }

    /// New positions.
    fn fill(&self, fill: Fill<'_>, positions: u64, out: &mut Builder) -> Result<(), GatherError> {
        match fill {
            Fill::Zero => out.zero(positions * self.inner()),
            Fill::Float(number) => {
                // Such tensors have one element.
                let bytes = number.to_le_bytes().into_iter().cycle();
                let len = positions * self.inner();
                out.literal(bytes.take(len as usize).collect::<Vec<u8>>());
            }
            Fill::Last(param) => {
                let last = param.size().saturating_sub(1);
                let pieces = match row_at(param, last)?.held {
                    Held::One(chunk) => vec![self.piece(&Cut { chunk, from: last, len: 1 }, 0)?],
                    Held::Several(chunks) => {
                        let cells = Cell::all(&chunks, Run { param, from: last, at: 0, len: 1 })?;
                        grid::row(&cells, &self.slab(1), self.element)?
                    }
                };
                out.stripe(Stripe::new(positions, pieces));
            }
        }
        Ok(())
    }

    /// The region of so many positions of the tensor.
    fn slab(&self, positions: u64) -> Region {
        Region::slab(&Shape(self.shape.to_vec()), self.axis, 0..positions)
    }

    /// These positions of a parameter, as pieces for a stripe of one row; where they are stored in a grid, those before it go out first.
    fn rows(
        &self,
        param: &Param,
        from: u64,
        len: u64,
        pieces: &mut Vec<Piece>,
        out: &mut Builder,
    ) -> Result<(), GatherError> {
        let mut at = from;
        while at < from + len {
            let row = row_at(param, at)?;
            let end = row.span.end.min(from + len);
            match row.held {
                Held::One(chunk) => {
                    for cut in cuts_of(chunk, self.axis, at..end) {
                        pieces.push(self.piece(&cut, 0)?);
                    }
                }
                Held::Several(chunks) => {
                    if !pieces.is_empty() {
                        out.stripe(Stripe::new(1, std::mem::take(pieces)));
                    }
                    let cells = Cell::all(&chunks, Run { param, from: at, at: 0, len: end - at })?;
                    grid::stripes(&cells, &self.slab(end - at), self.element, out)?;
                }
            }
            at = end;
        }
        Ok(())
    }

    /// For how many rounds, from the one that starts at `from`, the band stays in one run of one chunk, and how far its bytes move each
    /// round. `None` where already this round's positions are not one run.
    fn steady(&self, param: &Param, band: &Band, from: u64) -> Result<Option<(Piece, u64)>, GatherError> {
        let Row { span, held: Held::One(chunk) } = row_at(param, from)? else { return Ok(None) };
        if from + band.len > span.end {
            return Ok(None);
        }
        let to_the_end = match (span.end - from - band.len).checked_div(band.from_step) {
            Some(further) => further + 1,
            // Each round reads the same positions.
            None => 1,
        };
        let stride = self.stride(chunk)?;
        let (step, rounds) = match chunk.period {
            None => (band.from_step * stride, to_the_end),
            Some(period) if (from - chunk.region.along(self.axis).start) % period.len + band.len > period.len => {
                return Ok(None);
            }
            Some(period) if band.from_step.is_multiple_of(period.len) => {
                (band.from_step / period.len * period.step, to_the_end)
            }
            Some(_) => (0, 1),
        };
        Ok(Some((self.piece(&Cut { chunk, from, len: band.len }, step)?, rounds)))
    }

    /// Sizes before the axis: stripes over them, each row made of the pieces of every band.
    fn across_rows(&self, bands: &[(Band, Source<'_>)], out: &mut Builder) -> Result<(), GatherError> {
        let mut runs = Vec::new();
        for (run, source) in bands.iter().flat_map(|(band, source)| band.runs().map(move |run| (run, source))) {
            let Source::Param(param) = source else {
                return Err(GatherError::Bands { axis: self.axis, position: run.at, size: self.size });
            };
            runs.push(Run { param, from: run.from, at: run.at, len: run.len });
        }
        runs.sort_by_key(|run| run.at);
        if runs.iter().any(|run| run.param.is_grid()) {
            return self.across_grid(&runs, out);
        }
        let mut row = Vec::new();
        for run in runs {
            row.extend(cuts(run.param, self.axis, run.from..run.from + run.len)?);
        }
        // Outer axes that one step walks in every chunk are one loop; a permuted tensor leaves some to be written out.
        let outer = self.shape.get(..self.axis).ok_or(GatherError::Axis { axis: self.axis })?;
        let unrolled =
            (0..outer.len()).find(|k| row.iter().all(|cut| walks_in_one_step(outer, &cut.chunk.strides, *k)));
        let (unrolled, looped) = outer.split_at(unrolled.ok_or(GatherError::Scattered)?);
        if unrolled.iter().product::<u64>() > MAX_UNROLLED {
            return Err(GatherError::Scattered);
        }
        for round in 0..unrolled.iter().product() {
            let pieces = row.iter().map(|cut| {
                let step = innermost_step(outer, &cut.chunk.strides);
                let piece = self.piece(cut, step)?;
                Ok(Piece { start: piece.start + shift(round, unrolled, &cut.chunk.strides), ..piece })
            });
            out.stripe(Stripe::new(looped.iter().product(), pieces.collect::<Result<_, GatherError>>()?));
        }
        Ok(())
    }

    /// The same, where pieces are cut along other axes too: all that they hold of the tensor, as one grid.
    fn across_grid(&self, runs: &[Run<'_>], out: &mut Builder) -> Result<(), GatherError> {
        if let Some(run) = runs.iter().find(|run| run.from + run.len > run.param.size()) {
            let (param, position) = (run.param.name.to_string(), run.param.size());
            return Err(GatherError::Missing { param, position });
        }
        let cells = runs.iter().map(|run| Cell::all(&run.param.readable(), *run));
        let cells: Vec<Vec<Cell<'_>>> = cells.collect::<Result<_, _>>()?;
        let cells: Vec<Cell<'_>> = cells.into_iter().flatten().collect();
        grid::stripes(&cells, &Region::whole(&Shape(self.shape.to_vec())), self.element, out)
    }

    /// Bytes from one position of a chunk to the next. A chunk has a stride for every axis: a loop without one would be left out.
    fn stride(&self, chunk: &Chunk) -> Result<u64, GatherError> {
        let stride = chunk.stride(self.axis).filter(|_| chunk.strides.len() == self.shape.len());
        stride.ok_or(GatherError::Axis { axis: self.axis })
    }

    /// The bytes of a cut, at 0 on every axis before the cut one.
    fn piece(&self, cut: &Cut<'_>, step: u64) -> Result<Piece, GatherError> {
        let Cut { chunk, from, len } = *cut;
        let stride = self.stride(chunk)?;
        let mut dims = match chunk.period {
            Some(period) if len > period.len => {
                vec![
                    Dim { count: len / period.len, step: period.step },
                    Dim { count: period.len, step: stride },
                ]
            }
            _ => vec![Dim { count: len, step: stride }],
        };
        let inner = self.shape.iter().zip(&chunk.strides).skip(self.axis + 1);
        dims.extend(inner.map(|(count, step)| Dim { count: *count, step: *step }));
        Ok(Piece::new(chunk.object, chunk.byte_of(from, self.axis, stride), step, &dims, self.element))
    }
}

/// Positions of one chunk: inside one of its groups, or whole groups.
#[derive(Debug, Clone, Copy)]
struct Cut<'catalog> {
    chunk: &'catalog Chunk,
    from: u64,
    len: u64,
}

/// Positions of a parameter whose pieces are whole on the other axes, chunk by chunk.
fn cuts(param: &Param, axis: usize, span: Range<u64>) -> Result<Vec<Cut<'_>>, GatherError> {
    let mut cuts = Vec::new();
    let mut from = span.start;
    while from < span.end {
        let Row { span: held, held: Held::One(chunk) } = row_at(param, from)? else {
            return Err(GatherError::Scattered);
        };
        let end = held.end.min(span.end);
        cuts.extend(cuts_of(chunk, axis, from..end));
        from = end;
    }
    Ok(cuts)
}

/// Positions that a chunk holds: inside one of its groups, or whole groups.
fn cuts_of(chunk: &Chunk, axis: usize, span: Range<u64>) -> Vec<Cut<'_>> {
    let mut cuts = Vec::new();
    let mut from = span.start;
    while from < span.end {
        let left = span.end - from;
        let len = match chunk.period {
            None => left,
            Some(period) => match (from - chunk.region.along(axis).start) % period.len {
                0 if left >= period.len => left / period.len * period.len,
                skipped => left.min(period.len - skipped),
            },
        };
        cuts.push(Cut { chunk, from, len });
        from += len;
    }
    cuts
}

fn row_at(param: &Param, position: u64) -> Result<Row<'_>, GatherError> {
    param.row_at(position).ok_or_else(|| GatherError::Missing { param: param.name.to_string(), position })
}

#[cfg(test)]
mod tests;
