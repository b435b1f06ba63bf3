//! Work on many files at the same time, so that slow storage is waited for once and not once per file.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::SourceError;

/// Files worked on at a time.
const WORKERS: usize = 16;

/// Does `work` for every item and returns the results in the order of the items; of several errors, that of the first item.
pub(super) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, SourceError> + Sync,
) -> Result<Vec<R>, SourceError> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(item)));
        }
    };
    let mut results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS.min(items.len())).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    if results.len() != items.len() {
        return Err(SourceError::Contents {
            file: "source".into(),
            what: "reading its files failed by a bug in ckpt-fs; the lines before say where".into(),
        });
    }
    results.into_iter().map(|(_, result)| result).collect()
}
