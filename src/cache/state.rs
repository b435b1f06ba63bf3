//! What is kept and in which order it was used: the part behind the lock.
//!
//! Not here: counting of hits, making of files.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

use super::{FileKey, Stats, TILE, TileKey};
use crate::sys::memory_file::MemoryFile;

/// Most tiles that are remembered as read once; a few MB of names.
const MOST_REMEMBERED: u64 = 1 << 14;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Tile(TileKey),
    File(FileKey),
}

/// Something kept.
#[derive(Debug)]
pub(super) enum Kept {
    /// A tile, under its key.
    Tile(TileKey, Arc<[u8]>),
    /// A file.
    File {
        /// What it is called.
        key: FileKey,
        /// The file.
        file: Arc<MemoryFile>,
        /// Its size.
        bytes: u64,
    },
}

impl Kept {
    fn key(&self) -> Key {
        match self {
            Self::Tile(key, _) => Key::Tile(*key),
            Self::File { key, .. } => Key::File(*key),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Tile(_, tile) => tile.len() as u64,
            Self::File { bytes, .. } => *bytes,
        }
    }

    /// Whether it is in somebody's hands: letting go of it would free nothing.
    fn is_in_use(&self) -> bool {
        match self {
            Self::Tile(_, tile) => Arc::strong_count(tile) > 1,
            Self::File { file, .. } => Arc::strong_count(file) > 1,
        }
    }
}

#[derive(Debug)]
pub(super) struct State {
    budget: u64,
    kept: LruCache<Key, Kept>,
    tile_bytes: u64,
    file_bytes: u64,
    /// Room promised to files that are being assembled.
    reserved: u64,
    /// Tiles that were read once. As many as there would be room for: with what is read over and over in a circle larger than that, keeping
    /// would never pay.
    read_once: LruCache<TileKey, ()>,
    evicted: u64,
}

impl State {
    pub(super) fn new(budget: u64) -> Self {
        let more = (budget / TILE).clamp(1, MOST_REMEMBERED) - 1;
        let remembered = NonZeroUsize::MIN.saturating_add(more as usize);
        Self {
            budget,
            kept: LruCache::unbounded(),
            tile_bytes: 0,
            file_bytes: 0,
            reserved: 0,
            read_once: LruCache::new(remembered),
            evicted: 0,
        }
    }

    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    pub(super) fn file_bytes(&self) -> u64 {
        // What is being assembled is in memory too.
        self.file_bytes + self.reserved
    }

    pub(super) fn tile(&mut self, key: TileKey) -> Option<Arc<[u8]>> {
        match self.kept.get(&Key::Tile(key)) {
            Some(Kept::Tile(_, tile)) => Some(Arc::clone(tile)),
            _ => None,
        }
    }

    pub(super) fn file(&mut self, key: FileKey) -> Option<Arc<MemoryFile>> {
        match self.kept.get(&Key::File(key)) {
            Some(Kept::File { file, .. }) => Some(Arc::clone(file)),
            _ => None,
        }
    }

    /// Notes that a tile was read; says whether it had been before.
    pub(super) fn was_read(&mut self, key: TileKey) -> bool {
        self.budget >= TILE && self.read_once.put(key, ()).is_some()
    }

    pub(super) fn keep_tile(&mut self, key: TileKey, tile: Arc<[u8]>, aux_files: u64) {
        if self.make_room(tile.len() as u64, aux_files) {
            self.read_once.pop(&key);
            self.keep(Kept::Tile(key, tile));
        }
    }

    /// Keeps something for which there is room.
    pub(super) fn keep(&mut self, kept: Kept) {
        self.count(&kept, u64::saturating_add);
        if let Some(before) = self.kept.put(kept.key(), kept) {
            self.count(&before, u64::saturating_sub);
        }
    }

    pub(super) fn reserve(&mut self, bytes: u64, aux_files: u64) -> bool {
        let has_room = self.make_room(bytes, aux_files);
        if has_room {
            self.reserved += bytes;
        }
        has_room
    }

    pub(super) fn unreserve(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    pub(super) fn stats(&self) -> Stats {
        let files = self.kept.iter().filter(|(key, _)| matches!(key, Key::File(_))).count() as u64;
        Stats {
            budget: self.budget,
            tile_bytes: self.tile_bytes,
            tiles: self.kept.len() as u64 - files,
            file_bytes: self.file_bytes(),
            files,
            evicted: self.evicted,
            ..Stats::default()
        }
    }

    /// Whether `bytes` fit without anything giving way.
    pub(super) fn has_room(&self, bytes: u64, aux_files: u64) -> bool {
        self.tile_bytes + self.file_bytes() + aux_files + bytes <= self.budget
    }

    /// Lets the least used go until `bytes` fit, and nothing where they cannot. What is in use stays; `beside` is memory that others hold.
    fn make_room(&mut self, bytes: u64, aux_files: u64) -> bool {
        if self.has_room(bytes, aux_files) {
            return true;
        }
        let Some(most) = self.budget.checked_sub(bytes) else { return false };
        let held = |state: &Self| state.tile_bytes + state.file_bytes() + aux_files;
        let in_use = self.kept.iter().map(|(_, kept)| kept).filter(|kept| kept.is_in_use());
        if in_use.map(Kept::bytes).sum::<u64>() + self.reserved + aux_files > most {
            return false;
        }
        let mut in_use = Vec::new();
        while held(self) + in_use.iter().map(Kept::bytes).sum::<u64>() > most {
            let Some((_, kept)) = self.kept.pop_lru() else { break };
            self.count(&kept, u64::saturating_sub);
            if kept.is_in_use() {
                in_use.push(kept);
            } else {
                self.evicted += 1;
            }
        }
        in_use.into_iter().for_each(|kept| self.keep(kept));
        true
    }

    fn count(&mut self, kept: &Kept, change: fn(u64, u64) -> u64) {
        let count = match kept {
            Kept::Tile(..) => &mut self.tile_bytes,
            Kept::File { .. } => &mut self.file_bytes,
        };
        *count = change(*count, kept.bytes());
    }
}
