//! What all targets share: memory that is counted, so that a bound on it is an assertion; families; files made of inputs.
//!
//! This is built twice: as a library for the fuzzer, and as a test of the main package, which gives every target its seeds (`seeds`).
//!
//! Not here: what is fuzzed (`targets`), where inputs come from (`seeds.py`, `scripts/fuzz`).

#![allow(unsafe_code, reason = "an allocator is unsafe to write")]
#![allow(clippy::expect_used, clippy::panic, reason = "a target fails by panicking")]

pub mod archive;
pub mod bundle;
pub mod checkpoint;
pub mod holed;
#[cfg(test)]
mod seeds;
pub mod targets;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ckpt_fs::family::Families;
use ckpt_fs::layout::Format;

/// The system's allocator, with a count.
struct Counting;

/// Bytes that are allocated, and the most there were since [`bounded`] last looked. Of all threads: sources are read by several.
static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

fn grow(bytes: usize) {
    MOST.fetch_max(NOW.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: every request goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps to the contract of the same method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks may be there for a moment.
        grow(size);
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// What `work` makes, if it never held more than `per_byte` bytes for each of `len` bytes of input, and `fixed` bytes beside.
///
/// A limit on the memory of the process would only find what takes gigabytes; this finds a length that is believed.
#[track_caller]
pub fn bounded<T>(len: usize, per_byte: usize, fixed: usize, work: impl FnOnce() -> T) -> T {
    // Made once, and not on the account of the first input.
    LazyLock::force(&FAMILIES);
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let made = work();
    let most = MOST.load(Relaxed).saturating_sub(before);
    let limit = len * per_byte + fixed;
    assert!(most <= limit, "{most} bytes of memory for {len} bytes of input, more than {limit}");
    made
}

/// The text that an input begins with.
#[must_use]
pub fn text(input: &[u8]) -> &str {
    match std::str::from_utf8(input) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&input[..error.valid_up_to()]).expect("up to there it is text"),
    }
}

/// The families that are built in, all of them read.
pub static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    let families = Families::default();
    for format in [Format::Megatron, Format::Hf, Format::Vllm, Format::Sglang] {
        families.of(format).for_each(drop);
    }
    families
});
