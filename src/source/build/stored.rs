//! Where the bytes of a stored tensor are: of a band of its positions, of one of the experts stacked in it.

use std::borrow::Cow;
use std::ops::Range;

use super::{Bytes, Stored};
use crate::catalog::{Chunk, Period};
use crate::source::SourceError;
use crate::tensor::{Band, Region, Shape};
use crate::value::TensorRef;

/// Where the positions of a band are stored, as pieces of the parameter that it is of.
pub(super) fn chunks(stored: &Stored<'_>, band: &Band, axis: usize) -> Result<Vec<Chunk>, SourceError> {
    let beyond = || stored.error("its strides are beyond reason".into());
    let mut found = Vec::new();
    for piece in pieces(stored).ok_or_else(beyond)?.iter() {
        of_band(piece, band, axis, &mut found).ok_or_else(beyond)?;
    }
    Ok(found)
}

/// The pieces that a tensor is stored in. `None` where one lies beyond 64 bits (strides of axes with one element may be anything).
fn pieces<'a>(stored: &Stored<'a>) -> Option<Cow<'a, [Chunk]>> {
    let storage = match stored.bytes {
        Bytes::Pieces(pieces) => return Some(Cow::Borrowed(pieces)),
        Bytes::Storage(storage) => storage,
    };
    let element = stored.tensor.dtype.size();
    let strides = stored.tensor.strides.iter().zip(&stored.tensor.shape.0).map(|(stride, size)| {
        // The stride of an axis with one element leads nowhere.
        if *size <= 1 { Some(0) } else { stride.checked_mul(element) }
    });
    let piece = Chunk {
        region: Region::whole(&stored.tensor.shape),
        rank: stored.rank,
        object: storage.object,
        start: storage.offset.checked_add(stored.tensor.offset.checked_mul(element)?)?,
        strides: strides.collect::<Option<_>>()?,
        period: None,
    };
    Some(Cow::Owned(vec![piece]))
}

/// What a piece of the tensor has of a band: the end of a run, whole runs, the beginning of another.
fn of_band(piece: &Chunk, band: &Band, axis: usize, found: &mut Vec<Chunk>) -> Option<()> {
    let held = piece.region.along(axis);
    let runs = Runs { band, held };
    let (first, whole, last) = runs.cut()?;
    for run in first.into_iter().chain(last) {
        let at = run.at.max(runs.held.start);
        let len = (run.at.checked_add(run.len)?).min(runs.held.end).saturating_sub(at);
        let from = run.from.checked_add(at - run.at)?;
        found.extend(moved(piece, axis, at, from..from.checked_add(len)?, None)?);
    }
    if whole.is_empty() {
        return Some(());
    }
    // Runs that do not follow each other in the parameter are pieces of their own.
    let follow = band.repeat == 1 || band.from_step == band.len;
    let groups = if follow { vec![whole] } else { whole.map(|k| k..k + 1).collect() };
    for group in groups {
        let run = run_of(band, group.start)?;
        let positions = band.len.checked_mul(group.end - group.start)?;
        let span = run.from..run.from.checked_add(positions)?;
        let period = (group.end - group.start > 1).then_some(band.at_step);
        found.extend(moved(piece, axis, run.at, span, period.map(|step| (band.len, step)))?);
    }
    Some(())
}

/// A band, and which positions of the tensor are there.
struct Runs<'a> {
    band: &'a Band,
    held: Range<u64>,
}

/// One run of a band.
struct BandRun {
    at: u64,
    from: u64,
    len: u64,
}

fn run_of(band: &Band, k: u64) -> Option<BandRun> {
    let at = band.at.checked_add(k.checked_mul(band.at_step)?)?;
    let from = band.from.checked_add(k.checked_mul(band.from_step)?)?;
    Some(BandRun { at, from, len: band.len })
}

impl Runs<'_> {
    /// The runs that are met: one that is there in part, those that are there whole, and another one in part.
    fn cut(&self) -> Option<(Option<BandRun>, Range<u64>, Option<BandRun>)> {
        let Self { band, held } = self;
        let step = band.at_step.max(1);
        // The first run that ends behind the first position that is there, and the first one that begins behind the last.
        let first = match held.start.checked_sub(band.at.checked_add(band.len)?) {
            Some(before) => (before / step).checked_add(1)?,
            None => 0,
        };
        let after = match held.end.checked_sub(band.at) {
            Some(up_to) => up_to.div_ceil(step),
            None => 0,
        };
        let (first, after) = (first.min(band.repeat), after.min(band.repeat));
        if first >= after {
            return Some((None, 0..0, None));
        }
        let is_whole = |k: u64| {
            let run = run_of(band, k)?;
            Some(run.at >= held.start && run.at.checked_add(run.len)? <= held.end)
        };
        let head = if is_whole(first)? { None } else { Some(run_of(band, first)?) };
        let start = if head.is_some() { first + 1 } else { first };
        let tail = if start < after && !is_whole(after - 1)? { Some(run_of(band, after - 1)?) } else { None };
        let end = if tail.is_some() { after - 1 } else { after };
        Some((head, start..end.max(start), tail))
    }
}

/// The part of a piece that begins at position `at` of the tensor, as positions `span` of a parameter; in groups of `(len, positions between
/// them)` where it is more than one run. Nothing where the piece is empty.
fn moved(
    piece: &Chunk,
    axis: usize,
    at: u64,
    span: Range<u64>,
    groups: Option<(u64, u64)>,
) -> Option<Option<Chunk>> {
    if span.is_empty() || piece.region.is_empty() {
        return Some(None);
    }
    let stride = piece.stride(axis)?;
    let within = at.checked_sub(piece.region.along(axis).start)?;
    let period = match groups {
        Some((len, step)) => Some(Period { len, step: step.checked_mul(stride)? }),
        None => None,
    };
    Some(Some(Chunk {
        region: piece.region.clone().with(axis, span),
        start: piece.start.checked_add(within.checked_mul(stride)?)?,
        period,
        ..piece.clone()
    }))
}

/// What stands at index `expert` of the first axis.
pub(super) fn expert_of(tensor: &TensorRef, expert: u32) -> Option<TensorRef> {
    let (stride, strides) = tensor.strides.split_first()?;
    let offset = tensor.offset.checked_add(stride.checked_mul(expert.into())?)?;
    let shape = Shape(tensor.shape.0.get(1..)?.to_vec());
    Some(TensorRef { shape, strides: strides.to_vec(), offset, ..tensor.clone() })
}

/// The pieces of what stands at index `index` of the first axis.
pub(in crate::source) fn pieces_at(pieces: &[Chunk], index: u64) -> Option<Vec<Chunk>> {
    let held = pieces.iter().filter(|piece| piece.region.along(0).contains(&index));
    let inner = held.map(|piece| {
        let (first, inner) = piece.region.ranges().split_first()?;
        let (stride, strides) = piece.strides.split_first()?;
        let start = piece.start.checked_add((index - first.start).checked_mul(*stride)?)?;
        Some(Chunk { region: Region::new(inner.to_vec()), start, strides: strides.to_vec(), ..piece.clone() })
    });
    inner.collect()
}

#[cfg(test)]
mod tests;
