//! How much each view of a mount is used. A mount of many layouts has a counter for each that somebody opened.
//!
//! Not here: what the kernel asks beside it (`fuse`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::ViewStatus;

/// Views that are told apart, those that were opened first. Whoever collects figures keeps a series for each, for years.
const MOST_VIEWS: usize = 64;

/// What the others are called together.
const OTHERS: &str = "other";

/// What was done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It was opened.
    Open,
    /// So many bytes of it were handed to a reader.
    Read(u64),
}

/// How much one view is used.
#[derive(Debug, Default)]
pub(super) struct ViewUse {
    /// When it was first opened, among all views.
    turn: OnceLock<u64>,
    opens: AtomicU64,
    reads: AtomicU64,
    read_bytes: AtomicU64,
}

/// How much all of them are. What is counted stays, also of trees that are no longer there.
#[derive(Debug, Default)]
pub struct Usage {
    views: Mutex<BTreeMap<String, Arc<ViewUse>>>,
    opened: AtomicU64,
    source_bytes: Arc<AtomicU64>,
}

impl Usage {
    /// Bytes that were read from the source's files.
    #[must_use]
    pub fn source_bytes(&self) -> &Arc<AtomicU64> {
        &self.source_bytes
    }

    /// The counters of the view of this name: the same wherever in the tree it is.
    pub(super) fn of(&self, name: String) -> Arc<ViewUse> {
        Arc::clone(self.views.lock().entry(name).or_default())
    }

    /// Counts.
    pub(super) fn add(&self, view: &ViewUse, what: Use) {
        match what {
            Use::Open => {
                view.turn.get_or_init(|| self.opened.fetch_add(1, Relaxed));
                view.opens.fetch_add(1, Relaxed);
            }
            Use::Read(bytes) => {
                view.reads.fetch_add(1, Relaxed);
                view.read_bytes.fetch_add(bytes, Relaxed);
            }
        }
    }

    /// Those that were opened, in the order of that.
    pub(super) fn list(&self) -> Vec<ViewStatus> {
        let views = self.views.lock();
        let mut opened: Vec<_> =
            views.iter().filter_map(|(name, view)| Some((*view.turn.get()?, name, view))).collect();
        opened.sort_unstable_by_key(|(turn, ..)| *turn);
        let mut told: Vec<ViewStatus> = Vec::new();
        for (_, name, view) in opened {
            let name = if told.len() < MOST_VIEWS { name } else { OTHERS };
            let (opens, reads) = (view.opens.load(Relaxed), view.reads.load(Relaxed));
            let read_bytes = view.read_bytes.load(Relaxed);
            match told.get_mut(MOST_VIEWS) {
                Some(others) => {
                    others.opens += opens;
                    others.reads += reads;
                    others.read_bytes += read_bytes;
                }
                None => told.push(ViewStatus { view: name.to_owned(), opens, reads, read_bytes }),
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_told_apart_up_to_a_bound_and_stay_what_they_are() {
        let usage = Usage::default();
        let views: Vec<_> = (0..MOST_VIEWS + 3).map(|n| usage.of(format!("{n}"))).collect();
        assert!(usage.list().is_empty());
        // The last ones are opened first.
        for view in views.iter().rev() {
            usage.add(view, Use::Open);
            usage.add(view, Use::Read(5));
            usage.add(&usage.of("0".to_owned()), Use::Read(1));
        }
        let told = usage.list();
        assert_eq!((told.len(), &*told[0].view, &*told[MOST_VIEWS].view), (MOST_VIEWS + 1, "66", OTHERS));
        assert_eq!((told[0].opens, told[0].reads, told[0].read_bytes), (1, 1, 5));
        let others = &told[MOST_VIEWS];
        assert_eq!((others.opens, others.reads, others.read_bytes), (3, 3 + 67, 3 * 5 + 67));
    }
}
