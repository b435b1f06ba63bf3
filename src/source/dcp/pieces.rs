//! Where the bytes of tensors are: each piece is a torch file of one tensor, a part of a data file.
//!
//! Not here: which tensors are wanted and what they are, what one piece holds (`elements`).

use super::Opened;
use super::elements::{Beginnings, Elements, PieceOf};
use crate::catalog::Chunk as Piece;
use crate::format::dcp::metadata::{Chunk, Tensor};
use crate::layout::Rank;
use crate::source::SourceError;
use crate::source::workers::in_parallel;
use crate::store::{Store, consistent};
use crate::tensor::Region;

/// Pieces that are looked at of one file under one look at it.
const BATCH: usize = 256;

/// As many pieces are all looked at. Of more, those are computed that can be stored in one order alone, as far as a sample of their tensor is as
/// expected: a transposed piece is as long as one that is not.
const MOST_LOOKS: usize = 1 << 17;

/// Pieces of a tensor that are looked at where not all are, beside those that are not as long as torch would make them.
const SAMPLE: usize = 8;

/// A piece that is wanted.
struct Job<'a> {
    /// Which of the wanted tensors it is of.
    tensor: usize,
    of: &'a Tensor,
    chunk: Chunk<'a>,
    elements: Option<Elements>,
}

/// The pieces of each of these tensors.
pub(super) fn of(
    opened: &Opened,
    wanted: &[&Tensor],
    store: &dyn Store,
) -> Result<Vec<Vec<Piece>>, SourceError> {
    find(opened, wanted, MOST_LOOKS, store)
}

/// The same, where at most so many pieces are all looked at.
pub(super) fn find(
    opened: &Opened,
    wanted: &[&Tensor],
    most_looks: usize,
    store: &dyn Store,
) -> Result<Vec<Vec<Piece>>, SourceError> {
    let (mut jobs, mut beginnings) = (Vec::new(), Beginnings::default());
    for (tensor, of) in wanted.iter().enumerate() {
        for chunk in of.chunks.iter().filter(|chunk| !chunk.sizes.contains(&0)) {
            beginnings.add(of.dtype, &chunk);
            jobs.push(Job { tensor, of, chunk, elements: None });
        }
    }
    let all: Vec<usize> = (0..jobs.len()).collect();
    if jobs.len() <= most_looks {
        look(opened, &mut jobs, all, &beginnings, store)?;
    } else {
        let sampled = sample(&jobs, &beginnings);
        look(opened, &mut jobs, sampled, &beginnings, store)?;
        let open = compute(&mut jobs, &beginnings);
        look(opened, &mut jobs, open, &beginnings, store)?;
    }
    let mut pieces: Vec<Vec<Piece>> = wanted.iter().map(|_| Vec::new()).collect();
    for job in jobs {
        let piece = job.piece(opened)?;
        if let Some(pieces) = pieces.get_mut(job.tensor) {
            pieces.push(piece);
        }
    }
    for pieces in &mut pieces {
        pieces.sort_by(|one, other| one.region.cmp(&other.region));
    }
    Ok(pieces)
}

/// Looks at these pieces, front to back in each file.
fn look<'a>(
    opened: &Opened,
    jobs: &mut [Job<'a>],
    mut which: Vec<usize>,
    beginnings: &Beginnings<'a>,
    store: &dyn Store,
) -> Result<(), SourceError> {
    let place = |index: &usize| jobs.get(*index).map(|job| (job.chunk.place.file, job.chunk.place.offset));
    which.sort_by_key(place);
    let in_one_file = |one: &usize, other: &usize| place(one).map(|at| at.0) == place(other).map(|at| at.0);
    let batches: Vec<&[usize]> =
        which.chunk_by(in_one_file).flat_map(|of_file| of_file.chunks(BATCH)).collect();
    let found = in_parallel(&batches, |batch| {
        let of_batch: Vec<&Job<'_>> = batch.iter().filter_map(|index| jobs.get(*index)).collect();
        let Some(first) = of_batch.first() else { return Ok(Vec::new()) };
        let file = opened.file(first.chunk.place, &first.of.key)?;
        consistent(store, file.object, |reads| {
            let look = |job: &&Job<'a>| {
                let piece = PieceOf { file, tensor: job.of, chunk: job.chunk };
                piece.find(reads, beginnings.of(job.of.dtype, &job.chunk).as_deref())
            };
            of_batch.iter().map(look).collect()
        })
    })?;
    for (index, elements) in which.into_iter().zip(found.into_iter().flatten()) {
        if let Some(job) = jobs.get_mut(index) {
            job.elements = Some(elements);
        }
    }
    Ok(())
}

/// Pieces that are looked at first: those that could be stored in another order or that torch would not have written so, and some of each
/// tensor.
fn sample<'a>(jobs: &[Job<'a>], beginnings: &Beginnings<'a>) -> Vec<usize> {
    let mut which = Vec::new();
    let mut start = 0;
    for of_tensor in jobs.chunk_by(|one, other| one.tensor == other.tensor) {
        let step = of_tensor.len().div_ceil(SAMPLE);
        for (at, job) in of_tensor.iter().enumerate() {
            let is_last = at + 1 == of_tensor.len();
            let has_orders = job.chunk.sizes.iter().filter(|size| **size > 1).count() > 1;
            if is_last || at % step == 0 || has_orders || beginnings.of(job.of.dtype, &job.chunk).is_none() {
                which.push(start + at);
            }
        }
        start += of_tensor.len();
    }
    which
}

/// Computes where the elements are of the pieces that were not looked at, of tensors whose others are all as expected. Gives the pieces of
/// all others, which must be looked at.
fn compute<'a>(jobs: &mut [Job<'a>], beginnings: &Beginnings<'a>) -> Vec<usize> {
    let mut open = Vec::new();
    let mut start = 0;
    for of_tensor in jobs.chunk_by_mut(|one, other| one.tensor == other.tensor) {
        let expected = |job: &Job<'a>| beginnings.of(job.of.dtype, &job.chunk)?.elements(job.of.dtype, &job.chunk);
        let is_expected = of_tensor.iter().all(|job| job.elements.is_none() || job.elements == expected(job));
        for (at, job) in of_tensor.iter_mut().enumerate().filter(|(_, job)| job.elements.is_none()) {
            if is_expected {
                job.elements = expected(job);
            }
            if job.elements.is_none() {
                open.push(start + at);
            }
        }
        start += of_tensor.len();
    }
    open
}

impl Job<'_> {
    fn piece(&self, opened: &Opened) -> Result<Piece, SourceError> {
        let Self { of: tensor, chunk, .. } = self;
        let file = opened.file(chunk.place, &tensor.key)?;
        let of = PieceOf { file, tensor, chunk: *chunk };
        let Elements { start, strides } = self.elements.clone().ok_or_else(|| of.beyond())?;
        Ok(Piece {
            region: Region::at(chunk.offsets, chunk.sizes).ok_or_else(|| of.beyond())?,
            rank: Rank { pp: 0, tp: 0, ep: 0 },
            object: file.object,
            start,
            strides,
            period: None,
        })
    }
}
