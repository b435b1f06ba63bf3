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

    /// Size in bytes when the object was opened.
    ///
    /// # Errors
    /// As [`Store::len`].
    pub fn len(&self) -> Result<u64, StoreError> {
        self.store.len(self.object)
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// As [`Store::gather`].
    pub fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> Result<(), StoreError> {
        self.store.read_unchecked(self.object, offset, out)
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
    let done = work(Reads { store, object });
    store.check_unchanged(object)?;
    done
}
