//! Sums the records of a file while it passes by, so that no byte is read twice.
//!
//! Not here: where the bytes come from and where they go (`write`).

use std::ops::Range;

use crate::plan::{FilePlan, Segment};
use crate::reader::Checksums;

/// The ranges of a file that are summed, in file order, and the sum of the one being passed.
pub(super) struct Sums {
    ranges: Vec<Range<u64>>,
    /// Where each checksum stands, first places only, in file order.
    stops: Vec<u64>,
    current: usize,
    hasher: crc32fast::Hasher,
}

impl Sums {
    pub(super) fn new(plan: &FilePlan) -> Self {
        let mut ranges = Vec::new();
        let mut stops = Vec::new();
        for (start, segment) in plan.located() {
            if let Segment::Crc32(of) = segment {
                ranges.push(of.clone());
                stops.push(start);
            }
        }
        ranges.sort_by_key(|range| (range.start, range.end));
        ranges.dedup();
        Self { ranges, stops, current: 0, hasher: crc32fast::Hasher::new() }
    }

    /// Sums nothing: of a file whose checksum fields stay zeros.
    pub(super) fn none() -> Self {
        Self { ranges: Vec::new(), stops: Vec::new(), current: 0, hasher: crc32fast::Hasher::new() }
    }

    /// The next byte that must not be read together with those from `at` on.
    pub(super) fn next_stop(&self, at: u64, end: u64) -> u64 {
        let index = self.stops.partition_point(|stop| *stop <= at);
        match self.stops.get(index) {
            Some(stop) => *stop,
            None => end,
        }
    }

    /// Takes in the bytes from `at` on; sums that are complete are noted.
    #[expect(clippy::indexing_slicing, reason = "`low` and `high` are cut to `at` and the end of `bytes`")]
    pub(super) fn add(&mut self, at: u64, bytes: &[u8], checksums: &Checksums) {
        let end = at + bytes.len() as u64;
        while let Some(range) = self.ranges.get(self.current) {
            let (low, high) = (range.start.max(at), range.end.min(end));
            if low < high {
                self.hasher.update(&bytes[(low - at) as usize..(high - at) as usize]);
            }
            if range.end > end {
                return;
            }
            let hasher = std::mem::take(&mut self.hasher);
            checksums.note(range.clone(), hasher.finalize());
            self.current += 1;
        }
    }
}
