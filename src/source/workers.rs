//! Work on many files at the same time, so that slow storage is waited for once and not once per file.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::SourceError;
use crate::extent::ObjectId;
use crate::store::{FileStore, OpenFile};

/// Files worked on at a time, so that a thousand take a few rounds. The work is waiting: with four times as many, opening a thousand files
/// was hardly faster on slow storage and a third slower on fast.
const WORKERS: usize = 256;

/// Ample for reading and decoding one file: nesting has limits of its own.
const STACK: usize = 2 << 20;

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
        // Where the system gives no more threads, those that there are do all of it.
        let start = |_| thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run).ok();
        let threads: Vec<_> = (0..WORKERS.min(items.len())).map_while(start).collect();
        let own = if threads.is_empty() { run() } else { Vec::new() };
        let done = threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default());
        done.chain(own).collect()
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

/// Opens all files and numbers them in this order, whatever order they open in.
pub(super) fn open_all(
    paths: &[impl AsRef<Path> + Sync],
    store: &FileStore,
) -> Result<Vec<ObjectId>, SourceError> {
    let open = in_parallel(paths, |path| Ok(OpenFile::open(path.as_ref())?))?;
    open.into_iter().map(|file| Ok(store.take(file)?)).collect()
}
