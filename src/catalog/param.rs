//! A canonical parameter and the chunks of it that source files store.
//!
//! Not here: how chunks become bytes of a target file (`plan`).

use std::ops::Range;
use std::sync::Arc;

use super::{Chunk, ChunkError, coverage};
use crate::tensor::{Dtype, Region, Shape};

/// One parameter of the model, whole: layer 7's q, layer 7's gate, the embedding.
#[derive(Debug, Clone)]
pub struct Param {
    /// Canonical name, e.g. `layers.7.attention.q.weight`.
    pub name: Arc<str>,
    /// Element type.
    pub dtype: Dtype,
    /// Global shape.
    pub shape: Shape,
    /// The axis along which ranks hold different positions; 0 where every rank holds all of it. Pieces may be cut along others too.
    pub axis: usize,
    /// Pieces in tensors that are the parameter, replicas included, sorted by first position, by region and then by rank.
    chunks: Vec<Chunk>,
    /// Pieces in tensors that are copies of it by the family, sorted alike.
    copies: Vec<Chunk>,
    /// Whether a piece is cut along another axis too.
    is_grid: bool,
    /// Most positions along the axis that a piece has.
    longest: u64,
}

/// Positions along a parameter's axis, with everything on its other axes, that the same pieces hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'catalog> {
    /// The positions.
    pub span: Range<u64>,
    /// Who holds them.
    pub held: Held<'catalog>,
}

