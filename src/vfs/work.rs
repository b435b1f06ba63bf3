//! Long work under way on files, for those who want to see how far it is.
//!
//! Not here: the work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::{Assembling, Ino};

/// How far the work on one file is.
#[derive(Debug)]
pub(super) struct Progress {
    ino: Ino,
    done: AtomicU64,
    total: u64,
}

impl Progress {
    /// So many bytes more are done.
    pub(super) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Work {
    running: Mutex<Vec<Arc<Progress>>>,
}

impl Work {
    /// Does `work` of `total` bytes on a file, seen by others meanwhile.
    pub(super) fn run<T>(&self, ino: Ino, total: u64, work: impl FnOnce(&Progress) -> T) -> T {
        let progress = Arc::new(Progress { ino, done: AtomicU64::new(0), total });
        self.running.lock().push(Arc::clone(&progress));
        let ended = Ended { work: self, progress };
        work(&ended.progress)
    }

    /// What is under way now.
    pub(super) fn list(&self) -> Vec<Assembling> {
        let running = self.running.lock();
        let each = running.iter().map(|progress| Assembling {
            inode: progress.ino.0,
            done: progress.done.load(Relaxed).min(progress.total),
            total: progress.total,
        });
        each.collect()
    }
}

/// Takes the work off the list, however it ends.
struct Ended<'work> {
    work: &'work Work,
    progress: Arc<Progress>,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.work.running.lock().retain(|progress| !Arc::ptr_eq(progress, &self.progress));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_listed_while_it_runs() {
        let work = Work::default();
        work.run(Ino(3), 10, |progress| {
            progress.add(4);
            assert_eq!(work.list(), [Assembling { inode: 3, done: 4, total: 10 }]);
            progress.add(7);
            assert_eq!(work.list(), [Assembling { inode: 3, done: 10, total: 10 }]);
        });
        assert!(work.list().is_empty());
    }
}
