//! How much of a file is in the page cache.
//!
//! Not here: what follows from it (`vfs`).
#![expect(unsafe_code, reason = "a system call that has no wrapper yet")]

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::param::page_size;

/// Number of the system call on every architecture that Linux gained it on (6.5).
const CACHESTAT: libc::c_long = 451;

#[repr(C)]
struct Range {
    offset: u64,
    len: u64,
}

/// `struct cachestat` of `linux/mman.h`, in pages.
#[repr(C)]
#[derive(Default)]
struct Pages {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How many of `len` bytes from `from` on are in the page cache, in whole pages; `None` where the system does not say.
#[must_use]
pub fn resident(file: &File, from: u64, len: u64) -> Option<u64> {
    let range = Range { offset: from, len };
    let mut pages = Pages::default();
    // SAFETY: both structs are laid out as the kernel has them, live on this stack for the whole call, and the kernel writes no more than the
    // second one; a kernel without the call answers ENOSYS and touches neither.
    let answer = unsafe {
        libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut pages, 0 as libc::c_uint)
    };
    (answer == 0).then(|| (pages.cached * page_size() as u64).min(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_was_just_written_is_in_memory() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        // `None` on kernels without the call.
        for (from, len, expected) in [(0, 1 << 20, 1 << 20), (0, 5, 5), (1 << 20, 4096, 0)] {
            assert!(resident(&file, from, len).is_none_or(|bytes| bytes == expected), "{from} {len}");
        }
    }
}
