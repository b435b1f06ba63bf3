//! Files that are assembled whole in memory and handed to the kernel, which then reads and maps them as fast as any other file.
//!
//! It pays for files that loaders map: each page they touch would otherwise be a request. It is done when such a file is opened, if the
//! source's bytes are in memory already, for then it takes a fraction of a second; where they are not, reads come one by one and bring them
//! into memory, and the next open finds them there.
//!
//! Not here: which files there are (`views`), who has them open (`open_files`).

use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use super::work::Progress;
use crate::cache::{Cache, FileKey};
use crate::parallel::{Pool, Signal};
use crate::plan::{FilePlan, Piece, Segment, Stripe};
use crate::reader::{Checksums, Reader};
use crate::store::Store;
use crate::sys::memory_file::{HUGE_PAGE, MemoryFile};
use crate::sys::memory_left::{self, Memory};

/// Threads that assemble one file. More do not copy faster.
const MOST_THREADS: usize = 4;

/// Share of the source's bytes that must be in memory, in percent.
const IN_MEMORY: u64 = 90;

/// Bytes after which a source that is not in memory is known to be none.
const ENOUGH: u64 = 64 << 20;

/// Whether the source's bytes of a file are in memory. What cannot be known counts as not.
pub(super) fn is_in_memory(plan: &FilePlan, store: &dyn Store) -> bool {
    let (mut asked, mut there) = (0u64, 0u64);
    for segment in plan.segments() {
        let Segment::Stripe(stripe) = segment else { continue };
        for piece in stripe.pieces() {
            let len = span(stripe, piece);
            let Some(resident) = store.resident(piece.object, piece.start, len) else { return false };
            asked += len;
            there += resident;
        }
        if asked > ENOUGH && there * 100 < asked * IN_MEMORY {
            return false;
        }
    }
    there * 100 >= asked * IN_MEMORY
}

/// Memory promised to files that are being assembled: what is enough for each of several that are opened at once may not be enough for all.
#[derive(Debug, Default)]
pub(super) struct Promised(Mutex<u64>);

/// So many bytes of it, taken back when dropped: the file is in memory then, or will never be.
#[derive(Debug)]
pub(super) struct Promise<'promised>(&'promised Promised, u64);

impl Promised {
    /// Promises so many bytes, if there is memory for them beside what was promised before, and as much for the readers that will hold them
    /// too.
    pub(super) fn memory_for(&self, bytes: u64) -> Option<Promise<'_>> {
        self.promise(bytes, memory_left::memory())
    }

    fn promise(&self, bytes: u64, memory: Option<Memory>) -> Option<Promise<'_>> {
        let mut promised = self.0.lock();
        let all = promised.saturating_add(bytes);
        if memory.is_some_and(|memory| all > memory.available / 2) {
            return None;
        }
        *promised = all;
        Some(Promise(self, bytes))
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        let mut promised = self.0.0.lock();
        *promised = promised.saturating_sub(self.1);
    }
}

/// Bytes from the first to the last one of a piece in all rows.
fn span(stripe: &Stripe, piece: &Piece) -> u64 {
    let rows = stripe.repeat().saturating_sub(1) * piece.step;
    let loops: u64 = piece.dims.iter().map(|dim| dim.count.saturating_sub(1) * dim.step).sum();
    rows + loops + piece.run
}

/// Assembles a file and keeps it as `key`. `None` where there is no room; errors are for those who read the file to meet.
pub(super) fn assemble(
    reader: &Reader,
    plan: &FilePlan,
    checksums: &Checksums,
    cache: &Cache,
    key: FileKey,
    progress: &Progress,
) -> Option<Arc<MemoryFile>> {
    let reserved = cache.new_file(plan.len())?;
    let file = reserved.file()?;
    let reader = reader.without_cache();
    // The kernel lets one thread at a time write to a file, and has the others spin. Here they sleep, and gather meanwhile.
    let writing = Mutex::new(());
    let blocks: Vec<u64> = (0..plan.len()).step_by(HUGE_PAGE).collect();
    let work = |block: &mut Vec<u8>, at: &u64, _: &Signal<'_>| {
        let read = reader.read(plan, checksums, *at, block).map_err(drop)?;
        let read = block.get(..read).ok_or(())?;
        let turn = writing.lock();
        file.write_at(*at, read).map_err(drop)?;
        drop(turn);
        progress.add(HUGE_PAGE as u64);
        Ok::<_, ()>(())
    };
    let threads = match thread::available_parallelism() {
        Ok(processors) => MOST_THREADS.min(processors.into()),
        Err(_) => 1,
    };
    let done = Pool::new(threads).map_with(&blocks, || vec![0; HUGE_PAGE], work);
    done.is_ok().then(|| reserved.keep(key)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_together_get_what_there_is_memory_for() {
        let promised = Promised::default();
        let memory = Some(Memory { limit: 1000, available: 100 });
        let first = promised.promise(20, memory).unwrap();
        let second = promised.promise(30, memory).unwrap();
        assert!(promised.promise(1, memory).is_none());
        drop(first);
        assert!(promised.promise(21, memory).is_none());
        let third = promised.promise(20, memory).unwrap();
        drop((second, third));
        assert!(promised.promise(50, memory).is_some());
        // Where the system does not say, the bound of the cache is all there is.
        assert!(promised.promise(u64::MAX, None).is_some());
    }
}
