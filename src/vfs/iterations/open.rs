//! Opening iterations when they are entered, and closing those that were not used for longest.
//!
//! Not here: what is answered from them (`answers`).

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::instance::Instance;
use super::{Iterations, MOST_OPEN};
use crate::sys::memory;
use crate::vfs::{Cause, Ino, Tree, TreeError, Views};

/// Why an iteration is not open.
enum Failure {
    /// It is not as it was when it was first opened.
    Changed,
    /// It changes, or is not all there.
    Waiting(String),
    /// It is damaged, or of a kind that cannot be shown.
    Refused(u64, String),
}

impl Iterations {
    /// The tree of an iteration, opened if it is not.
    pub(super) fn views(&self, instance: &Arc<Instance>) -> Result<Arc<Views>, TreeError> {
        instance.used.store(self.now(), Relaxed);
        if let Some(views) = instance.opened() {
            return Ok(views);
        }
        // Who comes meanwhile waits for the one who opens it.
        let opening = instance.opening.lock();
        if let Some(views) = instance.opened() {
            return Ok(views);
        }
        if instance.is_retired() {
            return Err(TreeError::Stale);
        }
        let slot = self.opening.take();
        let opened = self.try_open(instance);
        if let Ok(opened) = &opened {
            instance.set(Some(Arc::clone(opened)));
        }
        drop((opening, slot));
        match opened {
            Ok(opened) => {
                self.known.write().prove(instance);
                self.say_news();
                self.open.lock().push(Arc::clone(instance));
                self.close_others(instance);
                // It went away meanwhile, and nobody will close it.
                if instance.is_retired() {
                    self.retire(instance);
                    return Err(TreeError::Stale);
                }
                Ok(opened)
            }
            Err(failure) => Err(self.failed(instance, failure)),
        }
    }

    /// Opens it, between two looks at its files that must find the same: what changes meanwhile would be a mixture.
    fn try_open(&self, instance: &Arc<Instance>) -> Result<Arc<Views>, Failure> {
        let name = &instance.name;
        let before = self.supply.examine(name).map_err(Failure::Waiting)?;
        if instance.stamp.get().is_some_and(|first| *first != before) {
            return Err(Failure::Changed);
        }
        let opened = self.supply.open(name, instance.root);
        let after = self.supply.examine(name).map_err(Failure::Waiting)?;
        if before != after {
            return Err(Failure::Waiting("its files change".to_owned()));
        }
        let views = opened.map_err(|why| Failure::Refused(before, why))?;
        // The first one stays; it was compared.
        let _ = instance.stamp.set(before);
        let _ = instance.bytes.set(views.total_bytes());
        Ok(Arc::new(views))
    }

    fn failed(&self, instance: &Arc<Instance>, failure: Failure) -> TreeError {
        let name = &instance.name;
        match failure {
            Failure::Changed => {
                self.replace(instance, "it was saved again");
                return TreeError::Stale;
            }
            Failure::Waiting(why) => {
                self.supply.doubt(name);
                self.known.write().wait(instance, why);
            }
            Failure::Refused(stamp, why) => {
                instance.refuse();
                self.known.write().refuse(instance, stamp, why);
            }
        }
        self.say_news();
        TreeError::NotFound
    }

    /// Closes those that were not used for longest, if there are too many and nobody has a file of them open.
    fn close_others(&self, newest: &Arc<Instance>) {
        let mut open = self.open.lock();
        let mut closed = false;
        while open.len() > MOST_OPEN {
            let idle = open.iter().enumerate().filter(|(_, other)| !other.is_held() && !Arc::ptr_eq(other, newest));
            let Some((place, _)) = idle.min_by_key(|(_, other)| other.used.load(Relaxed)) else { break };
            open.swap_remove(place).set(None);
            closed = true;
        }
        drop(open);
        if closed {
            memory::give_back();
        }
    }

    /// The iteration that node `ino` is in, and its tree, which has that node.
    pub(super) fn enter(&self, ino: Ino) -> Result<(Arc<Instance>, Arc<Views>), TreeError> {
        let instance = self.instance_of(ino)?;
        let views = self.views(&instance)?;
        if !views.has(ino) {
            self.find_again(&instance, &views, ino)?;
        }
        Ok((instance, views))
    }

    /// The iteration that node `ino` is in.
    pub(super) fn instance_of(&self, ino: Ino) -> Result<Arc<Instance>, TreeError> {
        self.records.read().get(ino).map(|record| Arc::clone(&record.instance)).ok_or(TreeError::Stale)
    }

    /// Goes the way to a node that was there before the iteration was closed.
    fn find_again(&self, instance: &Arc<Instance>, views: &Views, ino: Ino) -> Result<(), TreeError> {
        let path = self.records.read().path(ino).ok_or(TreeError::Stale)?;
        let mut at = instance.root;
        for name in &path {
            at = views.lookup(at, OsStr::new(&**name))?.ino;
        }
        if at == ino { Ok(()) } else { Err(TreeError::Stale) }
    }

    /// Notes what an answer says of the iteration that it is from.
    pub(super) fn noted<T>(&self, instance: &Instance, answer: Result<T, TreeError>) -> Result<T, TreeError> {
        if let Err(error) = &answer
            && matches!(error.cause(), Cause::Changed)
        {
            instance.suspect();
        }
        answer
    }
}
