//! Large files of few bytes: an input is what stands before and after a hole, as a checkpoint is metadata around data.
//!
//! Twelve bytes say where the hole is and how long; `scripts/fuzz` writes them for files of `tests/fixtures` with their data cut out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Longer holes only cost time: every field that must not overflow does so below this.
const LONGEST: u64 = 1 << 40;

/// A file with zeros in the middle.
#[derive(Debug, Clone, Copy)]
pub struct Holed<'a> {
    head: &'a [u8],
    hole: u64,
    tail: &'a [u8],
}

impl<'a> Holed<'a> {
    /// The file that an input stands for; `None` where it is too short for any.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Option<Self> {
        let (at, rest) = input.split_first_chunk::<4>()?;
        let (hole, rest) = rest.split_first_chunk::<8>()?;
        let at = u32::from_le_bytes(*at) as usize;
        let (head, tail) = rest.split_at(at.min(rest.len()));
        Some(Self { head, hole: u64::from_le_bytes(*hole) % LONGEST, tail })
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.head.len() as u64 + self.hole + self.tail.len() as u64
    }

    /// `len` of its bytes from `from` on, as far as it has them.
    #[must_use]
    pub fn read(&self, from: u64, len: u64) -> Vec<u8> {
        let end = from.saturating_add(len).min(self.size());
        let mut bytes = vec![0; end.saturating_sub(from) as usize];
        for (part, start) in [(self.head, 0), (self.tail, self.size() - self.tail.len() as u64)] {
            let (first, last) = (from.max(start), end.min(start + part.len() as u64));
            if first < last {
                let there = &part[(first - start) as usize..(last - start) as usize];
                bytes[(first - from) as usize..(last - from) as usize].copy_from_slice(there);
            }
        }
        bytes
    }

    /// Writes it into an empty file, where the hole takes no room.
    pub fn write(&self, file: &File) -> io::Result<()> {
        file.write_all_at(self.head, 0)?;
        file.write_all_at(self.tail, self.size() - self.tail.len() as u64)?;
        file.set_len(self.size())
    }
}