/// Who holds a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held<'catalog> {
    /// One piece has everything on the other axes.
    One(&'catalog Chunk),
    /// Several pieces that are cut along other axes.
    Several(Vec<&'catalog Chunk>),
}

impl Param {
    /// A parameter of which nothing is known to be stored yet.
    #[must_use]
    pub fn new(name: Arc<str>, dtype: Dtype, shape: Shape, axis: usize) -> Self {
        let (chunks, copies) = (Vec::new(), Vec::new());
        Self { name, dtype, shape, axis, chunks, copies, is_grid: false, longest: 0 }
    }

    /// Positions along the axis; 1 for a 0-d parameter, and none along an axis that it does not have: its pieces then never fit.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "of none, a read of any position fails")]
    pub fn size(&self) -> u64 {
        self.shape.along(self.axis).unwrap_or(0)
    }

    /// Adds a stored piece.
    pub fn add(&mut self, chunk: Chunk) {
        self.note(&chunk);
        insert(&mut self.chunks, chunk, self.axis);
    }

    /// Adds a piece of a tensor that is a copy by the family: it is read only where no tensor that is the parameter has it.
    pub fn add_copy(&mut self, chunk: Chunk) {
        self.note(&chunk);
        insert(&mut self.copies, chunk, self.axis);
    }

    fn note(&mut self, chunk: &Chunk) {
        let Range { start, end } = chunk.region.along(self.axis);
        self.is_grid |= !chunk.region.is_whole_beside(self.axis, &self.shape);
        self.longest = self.longest.max(end.saturating_sub(start));
    }

    /// Whether pieces are cut along other axes than the parameter's.
    #[must_use]
    pub fn is_grid(&self) -> bool {
        self.is_grid
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

    /// All stored pieces in the order of their regions; of those that are alike, copies last.
    #[must_use]
    pub fn stored(&self) -> Vec<&Chunk> {
        let mut all: Vec<&Chunk> = self.chunks.iter().chain(&self.copies).collect();
        // Stable: within a region chunks come by rank, and copies after them.
        let key = |chunk: &Chunk| chunk.region.along(self.axis).start;
        all.sort_by(|one, other| key(one).cmp(&key(other)).then_with(|| one.region.cmp(&other.region)));
        all
    }

    /// The pieces that readers read: of those with the same region the one that is no copy, and has the lowest rank.
    #[must_use]
    pub fn readable(&self) -> Vec<&Chunk> {
        let mut all = self.stored();
        all.dedup_by(|other, one| one.region == other.region);
        all
    }

    /// The row that `position` is in. A piece is no copy where there is another, and of several replicas the one with the lowest rank, so
    /// that all readers share its pages. `None` where nobody has the position.
    #[must_use]
    pub fn row_at(&self, position: u64) -> Option<Row<'_>> {
        if !self.is_grid {
            let chunk = first_at(&self.chunks, position, self.axis)
                .or_else(|| first_at(&self.copies, position, self.axis))?;
            return Some(Row { span: chunk.region.along(self.axis), held: Held::One(chunk) });
        }
        let mut held: Vec<&Chunk> = Vec::new();
        let all = near(&self.chunks, position, self).iter().chain(near(&self.copies, position, self));
        for chunk in all.filter(|chunk| chunk.region.along(self.axis).contains(&position)) {
            if !held.iter().any(|known| known.region == chunk.region) {
                held.push(chunk);
            }
        }
        // Where the next piece begins the row ends too.
        let begins = |chunks: &[Chunk]| {
            let after = chunks.partition_point(|chunk| chunk.region.along(self.axis).start <= position);
            chunks.get(after).map(|chunk| chunk.region.along(self.axis).start)
        };
        let next = begins(&self.chunks).into_iter().chain(begins(&self.copies)).min();
        let spans = held.iter().map(|chunk| chunk.region.along(self.axis));
        let span = spans.reduce(|own, other| own.start.max(other.start)..own.end.min(other.end))?;
        let span = span.start..next.into_iter().fold(span.end, u64::min);
        match held.as_slice() {
            [only] if only.region.is_whole_beside(self.axis, &self.shape) => Some(Row { span, held: Held::One(only) }),
            _ => Some(Row { span, held: Held::Several(held) }),
        }
    }

    /// The piece to read the element at `index` from.
    #[must_use]
    pub fn chunk_of(&self, index: &[u64]) -> Option<&Chunk> {
        self.chunks.iter().chain(&self.copies).find(|chunk| chunk.region.has(index))
    }

    /// Checks that the pieces cover every position and that two of them are either replicas or disjoint.
    ///
    /// # Errors
    /// [`ChunkError`]
    pub fn check(&self) -> Result<(), ChunkError> {
        let regions: Vec<&Region> = self.chunks.iter().chain(&self.copies).map(|chunk| &chunk.region).collect();
        coverage::check(&self.shape, self.axis, &regions)
    }
}

/// What pieces are sorted by: where they begin along the axis, their region, their rank.
fn place(chunk: &Chunk, axis: usize) -> (u64, &Region, crate::layout::Rank) {
    (chunk.region.along(axis).start, &chunk.region, chunk.rank)
}

/// Inserts a piece where it belongs.
fn insert(chunks: &mut Vec<Chunk>, chunk: Chunk, axis: usize) {
    // Most parameters of a published model are one piece, and there are many.
    if chunks.is_empty() {
        chunks.reserve_exact(1);
    }
    // Those of a file that has many come in their order.
    let is_last = chunks.last().is_none_or(|last| place(last, axis) <= place(&chunk, axis));
    let at = if is_last {
        chunks.len()
    } else {
        chunks.partition_point(|known| place(known, axis) <= place(&chunk, axis))
    };
    chunks.insert(at, chunk);
}

/// Of pieces that are whole on the other axes and have `position`, the first.
fn first_at(chunks: &[Chunk], position: u64, axis: usize) -> Option<&Chunk> {
    let start = |chunk: &Chunk| chunk.region.along(axis).start;
    let after = chunks.partition_point(|chunk| start(chunk) <= position);
    let last = start(chunks.get(after.checked_sub(1)?)?);
    let first = chunks.partition_point(|chunk| start(chunk) < last);
    chunks.get(first).filter(|chunk| chunk.region.along(axis).contains(&position))
}

/// Pieces among which all are that have `position`.
fn near<'a>(chunks: &'a [Chunk], position: u64, param: &Param) -> &'a [Chunk] {
    let start = |chunk: &Chunk| chunk.region.along(param.axis).start;
    let first = chunks.partition_point(|chunk| start(chunk).saturating_add(param.longest) <= position);
    let after = chunks.partition_point(|chunk| start(chunk) <= position);
    match chunks.get(first..after) {
        Some(near) => near,
        None => &[],
    }
}

#[cfg(test)]
mod tests;
