//! Sums the records of a file while it is read from front to back, so that no byte is read twice.
//!
//! Not here: what becomes of the bytes (`materialize`, `verify`).

use std::ops::Range;

use super::{Checksums, ReadError, Reader};
use crate::plan::{FilePlan, Segment};

/// The ranges of a file that are summed, in file order, and the sum of the one being passed.
#[derive(Debug)]
pub struct Sums {
    ranges: Vec<Range<u64>>,
    /// Where each checksum stands, first places only, in file order.
    stops: Vec<u64>,
    current: usize,
    hasher: crc32fast::Hasher,
}

impl Sums {
    /// Sums what the plan has checksum fields for.
    #[must_use]
    pub fn new(plan: &FilePlan) -> Self {
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
    #[must_use]
    pub fn none() -> Self {
        Self { ranges: Vec::new(), stops: Vec::new(), current: 0, hasher: crc32fast::Hasher::new() }
    }

    /// The next byte that must not be read together with those from `at` on.
    fn next_stop(&self, at: u64, end: u64) -> u64 {
        let index = self.stops.partition_point(|stop| *stop <= at);
        match self.stops.get(index) {
            Some(stop) => *stop,
            None => end,
        }
    }

    /// Takes in the bytes from `at` on; sums that are complete are noted.
    #[expect(clippy::indexing_slicing, reason = "`low` and `high` are cut to `at` and the end of `bytes`")]
    fn add(&mut self, at: u64, bytes: &[u8], checksums: &Checksums) {
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

    /// Reads the next block of the file, or what is left of it from byte `from` on; how much that was. Blocks must follow each other.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn fill(
        &mut self,
        (reader, plan): (&Reader, &FilePlan),
        checksums: &Checksums,
        from: u64,
        block: &mut [u8],
    ) -> Result<usize, ReadError> {
        let mut filled = 0;
        while filled < block.len() && from + (filled as u64) < plan.len() {
            let at = from + filled as u64;
            // Never past the start of a checksum whose range has not been summed.
            let wanted = (self.next_stop(at, plan.len()) - at).min((block.len() - filled) as u64);
            let missing = || ReadError::Plan(at..at + wanted);
            let slot = block.get_mut(filled..filled + wanted as usize).ok_or_else(missing)?;
            if reader.read(plan, checksums, at, slot)? != slot.len() || slot.is_empty() {
                return Err(missing());
            }
            self.add(at, slot, checksums);
            filled += slot.len();
        }
        Ok(filled)
    }
}
