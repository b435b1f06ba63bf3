//! Several reads of one object that make one answer: one look at the end tells whether it is still what was opened.
//!
//! What is unchanged after the last read was unchanged at every one before, so a look around each of them would tell nothing more; on
//! storage that is far away each look is a round trip.

use super::{Store, StoreError};
use crate::extent::ObjectId;

/// Reads whose bytes have no value until [`consistent`] returns them.
#[derive(Clone, Copy)]
pub struct Reads<'a> {
    store: &'a dyn Store,
    object: ObjectId,
    /// First byte of the part that is read, and the first one behind it.
    part: (u64, Option<u64>),
}

impl std::fmt::Debug for Reads<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reads of {}", self.object)
    }
}

impl Reads<'_> {
    /// The object that is read.
    #[must_use]
    pub fn object(&self) -> ObjectId {
        self.object
    }

    /// Reads of `len` bytes from `offset` on, as though they were all of the object. Bytes that it does not have are no part of them.
    ///
    /// # Errors
    /// As [`Store::len`].
    pub fn part(&self, offset: u64, len: u64) -> Result<Self, StoreError> {
        let (start, own) = (self.part.0, self.len()?);
        let from = start.saturating_add(offset.min(own));
        let end = from.saturating_add(len).min(start.saturating_add(own));
        Ok(Self { part: (from, Some(end)), ..*self })
    }

    /// Where in the object the part begins that is read.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.part.0
    }

    /// Size in bytes of what is read, when the object was opened.
    ///
    /// # Errors
    /// As [`Store::len`].
    pub fn len(&self) -> Result<u64, StoreError> {
        match self.part {
            (start, Some(end)) => Ok(end.saturating_sub(start)),
            (_, None) => self.store.len(self.object),
        }
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// As [`Store::gather`].
    pub fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> Result<(), StoreError> {
        let (start, end) = self.part;
        let from = start.saturating_add(offset);
        if end.is_some_and(|end| from.saturating_add(out.len() as u64) > end) {
            let (path, len, size) = (self.store.name(self.object), out.len(), self.len()?);
            return Err(StoreError::OutOfRange { path, from: offset, len, size });
        }
        self.store.read_unchecked(self.object, from, out)
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
    let done = work(Reads { store, object, part: (0, None) });
    store.check_unchanged(object)?;
    done
}
