//! One read buffer per thread, kept from request to request: nothing is allocated or cleared while reading.
//!
//! Not here: what fills it (`vfs`).

use std::cell::RefCell;

use crate::aligned::Aligned;

thread_local! {
    /// Replies that start on a page boundary reach the reader's pages in one copy per page instead of two.
    static BUFFER: RefCell<Aligned> = RefCell::default();
}

/// Calls `use_it` with `size` bytes of this thread's buffer; they hold whatever was there before.
#[expect(clippy::indexing_slicing, reason = "the buffer was made as long as that just now")]
pub(super) fn with_buffer<T>(size: usize, use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < size {
            // Replaced, not resized: the old bytes need not be copied.
            *buffer = Aligned::new(size);
        }
        use_it(&mut buffer[..size])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aligned::ALIGNMENT;

    #[test]
    fn buffers_are_aligned_and_reused() {
        for size in [0, 1, 4096, 1 << 20, 5, 1 << 20] {
            with_buffer(size, |buffer| {
                assert_eq!(buffer.len(), size);
                assert!(size == 0 || buffer.as_ptr().addr() % ALIGNMENT == 0);
                buffer.fill(7);
            });
        }
        with_buffer(1 << 20, |buffer| assert!(buffer.iter().all(|byte| *byte == 7)));
    }
}
