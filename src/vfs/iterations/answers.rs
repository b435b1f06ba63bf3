//! What the tree of a run answers: its root by itself, everything else from the iteration that it is in.
//!
//! Not here: which iterations there are (`known`), opening them (`open`).

use std::ffi::OsStr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use super::instance::Instance;
use super::{Iterations, LATEST, LOOK, latest_ino};
use crate::vfs::figures::of_mount;
use crate::vfs::{
    Attr, DirEntry, Ino, IoMode, Kind, Message, Opened, Status, Tree, TreeError, Use, Views, Warmed,
};

impl Iterations {
    /// Puts a question about node `ino` to the iteration that it is in.
    fn ask<T>(
        &self,
        ino: Ino,
        question: impl FnOnce(&Arc<Instance>, &Views) -> Result<T, TreeError>,
    ) -> Result<T, TreeError> {
        let (instance, views) = self.enter(ino)?;
        self.noted(&instance, question(&instance, &views))
    }

    /// The same about a file.
    fn ask_file<T>(
        &self,
        ino: Ino,
        question: impl FnOnce(&Views) -> Result<T, TreeError>,
    ) -> Result<T, TreeError> {
        if ino == Ino::ROOT {
            return Err(TreeError::IsDirectory);
        }
        if ino == latest_ino() {
            // The kernel follows links by itself and never opens one.
            return Err(TreeError::NotFound);
        }
        self.ask(ino, |_, views| question(views))
    }

    fn record(&self, instance: &Arc<Instance>, parent: Ino, name: &str, ino: Ino) -> Result<(), TreeError> {
        let is_known = self.records.read().get(ino).is_some_and(|known| Arc::ptr_eq(&known.instance, instance));
        if is_known { Ok(()) } else { self.records.write().put(instance, parent, name, ino) }
    }

    /// The directory of an iteration, or the link to the newest.
    fn look_up_iteration(&self, name: &OsStr) -> Result<Attr, TreeError> {
        let name = name.to_str().ok_or(TreeError::NotFound)?;
        if name == LATEST {
            return self.latest_attr();
        }
        let instance = self.find(name)?;
        self.record(&instance, Ino::ROOT, name, instance.root)?;
        self.iteration_attr(&instance)
    }

    fn latest_attr(&self) -> Result<Attr, TreeError> {
        let target = self.latest().ok_or(TreeError::NotFound)?;
        let known = self.known.read();
        let modified = known.get(&target).map(|entry| entry.found.modified).ok_or(TreeError::NotFound)?;
        Ok(Attr { ino: latest_ino(), kind: Kind::Link, size: target.len() as u64, links: 1, modified })
    }

    /// Attributes of the directory of an iteration, which is not opened for them.
    fn iteration_attr(&self, instance: &Arc<Instance>) -> Result<Attr, TreeError> {
        if let Some(views) = instance.opened() {
            return views.attr(instance.root);
        }
        let known = self.known.read();
        let entry = known.get(&instance.name).filter(|entry| Arc::ptr_eq(&entry.instance, instance));
        let modified = entry.map(|entry| entry.found.modified).ok_or(TreeError::Stale)?;
        // One link: how many directories are in it is not known.
        Ok(Attr { ino: instance.root, kind: Kind::Directory, size: 0, links: 1, modified })
    }

    fn root_attr(&self) -> Attr {
        self.refresh();
        let known = self.known.read();
        let newest = known.shown().map(|(_, entry)| entry.found.modified).max();
        let modified = match newest {
            Some(newest) => newest,
            None => SystemTime::UNIX_EPOCH,
        };
        let links = 2 + known.shown().count().min(u32::MAX as usize - 2) as u32;
        Attr { ino: Ino::ROOT, kind: Kind::Directory, size: 0, links, modified }
    }

