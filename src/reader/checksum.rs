//! CRC-32s of ranges of a planned file, which depend on data that a lazy view has not read.

use std::collections::HashMap;
use std::ops::Range;

use parking_lot::Mutex;

use super::{BLOCK, ReadError, Reader};
use crate::plan::FilePlan;

/// What stands in a file's checksum fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CrcMode {
    /// Zeros, as `torch.serialization.set_crc32_options(False)` writes and `torch.load` accepts.
    #[default]
    Zero,
    /// The true sums; the first read of one reads everything it sums.
    Exact,
}

/// The checksums of one file, each computed at most once.
#[derive(Debug, Default)]
pub struct Checksums {
    mode: CrcMode,
    known: Mutex<HashMap<Range<u64>, u32>>,
}

impl Checksums {
    /// Checksums of a file, none of them known yet.
    #[must_use]
    pub fn new(mode: CrcMode) -> Self {
        Self { mode, known: Mutex::default() }
    }

    /// Notes a sum that was computed elsewhere.
    pub fn note(&self, of: Range<u64>, crc: u32) {
        self.known.lock().insert(of, crc);
    }

    /// The sum of bytes `of` of the file.
    pub(super) fn get(&self, reader: &Reader, plan: &FilePlan, of: Range<u64>) -> Result<u32, ReadError> {
        if self.mode == CrcMode::Zero {
            return Ok(0);
        }
        let known = self.known.lock().get(&of).copied();
        if let Some(crc) = known {
            return Ok(crc);
        }
        // Two readers may sum the same range at once; the lock is not held meanwhile, and both find the same.
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0; (of.end - of.start).min(BLOCK as u64) as usize];
        let mut at = of.start;
        while at < of.end {
            let len = (of.end - at).min(buffer.len() as u64) as usize;
            let slot = buffer.get_mut(..len).ok_or_else(|| ReadError::Plan(of.clone()))?;
            if reader.read(plan, self, at, slot)? != len {
                return Err(ReadError::Plan(of));
            }
            hasher.update(slot);
            at += len as u64;
        }
        let crc = hasher.finalize();
        self.note(of, crc);
        Ok(crc)
    }
}
