//! Stripes: source bytes in a regular pattern, however many runs they are.
//!
//! A cut along one axis of a row-major tensor is `repeat` rows of a few pieces each. As a list of runs a model has millions of them; as a
//! stripe it is one segment, and finding a byte is a division and a binary search.

use std::ops::Range;

use crate::extent::ObjectId;

/// `repeat` rows, each made of the same pieces shifted by their steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stripe {
    repeat: u64,
    pieces: Vec<Piece>,
    /// Byte of the row after each piece.
    ends: Vec<u64>,
}

/// One piece of a row: usually one run of bytes, sometimes a small pattern of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Object the bytes are in.
    pub object: ObjectId,
    /// First byte in row 0.
    pub start: u64,
    /// Bytes to the piece of the next row; zero repeats the same bytes.
    pub step: u64,
    /// Loops within the piece, outermost first; empty for one run.
    pub dims: Vec<Dim>,
    /// Bytes of one run.
    pub run: u64,
}

/// A loop over runs: `count` times, `step` bytes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dim {
    /// How often.
    pub count: u64,
    /// Bytes from one to the next.
    pub step: u64,
}

impl Piece {
    /// Bytes of the piece in one row.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.dims.iter().fold(self.run, |bytes, dim| bytes * dim.count)
    }

    /// A piece of these loops, with loops that are one run in the source written as one run.
    #[must_use]
    pub fn new(object: ObjectId, start: u64, step: u64, dims: &[Dim], element: u64) -> Self {
        let mut loops: Vec<Dim> = Vec::new();
        for dim in dims.iter().filter(|dim| dim.count != 1) {
            match loops.last_mut() {
                // The loop around steps exactly over this one: they are one loop.
                Some(outer) if dim.step.checked_mul(dim.count) == Some(outer.step) => {
                    *outer = Dim { count: outer.count * dim.count, step: dim.step };
                }
                _ => loops.push(*dim),
            }
        }
        let mut run = element;
        while let Some(inner) = loops.last().filter(|dim| dim.step == run) {
            run *= inner.count;
            loops.pop();
        }
        Self { object, start, step, dims: loops, run }
    }

    /// Whether `next` follows this piece in the source as it does in the row, in every row.
    fn reads_on_into(&self, next: &Self, repeat: u64) -> bool {
        self.dims.is_empty()
            && next.dims.is_empty()
            && self.object == next.object
            && self.start.checked_add(self.run) == Some(next.start)
            && (repeat == 1 || self.step == next.step)
    }

    /// Number of the run that holds byte `at` of the piece, and bytes of it before that.
    fn run_at(&self, at: u64) -> (u64, u64) {
        if self.dims.is_empty() { (0, at) } else { (at / self.run, at % self.run) }
    }

    /// First source byte of run number `index`, in row `row`.
    fn run_start(&self, row: u64, mut index: u64) -> u64 {
        let mut start = self.start + row * self.step;
        for dim in self.dims.iter().rev() {
            start += index % dim.count * dim.step;
            index /= dim.count;
        }
        start
    }
}

impl Stripe {
    /// Rows of these pieces, written as simply as can be: pieces that read on are joined, rows that read on become one row.
    #[must_use]
    pub fn new(mut repeat: u64, pieces: Vec<Piece>) -> Self {
        let mut joined: Vec<Piece> = Vec::with_capacity(pieces.len());
        for piece in pieces.into_iter().filter(|piece| piece.bytes() > 0) {
            match joined.last_mut() {
                Some(before) if before.reads_on_into(&piece, repeat) => before.run += piece.run,
                _ => joined.push(piece),
            }
        }
        if let [only] = joined.as_mut_slice()
            && only.dims.is_empty()
            && (only.step == only.run || repeat == 1)
        {
            only.run *= repeat;
            only.step = only.run;
            repeat = 1;
        }
        let ends = joined
            .iter()
            .scan(0, |end, piece| {
                *end += piece.bytes();
                Some(*end)
            })
            .collect();
        Self { repeat, pieces: joined, ends }
    }

