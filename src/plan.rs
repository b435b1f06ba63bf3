//! Byte-range algebra, the heart: which source bytes make which bytes of a file.
//!
//! A [`FilePlan`] is a gapless list of segments. It is built from catalog parameters ([`gather`]) and resolved to reads for any range.
//! Knows parameters, bands and bytes. Not here: layouts and ranks (`view`), formats, any I/O.

#![deny(clippy::disallowed_methods)]

mod builder;
mod error;
mod gather;
mod stripe;

use std::ops::Range;
use std::sync::Arc;

pub use builder::Builder;
pub use error::GatherError;
pub use gather::{Fill, Part, Source, Target, gather, whole};
pub use stripe::{Dim, Piece, Stripe};

use crate::extent::ObjectId;

/// A stretch of a file and where its bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// These bytes.
    Literal(Arc<[u8]>),
    /// So many zero bytes.
    Zero(u64),
    /// Source bytes in a regular pattern.
    Stripe(Stripe),
    /// Four bytes: the little-endian CRC-32 of the file's own bytes in this range, which lies before the segment.
    Crc32(Range<u64>),
}

impl Segment {
    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Literal(bytes) => bytes.len() as u64,
            Self::Zero(len) => *len,
            Self::Stripe(stripe) => stripe.bytes(),
            Self::Crc32(_) => 4,
        }
    }
}

/// One instruction for filling a buffer. `to` is the byte of the resolved range that it starts at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read<'plan> {
    /// Copy from a source object.
    Copy {
        /// The object.
        object: ObjectId,
        /// First byte in the object.
        from: u64,
        /// First byte in the answer.
        to: u64,
        /// Bytes.
        len: u64,
    },
    /// Copy these bytes.
    Literal {
        /// The bytes.
        bytes: &'plan [u8],
        /// First byte in the answer.
        to: u64,
    },
    /// Write zeros.
    Zero {
        /// First byte in the answer.
        to: u64,
        /// Bytes.
        len: u64,
    },
    /// Write bytes `part` of the checksum of the file's bytes in `of`.
    Crc32 {
        /// The range of the file that is summed.
        of: Range<u64>,
        /// Which of the four bytes.
        part: Range<u64>,
        /// First byte in the answer.
        to: u64,
    },
}

/// Where every byte of one file comes from.
#[derive(Debug, Clone, Default)]
pub struct FilePlan {
    segments: Vec<Segment>,
    /// First byte of each segment.
    starts: Vec<u64>,
    len: u64,
}

impl FilePlan {
    /// Size of the file in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The segments, in file order, without gaps.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Segments and where they start.
    pub fn located(&self) -> impl Iterator<Item = (u64, &Segment)> {
        self.starts.iter().copied().zip(&self.segments)
    }

    /// Where the source bytes end that follow each other from byte `offset` on; `offset` itself where there are none.
    #[must_use]
    pub fn stripes_end(&self, offset: u64) -> u64 {
        let first = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let segments = self.starts.iter().zip(&self.segments).skip(first);
        let stripes = segments.take_while(|(_, segment)| matches!(segment, Segment::Stripe(_)));
        match stripes.last() {
            Some((start, segment)) => (start + segment.bytes()).max(offset),
            None => offset,
        }
    }

    /// Bytes of memory that the plan takes, roughly.
    #[must_use]
    pub fn memory(&self) -> usize {
        let extra = |segment: &Segment| match segment {
            Segment::Literal(bytes) => bytes.len(),
            Segment::Stripe(stripe) => stripe.pieces().len() * (size_of::<Piece>() + size_of::<u64>()),
            Segment::Zero(_) | Segment::Crc32(_) => 0,
        };
        let each = size_of::<Segment>() + size_of::<u64>();
        self.segments.iter().map(|segment| each + extra(segment)).sum()
    }

    /// The segments that bytes `range` of the file touch, in order and without gaps. The part of the range beyond the end is left out.
    pub fn parts(&self, range: Range<u64>) -> impl Iterator<Item = SegmentPart<'_>> {
        let range = range.start..range.end.min(self.len);
        let first = self.starts.partition_point(|start| *start <= range.start).saturating_sub(1);
        let segments = self.starts.iter().zip(&self.segments).skip(first);
        segments.take_while(move |(start, _)| range.start < range.end && **start < range.end).map(
            move |(start, segment)| SegmentPart {
                segment,
                within: range.start.saturating_sub(*start)..(range.end - start).min(segment.bytes()),
                to: start.saturating_sub(range.start),
            },
        )
    }

    /// What fills bytes `range` of the file, in order and without gaps. The part of the range beyond the end is left out.
    #[cfg(feature = "internals")]
    pub fn resolve<'plan>(&'plan self, range: Range<u64>, mut sink: impl FnMut(Read<'plan>)) {
        for part in self.parts(range) {
            part.resolve(&mut sink);
        }
    }
}

#[cfg(test)]
impl FilePlan {
    /// Segments and where they start, as no builder makes them: what becomes of a plan with gaps is for those who follow it to say.
    pub(crate) fn flawed(segments: Vec<(u64, Segment)>, len: u64) -> Self {
        let (starts, segments) = segments.into_iter().unzip();
        Self { segments, starts, len }
    }
}

/// Some bytes of a segment, and where they go.
#[derive(Debug, Clone)]
pub struct SegmentPart<'plan> {
    /// The segment.
    pub segment: &'plan Segment,
    /// Which of its bytes.
    pub within: Range<u64>,
    /// First byte in the answer.
    pub to: u64,
}

