//! One read buffer per thread, kept from request to request: nothing is allocated or cleared while reading.
//!
//! Not here: what fills it (`vfs`).

use std::cell::RefCell;

/// Replies that start on a page boundary reach the reader's pages in one copy per page instead of two.
const ALIGNMENT: usize = 4096;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls `use_it` with `size` bytes of this thread's buffer; they hold whatever was there before.
pub(super) fn with_buffer<T>(size: usize, use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        let room = size + ALIGNMENT;
        if buffer.len() < room {
            // Replaced, not resized: the old bytes need not be copied.
            *buffer = vec![0; room];
        }
        // Zero where the address cannot be aligned: the buffer then merely starts off a boundary.
        let start =
            Some(buffer.as_ptr().align_offset(ALIGNMENT)).filter(|start| *start < ALIGNMENT).unwrap_or(0);
        use_it(&mut buffer[start..start + size])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_reused() {
        for size in [0, 1, 4096, 1 << 20, 5, 1 << 20] {
            with_buffer(size, |buffer| {
                assert_eq!(buffer.len(), size);
                assert_eq!(buffer.as_ptr().addr() % ALIGNMENT, 0);
                buffer.fill(7);
            });
        }
        with_buffer(1 << 20, |buffer| assert!(buffer.iter().all(|byte| *byte == 7)));
    }
}
