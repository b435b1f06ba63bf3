//! Several reads of one object that make one answer: one look at the end tells whether it is still what was opened.
//!
//! What is unchanged after the last read was unchanged at every one before, so a look around each of them would tell nothing more; on
//! storage that is far away each look is a round trip.

use super::{Store, StoreError};
use crate::extent::ObjectId;

/// Reads whose bytes have no value until [`consistent`] returns them: of an object, or of a part of one as if it were all there is.
#[derive(Clone, Copy)]
pub struct Reads<'a> {
    store: &'a dyn Store,
    object: ObjectId,
    part: Option<Part>,
}

/// Bytes of an object, inside it.
#[derive(Debug, Clone, Copy)]
struct Part {
    offset: u64,
    len: u64,
}

impl std::fmt::Debug for Reads<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reads of {}", self.object)
    }
}

impl<'a> Reads<'a> {
    /// The object that is read.
    #[must_use]
    pub fn object(&self) -> ObjectId {
        self.object
    }

    /// The same, of `len` bytes from `offset` on alone: positions count from there.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] where they are not all there, [`StoreError::Unknown`].
    pub fn part(&self, offset: u64, len: u64) -> Result<Reads<'a>, StoreError> {
        let size = self.len()?;
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(self.out_of_range(offset, len)?);
        }
        let part = Part { offset: self.absolute(offset), len };
        Ok(Reads { part: Some(part), ..*self })
    }

    /// Size in bytes when the object was opened, or of the part.
    ///
    /// # Errors
    /// As [`Store::len`].
    pub fn len(&self) -> Result<u64, StoreError> {
        match self.part {
            Some(part) => Ok(part.len),
            None => self.store.len(self.object),
        }
    }

    /// The position in the object of byte `offset` of what is read.
    #[must_use]
    pub fn absolute(&self, offset: u64) -> u64 {
        match self.part {
            Some(part) => part.offset.saturating_add(offset),
            None => offset,
        }
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// As [`Store::gather`].
    pub fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> Result<(), StoreError> {
        let len = out.len() as u64;
        if self.part.is_some_and(|part| offset.checked_add(len).is_none_or(|end| end > part.len)) {
            return Err(self.out_of_range(offset, len)?);
        }
        self.store.read_unchecked(self.object, self.absolute(offset), out)
    }

    fn out_of_range(&self, offset: u64, len: u64) -> Result<StoreError, StoreError> {
        let len = match usize::try_from(len) {
            Ok(len) => len,
            Err(_) => usize::MAX,
        };
        let (path, size) = (self.store.name(self.object), self.store.len(self.object)?);
        Ok(StoreError::OutOfRange { path, from: self.absolute(offset), len, size })
    }
}

/// What `work` makes of its reads of `object`, if that did not change meanwhile. A change is reported instead of whatever `work` ran into:
/// it explains more than what it made fail.
///
/// # Errors
/// [`StoreError::Changed`], and those of `work`.
pub fn consistent<T, E: From<StoreError>>(
    store: &dyn Store,
    object: ObjectId,
    work: impl FnOnce(Reads<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let done = work(Reads { store, object, part: None });
    store.check_unchanged(object)?;
    done
}

#[cfg(test)]
mod tests {
    use super::super::MemoryStore;
    use super::*;

    fn read(reads: Reads<'_>, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; len];
        reads.read_exact_at(offset, &mut bytes).map(|()| bytes)
    }

    #[test]
    fn a_part_is_read_as_if_it_were_all() {
        let store = MemoryStore::new();
        let object = store.add("file", (0..100).collect::<Vec<u8>>()).unwrap();
        consistent(&store, object, |reads| {
            let part = reads.part(10, 50)?;
            assert_eq!((part.len()?, part.object(), part.absolute(7)), (50, object, 17));
            assert_eq!(read(part, 40, 10)?, (50..60).collect::<Vec<u8>>());
            let inner = part.part(20, 30)?;
            assert_eq!((inner.len()?, inner.absolute(0), read(inner, 29, 1)?), (30, 30, vec![59]));
            assert_eq!((read(part.part(50, 0)?, 0, 0)?, reads.part(0, 100)?.len()?), (vec![], 100));
            // What lies behind a part is there, and none of it.
            for (reads, offset, len) in [(part, 41, 10), (part, u64::MAX, 1), (inner, 30, 1)] {
                assert!(matches!(read(reads, offset, len), Err(StoreError::OutOfRange { .. })));
            }
            for (reads, offset, len) in [(reads, 51, 50), (part, 21, 30), (part, 1, u64::MAX)] {
                assert!(matches!(reads.part(offset, len), Err(StoreError::OutOfRange { size: 100, .. })));
            }
            Ok::<(), StoreError>(())
        })
        .unwrap();
    }
}