    fn list_iterations(&self) -> Result<Vec<DirEntry>, TreeError> {
        self.refresh();
        self.prove();
        let has_latest = self.latest().is_some();
        let shown: Vec<Arc<Instance>> =
            self.known.read().shown().map(|(_, entry)| Arc::clone(&entry.instance)).collect();
        let mut entries = Vec::with_capacity(shown.len() + 1);
        for instance in shown {
            self.record(&instance, Ino::ROOT, &instance.name, instance.root)?;
            entries.push(DirEntry { ino: instance.root, kind: Kind::Directory, name: instance.name.clone() });
        }
        if has_latest {
            entries.push(DirEntry { ino: latest_ino(), kind: Kind::Link, name: LATEST.to_owned() });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Whether `ino` is the directory of an iteration.
    fn is_iteration(&self, ino: Ino) -> bool {
        self.records.read().get(ino).is_some_and(|record| record.instance.root == ino)
    }
}

impl Tree for Iterations {
    fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Attr, TreeError> {
        if parent == Ino::ROOT {
            return self.look_up_iteration(name);
        }
        if parent == latest_ino() {
            return Err(TreeError::NotDirectory);
        }
        self.ask(parent, |instance, views| {
            let attr = views.lookup(parent, name)?;
            let name = name.to_str().ok_or(TreeError::NotFound)?;
            self.record(instance, parent, name, attr.ino)?;
            Ok(attr)
        })
    }

    fn attr(&self, ino: Ino) -> Result<Attr, TreeError> {
        if ino == Ino::ROOT {
            return Ok(self.root_attr());
        }
        if ino == latest_ino() {
            return self.latest_attr();
        }
        if self.is_iteration(ino) {
            return self.iteration_attr(&self.instance_of(ino)?);
        }
        self.ask(ino, |_, views| views.attr(ino))
    }

    fn parent(&self, ino: Ino) -> Result<Ino, TreeError> {
        if ino == Ino::ROOT || ino == latest_ino() {
            return Ok(Ino::ROOT);
        }
        self.records.read().get(ino).map(|record| record.parent).ok_or(TreeError::Stale)
    }

    fn list(&self, ino: Ino) -> Result<Vec<DirEntry>, TreeError> {
        if ino == Ino::ROOT {
            return self.list_iterations();
        }
        if ino == latest_ino() {
            return Err(TreeError::NotDirectory);
        }
        self.ask(ino, |instance, views| {
            let entries = views.list(ino)?;
            for entry in &entries {
                self.record(instance, ino, &entry.name, entry.ino)?;
            }
            Ok(entries)
        })
    }

    fn read_link(&self, ino: Ino) -> Result<Option<String>, TreeError> {
        if ino == Ino::ROOT {
            return Ok(None);
        }
        if ino == latest_ino() {
            return self.latest().map(Some).ok_or(TreeError::NotFound);
        }
        self.ask(ino, |_, views| views.read_link(ino))
    }

    /// The root does, and an iteration may be another one the next time.
    fn grows(&self, ino: Ino) -> bool {
        if ino == Ino::ROOT || ino == latest_ino() || self.is_iteration(ino) {
            return true;
        }
        match self.instance_of(ino).map(|instance| instance.opened()) {
            Ok(Some(views)) => views.grows(ino),
            Ok(None) | Err(_) => true,
        }
    }

    /// As long as what there is is not looked at again.
    fn holds_for(&self, ino: Ino) -> Option<Duration> {
        let is_top = ino == Ino::ROOT || ino == latest_ino() || self.is_iteration(ino);
        if is_top { Some(LOOK) } else { self.grows(ino).then_some(Duration::ZERO) }
    }

    fn takes_long(&self, ino: Ino) -> bool {
        ino == Ino::ROOT || self.instance_of(ino).is_ok_and(|instance| instance.opened().is_none())
    }

    /// As much for those that were not opened as for the others on average.
    fn total_bytes(&self) -> u64 {
        let known = self.known.read();
        let sizes = known.shown().map(|(_, entry)| entry.instance.bytes.get());
        let (mut sum, mut of, mut all) = (0u64, 0u64, 0u64);
        for bytes in sizes {
            all += 1;
            if let Some(bytes) = bytes {
                sum = sum.saturating_add(*bytes);
                of += 1;
            }
        }
        match sum.checked_div(of) {
            Some(mean) => mean.saturating_mul(all),
            None => 0,
        }
    }

    fn io_mode(&self, ino: Ino) -> Result<IoMode, TreeError> {
        self.ask_file(ino, |views| views.io_mode(ino))
    }

    fn open(&self, ino: Ino, passes: bool) -> Result<Opened, TreeError> {
        self.ask_file(ino, |views| views.open(ino, passes))
    }

    fn close(&self, ino: Ino) {
        if let Some(views) = self.instance_of(ino).ok().and_then(|instance| instance.opened()) {
            views.close(ino);
        }
    }

    fn hold(&self, ino: Ino) {
        if let Ok(instance) = self.instance_of(ino) {
            instance.held.fetch_add(1, Relaxed);
        }
    }

    fn let_go(&self, ino: Ino) {
        if let Ok(instance) = self.instance_of(ino) {
            instance.held.fetch_sub(1, Relaxed);
        }
    }

    fn warm(&self, ino: Ino, passes: bool) -> Result<Warmed, TreeError> {
        self.ask_file(ino, |views| views.warm(ino, passes))
    }

    fn messages(&self) -> Vec<Message> {
        self.messages.list()
    }

    fn used(&self, ino: Ino, what: Use) {
        if let Some(views) = self.instance_of(ino).ok().and_then(|instance| instance.opened()) {
            views.used(ino, what);
        }
    }

    fn status(&self) -> Status {
        let open = self.open.lock().clone();
        let assembling = open.iter().filter_map(|instance| instance.opened()).flat_map(|views| views.assembling());
        Status {
            view: format!("every iteration, each as {}", self.words),
            cache: self.cache.stats().into(),
            assembling: assembling.collect(),
            run: Some(self.run_status()),
            ..of_mount((self.since, self.started), &self.messages, &self.usage)
        }
    }

    fn tensor_end(&self, ino: Ino, offset: u64) -> u64 {
        match self.enter(ino) {
            Ok((_, views)) => views.tensor_end(ino, offset),
            Err(_) => offset,
        }
    }

    fn unchanged(&self, ino: Ino, range: Range<u64>) -> Result<(), TreeError> {
        self.ask_file(ino, |views| views.unchanged(ino, range))
    }

    fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize, TreeError> {
        self.ask_file(ino, |views| views.read(ino, offset, buffer))
    }
}
