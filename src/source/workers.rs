//! Work on many files at the same time, so that slow storage is waited for once and not once per file.

use std::path::Path;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::SourceError;
use crate::extent::ObjectId;
use crate::parallel::{Failed, Pool};
use crate::store::{FileStore, OpenFile};

/// Files worked on at a time, so that a thousand take a few rounds. The work is waiting: with four times as many, opening a thousand files
/// was hardly faster on slow storage and a third slower on fast.
const WORKERS: usize = 256;

/// Ample for reading and decoding one file: nesting has limits of its own.
const STACK: usize = 2 << 20;

/// Does `work` for every item and returns the results in the order of the items; of several errors, that of the first item. Items behind
/// one that failed may be left alone.
pub(super) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, SourceError> + Sync,
) -> Result<Vec<R>, SourceError> {
    Pool::new(WORKERS).with_stack(STACK).map(items, work).map_err(|failed| match failed {
        Failed::Work(error) => error,
        // Nobody stops it.
        Failed::Stopped | Failed::Panicked => SourceError::Contents {
            file: "source".into(),
            what: "reading its files failed by a bug in ckpt-fs; the lines before say where".into(),
        },
    })
}

/// Leave to take apart a large piece of metadata, which takes a hundred times its size in memory: as many at a time as there are processors,
/// not as there are files. It is computing, so waiting for a turn costs no time.
#[derive(Debug)]
pub(super) struct Turn;

/// Turns taken, and what is told when one is free.
static TURNS: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Turn {
    /// Metadata below this is taken apart without a turn: that of most files is.
    const LARGE: u64 = 4 << 20;

    /// Waits for a turn where `bytes` are many. One thread must not take two.
    pub(super) fn for_bytes(bytes: u64) -> Option<Self> {
        if bytes < Self::LARGE {
            return None;
        }
        let most = thread::available_parallelism().map_or(1, Into::into);
        let (taken, free) = &TURNS;
        let mut taken = taken.lock();
        free.wait_while(&mut taken, |taken| *taken >= most);
        *taken += 1;
        Some(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (taken, free) = &TURNS;
        *taken.lock() -= 1;
        free.notify_one();
    }
}

/// Opens all files and numbers them in this order, whatever order they open in.
pub(super) fn open_all(
    paths: &[impl AsRef<Path> + Sync],
    store: &FileStore,
) -> Result<Vec<ObjectId>, SourceError> {
    let open = in_parallel(paths, |path| Ok(OpenFile::open(path.as_ref())?))?;
    open.into_iter().map(|file| Ok(store.take(file)?)).collect()
}
