//! One iteration as it was found: another one of its name is another instance, with other numbers.
//!
//! Not here: when it is opened and closed (`open`).

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::{Found, LOOK, SHARE, TRY_AGAIN};
use crate::vfs::table::number;
use crate::vfs::{Ino, Views};

/// An iteration as it was found.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) name: String,
    /// Number of its directory, which all others in it are made of.
    pub(super) root: Ino,
    /// Its tree, while it is open.
    views: RwLock<Option<Arc<Views>>>,
    /// Held by the one who opens it.
    pub(super) opening: Mutex<()>,
    /// What was in it when it was first opened.
    pub(super) stamp: OnceLock<u64>,
    /// Bytes of its files, once it was open.
    pub(super) bytes: OnceLock<u64>,
    /// How many have files of it open.
    pub(super) held: AtomicU64,
    /// When it was used last, in uses of all.
    pub(super) used: AtomicU64,
    /// A read found that a file of it changed.
    suspect: AtomicBool,
    retired: AtomicBool,
    /// When its files are looked at again.
    next: Mutex<Option<Instant>>,
    /// When it could not be opened.
    refused: Mutex<Option<Instant>>,
}

impl Instance {
    /// The `generation`th of its name that this mount has seen.
    pub(super) fn new(found: &Found, generation: u64) -> Arc<Self> {
        let Found { name, place: (device, inode), .. } = found;
        Arc::new(Self {
            name: name.clone(),
            root: number(&format!("{name} {device} {inode} {generation}")),
            views: RwLock::default(),
            opening: Mutex::default(),
            stamp: OnceLock::new(),
            bytes: OnceLock::new(),
            held: AtomicU64::new(0),
            used: AtomicU64::new(0),
            suspect: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            next: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Relaxed);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }

    /// Something of it is not as it was.
    pub(super) fn suspect(&self) {
        self.suspect.store(true, Relaxed);
    }

    /// It cannot be opened.
    pub(super) fn refuse(&self) {
        *self.refused.lock() = Some(Instant::now());
    }

    /// Whether it was refused so long ago that the reason may have been one that passes.
    pub(super) fn may_be_tried_again(&self) -> bool {
        self.refused.lock().is_some_and(|since| since.elapsed() > TRY_AGAIN)
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.load(Relaxed) > 0
    }

    /// Its tree, if it is open.
    pub(super) fn opened(&self) -> Option<Arc<Views>> {
        self.views.read().clone()
    }

    /// It is open with this tree from now on, or closed.
    pub(super) fn set(&self, views: Option<Arc<Views>>) {
        *self.views.write() = views;
    }

    /// What changed in it since it was opened, as far as its files tell; they are looked at once in a while.
    pub(super) fn is_changed(&self) -> Option<String> {
        if self.suspect.load(Relaxed) {
            return Some("a file of it changed since it was opened".to_owned());
        }
        let views = self.opened()?;
        let mut next = self.next.try_lock()?;
        let began = Instant::now();
        if next.is_some_and(|next| began < next) {
            return None;
        }
        let problem = views.source_problem();
        let took: Duration = began.elapsed();
        *next = Some(Instant::now() + LOOK.max(took * SHARE * 2));
        problem
    }
}
