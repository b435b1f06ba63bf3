//! A file mapped for reading, whose copies end in an error, not in a signal, when the file shrinks underneath.
//!
//! Bytes only leave as copies: no reference to mapped memory exists, because another process may change it at any time.
//! Not here: whether the file is still the one that was opened (`store`).
#![expect(unsafe_code, reason = "copies out of memory that other processes may change")]

use std::fs::File;
use std::io;
use std::ptr;
use std::sync::atomic::{Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

use super::fault::Guard;

/// Why bytes of a mapping could not be copied; what was written to the buffer has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// Pages of the file could not be read, now or earlier: it shrank, or its storage failed. Never heals.
    #[error("mapped pages of the file are gone")]
    Poisoned,
    /// The bytes asked for do not lie inside the mapping or do not fit the buffer.
    #[error("range outside the mapping or the buffer")]
    OutOfRange,
}

/// One copy: `len` bytes from `from` in the mapping to `to` in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// First byte in the mapping.
    pub from: u64,
    /// First byte in the buffer.
    pub to: usize,
    /// Number of bytes.
    pub len: usize,
}

/// The first bytes of a file, mapped read-only.
#[derive(Debug)]
pub struct Mapping {
    /// `None` for no bytes at all, which cannot be mapped.
    mapped: Option<Mapped>,
}

/// Fields drop in this order: unregistered before unmapped, so that the handler never touches memory of others.
#[derive(Debug)]
struct Mapped {
    guard: Guard,
    memory: MmapRaw,
}

impl Mapping {
    /// Maps the first `len` bytes of `file`.
    ///
    /// # Errors
    /// Whatever `mmap` answers (not every file system maps), or the fault handler could not be installed.
    pub fn new(file: &File, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        if len == 0 {
            return Ok(Self { mapped: None });
        }
        let memory = MmapOptions::new().len(len).map_raw_read_only(file)?;
        // SAFETY: `memory` maps `len` bytes from a page boundary (offset 0), is private to this struct, read only by
        // `copy_pieces` through raw pointers, and unmapped after the guard is gone (field order of `Mapped`).
        let guard = unsafe { Guard::new(memory.as_ptr() as usize, len)? };
        Ok(Self { mapped: Some(Mapped { guard, memory }) })
    }

    /// Number of mapped bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.mapped.as_ref().map_or(0, |mapped| mapped.memory.len() as u64)
    }

    /// Whether nothing is mapped.
    #[must_use]
    #[cfg(feature = "internals")]
    pub fn is_empty(&self) -> bool {
        self.mapped.is_none()
    }

    /// Whether pages were ever found missing; every copy fails from then on.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.mapped.as_ref().is_some_and(|mapped| mapped.guard.poisoned())
    }

    /// Fills `out` with the bytes from `from` on.
    ///
    /// # Errors
    /// [`CopyError`]; the buffer then holds nothing of value.
    #[cfg(feature = "internals")]
    pub fn copy(&self, from: u64, out: &mut [u8]) -> Result<(), CopyError> {
        let piece = Piece { from, to: 0, len: out.len() };
        self.copy_pieces([piece], out)
    }

    /// Makes many copies into one buffer, with one look at the mapping's health before and one after.
    ///
    /// # Errors
    /// [`CopyError`]; the buffer then holds nothing of value.
    pub fn copy_pieces<I>(&self, pieces: I, out: &mut [u8]) -> Result<(), CopyError>
    where
        I: IntoIterator<Item = Piece>,
    {
        self.check()?;
        for piece in pieces {
            let target = piece
                .to
                .checked_add(piece.len)
                .and_then(|end| out.get_mut(piece.to..end))
                .ok_or(CopyError::OutOfRange)?;
            self.copy_unchecked(piece.from, target)?;
        }
        // The copies' loads stay before the load of the mark (the reader's side of a sequence lock). The handler sets the
        // mark before it changes a page, so a copy that saw a changed page is followed by a load that sees the mark.
        fence(Ordering::Acquire);
        self.check()
    }

    fn check(&self) -> Result<(), CopyError> {
        if self.is_poisoned() { Err(CopyError::Poisoned) } else { Ok(()) }
    }

    /// Copies without looking at the mark.
    fn copy_unchecked(&self, from: u64, target: &mut [u8]) -> Result<(), CopyError> {
        let end = from.checked_add(target.len() as u64).ok_or(CopyError::OutOfRange)?;
        if end > self.len() {
            return Err(CopyError::OutOfRange);
        }
        let Some(mapped) = &self.mapped else { return Ok(()) };
        // SAFETY: `from..end` lies inside the mapping (just checked; `from` fits usize because the length does), which
        // stays mapped while `self` is borrowed: on a fault its pages are replaced, never removed. `target` is a live
        // exclusive buffer outside the mapping. Other processes may write the file meanwhile: bytes then mix old and
        // new, which is why they are copied by raw pointer, never borrowed, and why `store` checks the file's identity
        // after every answer.
        unsafe {
            let source = mapped.memory.as_ptr().add(from as usize);
            ptr::copy_nonoverlapping(source, target.as_mut_ptr(), target.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
