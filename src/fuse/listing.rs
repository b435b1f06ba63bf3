//! Open directories: each keeps the listing it was opened with, so that an offset means the same entry to the end.
//!
//! Not here: what a directory holds (`vfs`).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::FileHandle;
use parking_lot::RwLock;

use crate::vfs::{DirEntry, Ino, Kind, Tree, TreeError};

/// A directory's entries, `.` and `..` first.
#[derive(Debug)]
pub(super) struct Listing {
    entries: Vec<DirEntry>,
}

impl Listing {
    /// The entries of `ino` as they are now.
    ///
    /// # Errors
    /// [`TreeError::NotFound`], [`TreeError::NotDirectory`]
    pub(super) fn new(tree: &dyn Tree, ino: Ino) -> Result<Self, TreeError> {
        let listed = tree.list(ino)?;
        let dot = |ino, name: &str| DirEntry { ino, kind: Kind::Directory, name: name.to_owned() };
        let mut entries = Vec::with_capacity(listed.len() + 2);
        entries.push(dot(ino, "."));
        entries.push(dot(tree.parent(ino)?, ".."));
        entries.extend(listed);
        Ok(Self { entries })
    }

    /// The entries from `offset` on, each with the offset that follows it.
    pub(super) fn entries_from(&self, offset: u64) -> impl Iterator<Item = (u64, &DirEntry)> {
        // An offset that no listing has is behind its end.
        let rest =
            usize::try_from(offset).into_iter().flat_map(|start| self.entries.iter().enumerate().skip(start));
        rest.map(|(at, entry)| (at as u64 + 1, entry))
    }
}

/// The open directories of a mount.
#[derive(Debug, Default)]
pub(super) struct OpenDirectories {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<Listing>>>,
}

impl OpenDirectories {
    /// Keeps `listing` under a new handle.
    pub(super) fn add(&self, listing: Listing) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().insert(handle, Arc::new(listing));
        FileHandle(handle)
    }

    /// The listing under `handle`.
    pub(super) fn get(&self, handle: FileHandle) -> Option<Arc<Listing>> {
        self.open.read().get(&handle.0).cloned()
    }

    /// Forgets `handle`.
    pub(super) fn remove(&self, handle: FileHandle) {
        self.open.write().remove(&handle.0);
    }
}

/// `.` or `..` looked up by name, as re-exports over NFS do: the directory itself or the one above; `None` for real names.
pub(super) fn dot(tree: &dyn Tree, directory: Ino, name: &OsStr) -> Option<Result<Ino, TreeError>> {
    match name.as_encoded_bytes() {
        b"." => Some(Ok(directory)),
        b".." => Some(tree.parent(directory)),
        _ => None,
    }
}
