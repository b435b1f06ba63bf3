//! Writes one planned file, front to back, summing its records on the way so that no byte is read twice.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use super::MaterializeError;
use crate::plan::{FilePlan, Segment};
use crate::reader::{BLOCK, Checksums, CrcMode, Reader};

/// Writes `plan` to a new file at `path` and syncs it.
pub(super) fn file(
    plan: &FilePlan,
    reader: &Reader,
    path: &Path,
    written: &(dyn Fn(u64) + Sync),
    stop: &dyn Fn() -> bool,
) -> Result<(), MaterializeError> {
    let failed = |action, source| MaterializeError::Io { action, path: path.to_owned(), source };
    let mut file = File::create_new(path).map_err(|source| failed("create", source))?;
    let mut sums = Sums::new(plan);
    let checksums = Checksums::new(CrcMode::Exact);
    let mut buffer = vec![0; BLOCK];
    let mut at = 0;
    while at < plan.len() {
        if stop() {
            return Err(MaterializeError::Stopped);
        }
        let mut filled = 0;
        while filled < buffer.len() && at < plan.len() {
            // Never past the start of a checksum whose range has not been summed.
            let most = sums.next_stop(at, plan.len()) - at;
            let room = buffer.get_mut(filled..).unwrap_or_default();
            let room = room.len().min(usize::try_from(most).unwrap_or(usize::MAX));
            let slot = buffer.get_mut(filled..filled + room).unwrap_or_default();
            let read = reader.read(plan, &checksums, at, slot)?;
            sums.add(at, slot.get(..read).unwrap_or_default(), &checksums);
            filled += read;
            at += read as u64;
        }
        let block = buffer.get(..filled).unwrap_or_default();
        file.write_all(block).map_err(|source| failed("write", source))?;
        written(filled as u64);
    }
    file.sync_all().map_err(|source| failed("sync", source))
}

/// The ranges of a file that are summed, in file order, and the sum of the one being passed.
struct Sums {
    ranges: Vec<Range<u64>>,
    /// Where each checksum stands, first places only, in file order.
    stops: Vec<u64>,
    current: usize,
    hasher: crc32fast::Hasher,
}

impl Sums {
    fn new(plan: &FilePlan) -> Self {
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

    /// The next byte that must not be read together with those from `at` on.
    fn next_stop(&self, at: u64, end: u64) -> u64 {
        let index = self.stops.partition_point(|stop| *stop <= at);
        self.stops.get(index).copied().unwrap_or(end)
    }

    /// Takes in the bytes from `at` on; sums that are complete are noted.
    fn add(&mut self, at: u64, bytes: &[u8], checksums: &Checksums) {
        let end = at + bytes.len() as u64;
        while let Some(range) = self.ranges.get(self.current) {
            let (low, high) = (range.start.max(at), range.end.min(end));
            if low < high {
                // Both lie within `bytes`.
                self.hasher.update(bytes.get((low - at) as usize..(high - at) as usize).unwrap_or_default());
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
