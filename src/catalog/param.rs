//! A canonical parameter and the chunks of it that source files store.
//!
//! Not here: how chunks become bytes of a target file (`plan`).

use std::ops::Range;
use std::sync::Arc;

use crate::extent::ObjectId;
use crate::layout::Rank;
use crate::tensor::{Dtype, Shape};

/// One parameter of the model, whole: layer 7's q, layer 7's gate, the embedding.
#[derive(Debug, Clone)]
pub struct Param {
    /// Canonical name, e.g. `layers.7.attention.q.weight`.
    pub name: Arc<str>,
    /// Element type.
    pub dtype: Dtype,
    /// Global shape.
    pub shape: Shape,
    /// The axis along which ranks hold different positions; 0 where every rank holds all of it.
    pub axis: usize,
    /// Pieces in tensors that are the parameter, replicas included, sorted by first position and then by rank.
    chunks: Vec<Chunk>,
    /// Pieces in tensors that are copies of it by the family, sorted alike.
    copies: Vec<Chunk>,
}

/// Positions `span` along a parameter's axis, with everything on its other axes, as one rank stores them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Positions along [`Param::axis`]; never empty.
    pub span: Range<u64>,
    /// The rank that stores it.
    pub rank: Rank,
    /// The file it is in.
    pub object: ObjectId,
    /// Byte in the file of the element at `span.start` and at 0 on every other axis.
    pub start: u64,
    /// Bytes from one position to the next, for every axis.
    pub strides: Vec<u64>,
    /// Set where positions along the axis lie in groups with other parameters between them.
    pub period: Option<Period>,
}

/// Groups of `len` positions, `step` bytes from the start of one to the start of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Positions per group.
    pub len: u64,
    /// Bytes between groups.
    pub step: u64,
}

/// What is wrong with the chunks of a parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// No file stores these positions.
    #[error("no file holds positions {} to {} of its {size}", .missing.start, .missing.end)]
    Uncovered {
        /// Positions nobody stores.
        missing: Range<u64>,
        /// Positions there should be.
        size: u64,
    },
    /// Two files store ranges that overlap without being the same.
    #[error("positions {} to {} in one file overlap positions {} to {} in another", .0.start, .0.end, .1.start, .1.end)]
    Overlap(Range<u64>, Range<u64>),
}

impl Param {
    /// A parameter of which nothing is known to be stored yet.
    #[must_use]
    pub fn new(name: Arc<str>, dtype: Dtype, shape: Shape, axis: usize) -> Self {
        Self { name, dtype, shape, axis, chunks: Vec::new(), copies: Vec::new() }
    }

    /// Positions along the axis; 1 for a 0-d parameter, and none along an axis that it does not have: its pieces then never fit.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "of none, a read of any position fails")]
    pub fn size(&self) -> u64 {
        self.shape.along(self.axis).unwrap_or(0)
    }

    /// Adds a stored piece.
    pub fn add(&mut self, chunk: Chunk) {
        insert(&mut self.chunks, chunk);
    }

    /// Adds a piece of a tensor that is a copy by the family: it is read only where no tensor that is the parameter has it.
    pub fn add_copy(&mut self, chunk: Chunk) {
        insert(&mut self.copies, chunk);
    }

    /// Stored pieces that are no copies, replicas included.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Stored pieces that are copies by the family.
    #[must_use]
    pub fn copies(&self) -> &[Chunk] {
        &self.copies
    }

    /// All stored pieces by their first position; of those that begin alike, copies last.
    #[must_use]
    pub fn stored(&self) -> Vec<&Chunk> {
        let mut all: Vec<&Chunk> = self.chunks.iter().chain(&self.copies).collect();
        all.sort_by_key(|chunk| chunk.span.start);
        all
    }

    /// The chunk to read `position` from: no copy where there is another, and of several replicas the one with the lowest rank, so that all
    /// readers share its pages.
    #[must_use]
    pub fn chunk_at(&self, position: u64) -> Option<&Chunk> {
        first_at(&self.chunks, position).or_else(|| first_at(&self.copies, position))
    }

    /// Checks that the pieces cover every position and that two of them are either replicas or disjoint.
    ///
    /// # Errors
    /// [`ChunkError`]
    pub fn check(&self) -> Result<(), ChunkError> {
        let mut covered = 0..0u64;
        let stored = self.stored();
        for chunk in &stored {
            if chunk.span == covered {
                continue;
            }
            if chunk.span.start < covered.end {
                return Err(ChunkError::Overlap(covered, chunk.span.clone()));
            }
            if chunk.span.start > covered.end {
                break;
            }
            covered = chunk.span.clone();
        }
        if covered.end == self.size() {
            return Ok(());
        }
        let next = stored.iter().map(|c| c.span.start).find(|start| *start > covered.end);
        #[expect(clippy::disallowed_methods, reason = "where nobody stores more, the rest is missing")]
        let next = next.unwrap_or_else(|| self.size());
        Err(ChunkError::Uncovered { missing: covered.end..next, size: self.size() })
    }
}

