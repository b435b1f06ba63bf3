//! What opening a source takes: an allocator that counts, and runs of the library that are held against a bound.

#![allow(unsafe_code, reason = "an allocator is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ckpt_fs::family::Families;
use ckpt_fs::source::{Options, open};
use ckpt_fs::store::FileStore;
use parking_lot::{Mutex, MutexGuard};
use tempfile::TempDir;

use crate::common::source::{Checkpoint, rank_file};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is done by the system's allocator; the counters never touch what it gives out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Tests that measure, and those that take much memory, run one at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock()
}

/// No attack is worth more, in a build without optimization beside other tests.
const LONGEST: Duration = Duration::from_secs(60);

/// What `work` came to, within `most` bytes of memory at a time and bounded time.
#[track_caller]
pub(crate) fn within<T: std::fmt::Debug>(most: usize, work: impl FnOnce() -> T) -> T {
    let (start, before) = (Instant::now(), NOW.load(Relaxed));
    PEAK.store(before, Relaxed);
    let outcome = work();
    let (took, peak) = (start.elapsed(), PEAK.load(Relaxed).saturating_sub(before));
    if std::env::var_os("HOSTILE_SHOW").is_some() {
        eprintln!("{} MB, {took:?}: {outcome:.300?}", peak >> 20);
    }
    assert!(peak <= most, "{} MB of memory, more than {}: {outcome:.300?}", peak >> 20, most >> 20);
    assert!(took < LONGEST, "{took:?}: {outcome:.300?}");
    outcome
}

/// What opening the source by the library came to, within the same bounds.
#[track_caller]
pub(crate) fn opened_within(root: &Path, most: usize) -> Result<(), String> {
    let families = Families::default();
    let options = Options { families, ..Options::default() };
    within(most, || open(root, &options, &FileStore::new()).map(drop).map_err(|error| error.to_string()))
}

/// The small checkpoint as one rank, to be spoiled.
pub(crate) struct Victim {
    pub(crate) dir: TempDir,
}

impl Victim {
    pub(crate) fn new() -> Self {
        Self::of(&Checkpoint::small_as(1, &[4]))
    }

    pub(crate) fn of(checkpoint: &Checkpoint) -> Self {
        let dir = tempfile::tempdir().unwrap();
        checkpoint.write(&dir.path().join("src"));
        Self { dir }
    }

    /// With these bytes for its rank file.
    pub(crate) fn with_file(bytes: &[u8]) -> Self {
        let victim = Self::new();
        std::fs::write(victim.file(), bytes).unwrap();
        victim
    }

    pub(crate) fn src(&self) -> PathBuf {
        self.dir.path().join("src")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn file(&self) -> PathBuf {
        rank_file(&self.src(), "mp_rank_00")
    }

    /// Refused by the library with these words and the name of the file.
    #[track_caller]
    pub(crate) fn refused(&self, most: usize, words: &[&str]) {
        let error = opened_within(&self.src(), most).expect_err("it was opened");
        for word in words.iter().chain(&["mp_rank_00/model_optim_rng.pt"]) {
            assert!(error.contains(word), "'{word}' is missing in: {error:.2000}");
        }
    }
}

/// As many bytes.
pub(crate) const MB: usize = 1 << 20;
