//! Memory that starts on a page boundary, as direct I/O asks for.
//!
//! Not here: what is read into it, and how long it is kept.

#![deny(clippy::disallowed_methods)]

use std::ops::{Deref, DerefMut};

/// What a buffer's address is a multiple of: the size of a page, and no file system asks for more.
pub const ALIGNMENT: usize = 4096;

/// Bytes that start on a boundary of [`ALIGNMENT`].
#[derive(Debug, Default)]
pub struct Aligned {
    /// Somewhat longer than asked for. Never grows, so that its address stays.
    room: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// So many zeros.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let room = vec![0; len + ALIGNMENT];
        // Zero where the address cannot be aligned: the buffer then merely starts off a boundary.
        let start = Some(room.as_ptr().align_offset(ALIGNMENT)).filter(|start| *start < ALIGNMENT);
        #[expect(
            clippy::disallowed_methods,
            reason = "an address that cannot be aligned costs a copy, no byte"
        )]
        let start = start.unwrap_or(0);
        Self { room, start, len }
    }
}

impl Deref for Aligned {
    type Target = [u8];

    #[expect(
        clippy::indexing_slicing,
        reason = "the room is ALIGNMENT longer than `len`, and starts below it"
    )]
    fn deref(&self) -> &[u8] {
        &self.room[self.start..self.start + self.len]
    }
}

impl DerefMut for Aligned {
    #[expect(
        clippy::indexing_slicing,
        reason = "the room is ALIGNMENT longer than `len`, and starts below it"
    )]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_start_on_a_boundary_wherever_they_are_moved() {
        for len in [0, 1, 4096, 5000, 1 << 20] {
            let mut buffer = Aligned::new(len);
            assert_eq!(buffer.as_ptr().addr() % ALIGNMENT, 0);
            assert_eq!(*buffer, vec![0; len]);
            buffer.fill(7);
            let moved = Box::new(buffer);
            assert_eq!(moved.as_ptr().addr() % ALIGNMENT, 0);
            assert_eq!(**moved, vec![7; len]);
        }
    }
}