/// Inserts a piece where it belongs.
fn insert(chunks: &mut Vec<Chunk>, chunk: Chunk) {
    // Most parameters of a published model are one piece, and there are many.
    if chunks.is_empty() {
        chunks.reserve_exact(1);
    }
    let at = chunks.partition_point(|c| (c.span.start, c.rank) <= (chunk.span.start, chunk.rank));
    chunks.insert(at, chunk);
}

/// Of the pieces that have `position`, the first.
fn first_at(chunks: &[Chunk], position: u64) -> Option<&Chunk> {
    let after = chunks.partition_point(|c| c.span.start <= position);
    let start = chunks.get(after.checked_sub(1)?)?.span.start;
    let first = chunks.partition_point(|c| c.span.start < start);
    chunks.get(first).filter(|c| c.span.contains(&position))
}

impl Chunk {
    /// Bytes from one position along `axis` to the next: none for a 0-d tensor, which has one, and `None` for an axis that is not there.
    #[must_use]
    pub fn stride(&self, axis: usize) -> Option<u64> {
        if self.strides.is_empty() && axis == 0 { Some(0) } else { self.strides.get(axis).copied() }
    }

    /// Byte of the element at `position`, which lies in the span, along an axis of this stride and at 0 on every other axis.
    #[must_use]
    pub fn byte_of(&self, position: u64, stride: u64) -> u64 {
        let within = position - self.span.start;
        match self.period {
            None => self.start + within * stride,
            Some(period) => self.start + within / period.len * period.step + within % period.len * stride,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(size: u64, spans: &[(u64, u64, u32)]) -> Param {
        let mut param = Param::new("p".into(), Dtype::Int8, Shape(vec![size]), 0);
        for (start, end, tp) in spans {
            param.add(Chunk {
                span: *start..*end,
                rank: Rank { pp: 0, tp: *tp, ep: 0 },
                object: ObjectId(*tp),
                start: 0,
                strides: vec![1],
                period: None,
            });
        }
        param
    }

    #[test]
    fn replicas_are_kept_and_the_lowest_rank_is_read() {
        let param = param(8, &[(4, 8, 2), (0, 4, 1), (0, 4, 0), (4, 8, 3)]);
        assert_eq!(param.check(), Ok(()));
        assert_eq!(param.chunks().len(), 4);
        let tp_of = |position| param.chunk_at(position).map(|c| c.rank.tp);
        assert_eq!(
            (tp_of(0), tp_of(3), tp_of(4), tp_of(7), tp_of(8)),
            (Some(0), Some(0), Some(2), Some(2), None)
        );
    }

    /// Whichever is met first, and whatever the ranks.
    #[test]
    fn a_copy_is_read_only_where_there_is_nothing_else() {
        let mut param = param(8, &[(0, 4, 5)]);
        let mut copy = |start, tp| {
            let chunk = param.chunks()[0].clone();
            let (rank, object) = (Rank { pp: 0, tp, ep: 0 }, ObjectId(tp));
            param.add_copy(Chunk { span: start..start + 4, rank, object, ..chunk });
        };
        copy(4, 1);
        copy(0, 0);
        assert_eq!(param.check(), Ok(()));
        let tp_of = |position| param.chunk_at(position).map(|c| c.rank.tp);
        assert_eq!((tp_of(0), tp_of(3), tp_of(4), tp_of(8)), (Some(5), Some(5), Some(1), None));
        let stored: Vec<_> = param.stored().iter().map(|c| c.rank.tp).collect();
        assert_eq!((stored, param.chunks().len()), (vec![5, 0, 1], 1));
    }

    #[test]
    fn gaps_and_overlaps_are_found() {
        assert_eq!(param(8, &[(0, 4, 0)]).check(), Err(ChunkError::Uncovered { missing: 4..8, size: 8 }));
        assert_eq!(param(8, &[(4, 8, 0)]).check(), Err(ChunkError::Uncovered { missing: 0..4, size: 8 }));
        assert_eq!(
            param(8, &[(0, 2, 0), (6, 8, 1)]).check(),
            Err(ChunkError::Uncovered { missing: 2..6, size: 8 })
        );
        assert_eq!(param(8, &[(0, 4, 0), (2, 8, 1)]).check(), Err(ChunkError::Overlap(0..4, 2..8)));
        assert_eq!(param(0, &[]).check(), Ok(()));
    }

    #[test]
    fn positions_skip_what_lies_between_groups() {
        let chunk = Chunk {
            span: 10..16,
            rank: Rank { pp: 0, tp: 0, ep: 0 },
            object: ObjectId(0),
            start: 100,
            strides: vec![4],
            period: Some(Period { len: 2, step: 50 }),
        };
        let bytes: Vec<_> = (10..16).map(|position| chunk.byte_of(position, 4)).collect();
        assert_eq!(bytes, [100, 104, 150, 154, 200, 204]);
    }
}
