//! What was assembled and is kept for others, within a bound of memory; what was not used for longest gives way.
//!
//! Two things are kept: tiles of stripes whose runs are short, which are cheaper to copy than to gather again, and whole files in memory,
//! which the kernel can serve by itself. A tile is only kept when it is read for the second time: one reader that passes through a file, which
//! is what loading a checkpoint is, must not pay for keeping what nobody comes back to.
//!
//! Not here: how anything is assembled (`reader`, `vfs`). Holds its lock for a lookup, never while bytes move.

#![deny(clippy::disallowed_methods)]

mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::sys::memory_file::{MemoryFile, MemoryFiles};
use crate::sys::memory_left::{Memory, memory};
use state::{Kept, State};

/// The part of the memory there is that tiles leave to others, whatever the bound is: who fills a control group has somebody in it killed.
const LEFT_TO_OTHERS: u64 = 8;

/// Tiles after which it is asked again how much memory is left; that takes a little of the time that gathering one takes.
const ASK_EVERY: u64 = 8;

/// Bytes of a tile: as many as the kernel asks for at a time.
pub const TILE: u64 = 1 << 20;

/// Which tile of which stripe. Stripes are told apart by what they read, so that files that hold the same bytes share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TileKey {
    /// Which reader's: objects of two stores may have one number.
    pub reader: u64,
    /// Fingerprint of the stripe.
    pub stripe: [u8; 32],
    /// Number of the tile in it.
    pub tile: u64,
}

/// Which file, by a number that its user gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileKey(pub u64);

/// What became of a tile that was asked for.
#[derive(Debug)]
pub enum Lookup {
    /// Here it is.
    Kept(Arc<[u8]>),
    /// Not kept; it was read before, so it is worth keeping now.
    Wanted,
    /// Not kept, and not worth it yet.
    Passing,
}

/// Figures of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Most bytes it may hold.
    pub budget: u64,
    /// Bytes of tiles it holds.
    pub tile_bytes: u64,
    /// Tiles it holds.
    pub tiles: u64,
    /// Bytes of files it holds, with those that somebody still has mapped after they gave way.
    pub file_bytes: u64,
    /// Files it holds.
    pub files: u64,
    /// Tiles that were asked for and there, and opens of files that were there.
    pub hits: u64,
    /// Tiles that were asked for and not there, and opens of files that had to be assembled.
    pub misses: u64,
    /// Tiles and files that gave way.
    pub evicted: u64,
}

/// A bounded cache; see the module.
#[derive(Debug)]
pub struct Cache {
    state: Mutex<State>,
    /// Where whole files are kept; `None` where there is no way to.
    files: Option<MemoryFiles>,
    hits: AtomicU64,
    misses: AtomicU64,
    /// Tiles that were to be kept so far.
    offered: AtomicU64,
    is_memory_short: AtomicBool,
    /// Asks the system; tests ask nobody.
    memory: fn() -> Option<Memory>,
}

impl Cache {
    /// A cache of at most `budget` bytes, none of them used yet. With 0 it keeps nothing.
    #[must_use]
    pub fn new(budget: u64, files: Option<MemoryFiles>) -> Self {
        Self {
            state: Mutex::new(State::new(budget)),
            files,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            offered: AtomicU64::new(0),
            is_memory_short: AtomicBool::new(false),
            memory,
        }
    }

    /// Whether it can keep anything.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.state.lock().budget() > 0
    }

    /// Looks for a tile. `is_start` says that the reader is at its first byte: only that counts as having read it.
    #[must_use]
    pub fn tile(&self, key: TileKey, is_start: bool) -> Lookup {
        let mut state = self.state.lock();
        if let Some(tile) = state.tile(key) {
            drop(state);
            self.hits.fetch_add(1, Relaxed);
            return Lookup::Kept(tile);
        }
        let was_read = is_start && state.was_read(key);
        drop(state);
        self.misses.fetch_add(u64::from(is_start), Relaxed);
        if was_read { Lookup::Wanted } else { Lookup::Passing }
    }

    /// Keeps a tile if there is room or others can give way, and memory is not short.
    pub fn keep_tile(&self, key: TileKey, tile: Arc<[u8]>) {
        if self.is_memory_short() {
            return;
        }
        let aux_files = self.mapped_beside();
        self.state.lock().keep_tile(key, tile, aux_files);
    }

    fn is_memory_short(&self) -> bool {
        if self.offered.fetch_add(1, Relaxed).is_multiple_of(ASK_EVERY) {
            let is_short = (self.memory)().is_some_and(|left| left.available < left.limit / LEFT_TO_OTHERS);
            self.is_memory_short.store(is_short, Relaxed);
        }
        self.is_memory_short.load(Relaxed)
    }

    /// The file called `key`, if it is kept.
    #[must_use]
    pub fn file(&self, key: FileKey) -> Option<Arc<MemoryFile>> {
        let found = self.state.lock().file(key);
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.fetch_add(1, Relaxed);
        found
    }

    /// Whether a file of so many bytes could ever be kept.
    #[must_use]
    pub fn could_keep(&self, bytes: u64) -> bool {
        self.files.is_some() && bytes > 0 && bytes <= self.state.lock().budget()
    }

    /// Whether so many bytes fit beside what is kept.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        let aux_files = self.mapped_beside();
        self.state.lock().has_room(bytes, aux_files)
    }

    /// A new empty file of `bytes` bytes for which room was made; `None` where others are in use and cannot give way.
    #[must_use]
    pub fn new_file(&self, bytes: u64) -> Option<Reserved<'_>> {
        let files = self.files.as_ref()?;
        let aux_files = self.mapped_beside();
        if !self.state.lock().reserve(bytes, aux_files) {
            return None;
        }
        // Dropped on failure, which gives the room back.
        let mut reserved = Reserved { cache: self, bytes, file: None };
        reserved.file = files.create(bytes).ok();
        reserved.file.is_some().then_some(reserved)
    }

    /// Figures of this moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let aux_files = self.mapped_beside();
        let mut stats = self.state.lock().stats();
        stats.file_bytes += aux_files;
        Stats { hits: self.hits.load(Relaxed), misses: self.misses.load(Relaxed), ..stats }
    }

    /// Bytes of files that gave way and that somebody still has mapped: the system frees them only afterwards.
    fn mapped_beside(&self) -> u64 {
        let Some(files) = &self.files else { return 0 };
        files.used().saturating_sub(self.state.lock().file_bytes())
    }
}

/// Room for a file that is being assembled; given back when dropped before it is kept.
#[derive(Debug)]
pub struct Reserved<'cache> {
    cache: &'cache Cache,
    bytes: u64,
    file: Option<MemoryFile>,
}

impl Reserved<'_> {
    /// The file.
    #[must_use]
    pub fn file(&self) -> Option<&MemoryFile> {
        self.file.as_ref()
    }

    /// Keeps the file, which is whole now, as `key`.
    #[must_use]
    pub fn keep(mut self, key: FileKey) -> Option<Arc<MemoryFile>> {
        let file = Arc::new(self.file.take()?);
        self.cache.state.lock().keep(Kept::File { key, file: Arc::clone(&file), bytes: self.bytes });
        Some(file)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.cache.state.lock().unreserve(self.bytes);
    }
}
