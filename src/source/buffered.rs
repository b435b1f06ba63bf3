//! Bytes of a file, or of a part of one, that were read, kept while it is opened: what lies among them is not read again.

use crate::store::{Reads, StoreError};

/// Stretches of a file.
#[derive(Debug)]
pub(super) struct AtHand<'a> {
    reads: Reads<'a>,
    len: u64,
    /// First byte, and the bytes.
    stretches: Vec<(u64, Vec<u8>)>,
}

impl<'a> AtHand<'a> {
    /// Nothing of the file yet.
    pub(super) fn new(reads: Reads<'a>) -> Result<Self, StoreError> {
        Ok(Self { reads, len: reads.len()?, stretches: Vec::new() })
    }

    /// Size of the file in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Where in the object the file begins: elsewhere than at its first byte where it is a part of another one.
    pub(super) fn start(&self) -> u64 {
        self.reads.start()
    }

    /// `len` bytes from `offset` on, as far as the file has them, if they were read already.
    pub(super) fn get(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let len = usize::try_from(len.min(self.len.saturating_sub(offset))).ok()?;
        self.stretches.iter().find_map(|(start, bytes)| {
            let at = usize::try_from(offset.checked_sub(*start)?).ok()?;
            bytes.get(at..at.checked_add(len)?)
        })
    }

    /// The same; read in one go where they were not, and kept.
    pub(super) fn bytes(&mut self, offset: u64, len: u64) -> Result<&[u8], StoreError> {
        if self.get(offset, len).is_none() {
            self.keep(offset, len)?;
        }
        Ok(self.get(offset, len).unwrap_or_default())
    }

    /// The same, for bytes that nothing else will be wanted of.
    pub(super) fn once(&self, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        match self.get(offset, len) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => self.read(offset, len),
        }
    }

    fn keep(&mut self, offset: u64, len: u64) -> Result<(), StoreError> {
        let bytes = self.read(offset, len)?;
        self.stretches.push((offset, bytes));
        Ok(())
    }

    fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let len = len.min(self.len.saturating_sub(offset));
        // No longer than the file.
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.reads.read_exact_at(offset, &mut bytes)?;
        Ok(bytes)
    }
}
