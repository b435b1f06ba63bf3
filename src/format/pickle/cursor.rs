//! Reading forward through the bytes of a pickle. Every read is checked against what is left before anything is allocated.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::PickleError;

/// Position in a pickle.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    /// Bytes of all of it.
    len: usize,
}

impl<'a> Cursor<'a> {
    /// At the first byte.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, len: bytes.len() }
    }

    /// Offset of the next byte.
    pub(super) fn at(&self) -> usize {
        self.len.saturating_sub(self.rest.len())
    }

    /// Number of bytes not read yet.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8], PickleError> {
        let split = usize::try_from(count).ok().and_then(|count| self.rest.split_at_checked(count));
        let Some((taken, rest)) = split else {
            return Err(PickleError::Truncated { offset: self.at(), need: count, have: self.left() });
        };
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(PickleError::Truncated { offset: self.at(), need: N as u64, have: self.left() });
        };
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, PickleError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Four bytes, little-endian, without sign.
    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, PickleError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian, without sign.
    pub(super) fn u64(&mut self) -> Result<u64, PickleError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Text up to a newline, which is read and dropped.
    pub(super) fn line(&mut self) -> Result<&'a str, PickleError> {
        let offset = self.at();
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or(PickleError::UnendedLine { offset })?;
        let text = self.text(end as u64)?;
        self.u8()?;
        Ok(text)
    }

    /// The next `count` bytes as UTF-8.
    pub(super) fn text(&mut self, count: u64) -> Result<&'a str, PickleError> {
        let offset = self.at();
        std::str::from_utf8(self.take(count)?).map_err(|_| PickleError::NotUtf8 { offset })
    }
}