impl<'plan> SegmentPart<'plan> {
    /// What fills these bytes.
    pub fn resolve(self, sink: &mut impl FnMut(Read<'plan>)) {
        resolve_segment(self.segment, self.within, self.to, sink);
    }
}

/// Bytes `within` of a segment; they are bytes `to..` of the answer.
fn resolve_segment<'plan>(
    segment: &'plan Segment,
    within: Range<u64>,
    to: u64,
    sink: &mut impl FnMut(Read<'plan>),
) {
    if within.is_empty() {
        return;
    }
    match segment {
        Segment::Zero(_) => sink(Read::Zero { to, len: within.end - within.start }),
        Segment::Crc32(of) => sink(Read::Crc32 { of: of.clone(), part: within, to }),
        Segment::Literal(bytes) => {
            // Both ends are within a slice that is in memory, so they fit `usize`.
            #[expect(clippy::indexing_slicing, reason = "`parts` cuts the range to the segment")]
            let bytes = &bytes[within.start as usize..within.end as usize];
            sink(Read::Literal { bytes, to });
        }
        Segment::Stripe(stripe) => {
            stripe
                .resolve(within, |object, from, at, len| sink(Read::Copy { object, from, to: to + at, len }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> FilePlan {
        let mut builder = Builder::new();
        builder.literal(b"head".as_slice());
        let start = builder.position();
        builder.stripe(Stripe::contiguous(ObjectId(0), 10, 6));
        builder.zero(2);
        builder.crc32(start..start + 8);
        builder.finish()
    }

    fn reads(range: Range<u64>) -> Vec<String> {
        let plan = plan();
        let mut reads = Vec::new();
        plan.resolve(range, |read| {
            reads.push(match read {
                Read::Copy { from, to, len, .. } => format!("copy {from} to {to} len {len}"),
                Read::Literal { bytes, to } => format!("{} to {to}", String::from_utf8_lossy(bytes)),
                Read::Zero { to, len } => format!("zero {to} len {len}"),
                Read::Crc32 { of, part, to } => format!("crc of {of:?} part {part:?} to {to}"),
            });
        });
        reads
    }

    #[test]
    fn stripes_end_where_something_else_begins() {
        let ends = [0, 3, 4, 9, 10, 15, 16, 99].map(|offset| plan().stripes_end(offset));
        assert_eq!(ends, [0, 3, 10, 10, 10, 15, 16, 99]);
        let mut builder = Builder::new();
        for start in [0, 100] {
            builder.stripe(Stripe::contiguous(ObjectId(0), start, 6));
        }
        let plan = builder.finish();
        assert_eq!([0, 5, 6, 12].map(|offset| plan.stripes_end(offset)), [12; 4]);
    }

    #[test]
    fn a_range_resolves_to_what_it_touches() {
        assert_eq!(plan().len(), 16);
        assert_eq!(
            reads(0..16),
            ["head to 0", "copy 10 to 4 len 6", "zero 10 len 2", "crc of 4..12 part 0..4 to 12"]
        );
        assert_eq!(reads(2..5), ["ad to 0", "copy 10 to 2 len 1"]);
        assert_eq!(reads(9..13), ["copy 15 to 0 len 1", "zero 1 len 2", "crc of 4..12 part 0..1 to 3"]);
        assert_eq!(reads(15..99), ["crc of 4..12 part 3..4 to 0"]);
        assert!(reads(16..20).is_empty());
        assert!(reads(5..5).is_empty());
    }

    #[test]
    fn a_range_touches_no_segment_that_it_has_nothing_of() {
        let plan = plan();
        let parts = |range| plan.parts(range).map(|part| (part.within, part.to)).collect::<Vec<_>>();
        assert_eq!(parts(4..10), [(0..6, 0)]);
        assert_eq!(parts(3..11), [(3..4, 0), (0..6, 1), (0..1, 7)]);
        assert!([4..4, 5..5, 16..16, 16..99].into_iter().all(|range| parts(range).is_empty()));
        let nothing = SegmentPart { segment: &plan.segments()[2], within: 1..1, to: 0 };
        nothing.resolve(&mut |read| panic!("{read:?}"));
    }

    #[test]
    fn a_plan_knows_how_much_it_is() {
        let planned = |build: fn(&mut Builder)| {
            let mut builder = Builder::new();
            build(&mut builder);
            builder.finish()
        };
        let empty = planned(|_| ());
        assert_eq!((empty.len(), empty.memory()), (0, 0));
        assert_eq!(planned(|builder| builder.zero(1)).len(), 1);
        let one = planned(|builder| builder.zero(99)).memory();
        assert_eq!(one, size_of::<Segment>() + size_of::<u64>());
        assert_eq!(planned(|builder| builder.crc32(0..0)).memory(), one);
        assert_eq!(planned(|builder| builder.literal([7; 99].as_slice())).memory(), one + 99);
        let stripe = planned(|builder| {
            let piece = |start| Piece { object: ObjectId(0), start, step: 9, dims: Vec::new(), run: 2 };
            builder.stripe(Stripe::new(3, vec![piece(0), piece(50), piece(70)]));
        });
        // A piece, and where it ends in the row.
        assert_eq!(stripe.memory(), one + 3 * (size_of::<Piece>() + size_of::<u64>()));
    }
}