    /// One run of source bytes.
    #[must_use]
    pub fn contiguous(object: ObjectId, start: u64, len: u64) -> Self {
        Self::new(1, vec![Piece { object, start, step: len, dims: Vec::new(), run: len }])
    }

    /// Rows.
    #[must_use]
    pub fn repeat(&self) -> u64 {
        self.repeat
    }

    /// Pieces of each row.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Bytes of one row.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a row of no pieces has no bytes")]
    pub fn row_bytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Bytes of all rows.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.repeat * self.row_bytes()
    }

    /// Bytes of one run, on average.
    #[must_use]
    pub fn mean_run(&self) -> u64 {
        let runs: u64 = self.pieces.iter().map(|piece| piece.bytes() / piece.run.max(1)).sum();
        self.row_bytes() / runs.max(1)
    }

    /// Objects that it reads, each once for every piece.
    pub fn objects(&self) -> impl Iterator<Item = ObjectId> {
        self.pieces.iter().map(|piece| piece.object)
    }

    /// What tells stripes apart that read different bytes, also over the life of a process.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut add = |number: u64| {
            hasher.update(&number.to_le_bytes());
        };
        add(self.repeat);
        for piece in &self.pieces {
            // The number of loops keeps a piece from reading like another one with its loops in another's place.
            let fixed =
                [u64::from(piece.object.0), piece.start, piece.step, piece.run, piece.dims.len() as u64];
            fixed
                .into_iter()
                .chain(piece.dims.iter().flat_map(|dim| [dim.count, dim.step]))
                .for_each(&mut add);
        }
        hasher.finalize().into()
    }

    /// This stripe and `next` as one, where `next` reads on in the source.
    #[must_use]
    pub fn join(&self, next: &Self) -> Option<Self> {
        let ([own], [other]) = (self.pieces.as_slice(), next.pieces.as_slice()) else { return None };
        let one_run_each = self.repeat == 1 && next.repeat == 1;
        (one_run_each && own.reads_on_into(other, 1))
            .then(|| Self::contiguous(own.object, own.start, own.run + other.run))
    }

    /// The runs that make bytes `range` of the stripe, in order: object, first byte in it, place in the answer, bytes.
    pub fn resolve(&self, range: Range<u64>, mut sink: impl FnMut(ObjectId, u64, u64, u64)) {
        let row_bytes = self.row_bytes();
        if row_bytes == 0 {
            return;
        }
        let mut at = range.start;
        let end = range.end.min(self.bytes());
        // Only the first run is looked for: a division for each would cost more than it takes to hand out the run.
        let (mut row, mut within) = (at / row_bytes, at % row_bytes);
        let mut index = self.ends.partition_point(|piece_end| *piece_end <= within);
        while at < end {
            while let (Some(piece), Some(piece_end)) = (self.pieces.get(index), self.ends.get(index))
                && at < end
            {
                // Runs of this piece, from the one that holds `within` on.
                let in_piece = within - (piece_end - piece.bytes());
                let (mut run, mut skip) = piece.run_at(in_piece);
                while within < *piece_end && at < end {
                    let len = (piece.run - skip).min(end - at);
                    sink(piece.object, piece.run_start(row, run) + skip, at - range.start, len);
                    at += len;
                    within += len;
                    (run, skip) = (run + 1, 0);
                }
                index += 1;
            }
            (row, within, index) = (row + 1, 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u64, step: u64, run: u64) -> Piece {
        Piece { object: ObjectId(0), start, step, dims: Vec::new(), run }
    }

    fn runs(stripe: &Stripe, range: Range<u64>) -> Vec<(u64, u64, u64)> {
        let mut runs = Vec::new();
        stripe.resolve(range, |_, from, to, len| runs.push((from, to, len)));
        runs
    }

    #[test]
    fn rows_of_pieces_resolve_at_any_byte() {
        let stripe = Stripe::new(3, vec![piece(0, 10, 4), piece(100, 20, 2)]);
        assert_eq!(stripe.bytes(), 18);
        assert_eq!(
            runs(&stripe, 0..18),
            [(0, 0, 4), (100, 4, 2), (10, 6, 4), (120, 10, 2), (20, 12, 4), (140, 16, 2)]
        );
        assert_eq!(runs(&stripe, 3..8), [(3, 0, 1), (100, 1, 2), (10, 3, 2)]);
        assert_eq!(runs(&stripe, 17..40), [(141, 0, 1)]);
    }

    #[test]
    fn pieces_and_rows_that_read_on_are_joined() {
        let whole = Stripe::new(5, vec![piece(7, 6, 4), piece(11, 6, 2)]);
        assert_eq!(whole, Stripe::contiguous(ObjectId(0), 7, 30));
        let rows = Stripe::new(5, vec![piece(7, 8, 4), piece(11, 8, 2)]);
        assert_eq!((rows.repeat(), rows.pieces().len()), (5, 1));
        let a = Stripe::contiguous(ObjectId(0), 0, 4);
        assert_eq!(
            a.join(&Stripe::contiguous(ObjectId(0), 4, 4)),
            Some(Stripe::contiguous(ObjectId(0), 0, 8))
        );
        assert_eq!(a.join(&Stripe::contiguous(ObjectId(0), 5, 4)), None);
        assert_eq!(a.join(&Stripe::contiguous(ObjectId(1), 4, 4)), None);
    }

    #[test]
    fn stripes_that_read_alike_have_one_fingerprint() {
        let stripe = |start, step, run| Stripe::new(3, vec![piece(start, step, run), piece(100, 20, 2)]);
        let same = stripe(0, 10, 4).fingerprint();
        assert_eq!(same, stripe(0, 10, 4).fingerprint());
        let others =
            [stripe(1, 10, 4), stripe(0, 11, 4), stripe(0, 10, 5), Stripe::contiguous(ObjectId(0), 0, 18)];
        assert!(others.iter().all(|other| other.fingerprint() != same));
    }

    #[test]
    fn runs_are_as_long_as_their_pieces_and_loops_say() {
        assert_eq!(Stripe::new(3, vec![piece(0, 10, 4), piece(100, 20, 2)]).mean_run(), 3);
        let looped = Piece { dims: vec![Dim { count: 4, step: 10 }], ..piece(0, 100, 8) };
        assert_eq!(Stripe::new(2, vec![looped]).mean_run(), 8);
        assert_eq!(Stripe::contiguous(ObjectId(0), 0, 1 << 20).mean_run(), 1 << 20);
        assert_eq!(Stripe::new(0, Vec::new()).mean_run(), 0);
    }

    #[test]
    fn a_row_can_be_repeated_without_moving() {
        let last = Stripe::new(3, vec![piece(8, 0, 2)]);
        assert_eq!(runs(&last, 1..6), [(9, 0, 1), (8, 1, 2), (8, 3, 2)]);
    }

    #[test]
    fn loops_of_a_piece_are_reduced_to_the_fewest() {
        let dim = |count, step| Dim { count, step };
        let whole = Piece::new(ObjectId(0), 0, 0, &[dim(4, 12), dim(1, 99), dim(3, 4), dim(2, 2)], 2);
        assert_eq!((whole.dims.len(), whole.run), (0, 48));
        let transposed = Piece::new(ObjectId(0), 0, 0, &[dim(3, 2), dim(4, 6)], 2);
        assert_eq!((transposed.dims.clone(), transposed.run), (vec![dim(3, 2), dim(4, 6)], 2));
        let stripe = Stripe::new(1, vec![transposed]);
        assert_eq!(runs(&stripe, 6..12), [(18, 0, 2), (2, 2, 2), (8, 4, 2)]);
    }
}
