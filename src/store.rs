//! Bytes of objects by number: the only place that turns an [`ObjectId`] into reads of a file.
//!
//! Every answer is either the bytes of the file as it was when opened, or an error. What that cannot see: a file
//! overwritten in place within one tick of its time stamp or with its time stamp put back, and a writer on another client
//! of a network file system whose attributes this machine still caches.
//!
//! Not here: what the bytes mean (`format`), which of them are wanted (`plan`, `reader`).

#![deny(clippy::disallowed_methods)]

mod error;
mod file;
mod identity;
mod links;
#[cfg(feature = "internals")]
mod memory;
#[cfg(test)]
mod tests;
mod consistent;

use std::time::SystemTime;

use crate::extent::ObjectId;

pub use error::StoreError;
pub use file::{FileStore, OpenFile};
pub use links::dangling_link;
#[cfg(feature = "internals")]
pub use memory::MemoryStore;
pub use consistent::{Reads, consistent};

/// One piece of a gathering read: `len` bytes from `from` in the object to `to` in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First byte in the object.
    pub from: u64,
    /// First byte in the buffer.
    pub to: usize,
    /// Number of bytes.
    pub len: usize,
}

/// Stored objects. Methods are called from many threads at once and hold no lock while they read.
pub trait Store: Send + Sync {
    /// What messages call the object: its path as the user gave it. Unknown objects get their number.
    fn name(&self, object: ObjectId) -> String;

    /// Size in bytes when the object was opened.
    ///
    /// # Errors
    /// [`StoreError::Unknown`]
    fn len(&self, object: ObjectId) -> Result<u64, StoreError>;

    /// Time of last change when the object was opened.
    ///
    /// # Errors
    /// [`StoreError::Unknown`]
    fn modified(&self, object: ObjectId) -> Result<SystemTime, StoreError>;

    /// Fills `out[run.to..run.to + run.len]` for each run and leaves the rest of `out` alone.
    ///
    /// # Errors
    /// [`StoreError::Changed`] when the object is no longer what was opened, [`StoreError::OutOfRange`] for a run outside
    /// the object or the buffer, [`StoreError::Unknown`], [`StoreError::Io`]. `out` then holds nothing of value.
    fn gather(&self, object: ObjectId, runs: &[Run], out: &mut [u8]) -> Result<(), StoreError>;

    /// How many of `len` bytes from `from` on the system holds in memory; `None` where that cannot be known.
    fn resident(&self, object: ObjectId, from: u64, len: u64) -> Option<u64> {
        let _ = (object, from, len);
        None
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// As [`Store::gather`].
    fn read_exact_at(&self, object: ObjectId, offset: u64, out: &mut [u8]) -> Result<(), StoreError> {
        let run = Run { from: offset, to: 0, len: out.len() };
        self.gather(object, &[run], out)
    }

    /// Fills `out` with the bytes from `offset` on, whatever became of the object since it was opened: they have no value until
    /// [`Store::check_unchanged`] agrees. For [`consistent`], which sees to it.
    ///
    /// # Errors
    /// As [`Store::gather`].
    fn read_unchecked(&self, object: ObjectId, offset: u64, out: &mut [u8]) -> Result<(), StoreError>;

    /// Whether the object is still what was opened.
    ///
    /// # Errors
    /// [`StoreError::Changed`] when not, [`StoreError::Unknown`], [`StoreError::Io`].
    fn check_unchanged(&self, object: ObjectId) -> Result<(), StoreError>;
}

/// Checks that every run lies inside an object of `size` bytes and a buffer of `room` bytes.
fn check_runs(runs: &[Run], size: u64, room: usize, name: impl Fn() -> String) -> Result<(), StoreError> {
    for run in runs {
        let inside = run.from.checked_add(run.len as u64).is_some_and(|end| end <= size);
        let fits = run.to.checked_add(run.len).is_some_and(|end| end <= room);
        if !inside || !fits {
            return Err(StoreError::OutOfRange { path: name(), from: run.from, len: run.len, size });
        }
    }
    Ok(())
}
