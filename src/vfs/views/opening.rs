//! How files are opened, and made ready to be opened fast.
//!
//! Not here: assembling (`backing`), who has them open (`open_files`).

use std::sync::Arc;

use super::{IoMode, NodeKind, Opened, Tree, TreeError, ViewFile, Views, Warmed};
use crate::cache::FileKey;
use crate::plan::FilePlan;
use crate::sys::memory_file::MemoryFile;
use crate::vfs::Ino;
use crate::vfs::backing;

/// Bytes after which somebody who waits for a file to be warm is told how far it is.
const WARM_STEP: usize = 64 << 20;

impl Views {
    /// Opens a file as [`Tree::open`] says.
    pub(super) fn open_file(&self, ino: Ino, passes: bool) -> Result<Opened, TreeError> {
        let mode = self.io_mode(ino)?;
        if mode == IoMode::Direct || !self.settings.cache.is_on() {
            return Ok(mode.into());
        }
        let node = self.node(ino)?;
        let NodeKind::File(file) = &node.kind else { return Err(TreeError::IsDirectory) };
        let plan = self.plan(ino, file)?;
        Ok(self.open_files.open(ino, || {
            let worth_it = || backing::is_in_memory(&plan, &**self.reader.store());
            let whole = passes.then(|| self.whole(ino, file, &plan, worth_it)).flatten();
            opened(whole)
        }))
    }

    /// Warms a file as [`Tree::warm`] says.
    pub(super) fn warm_file(&self, ino: Ino, passes: bool) -> Result<Warmed, TreeError> {
        let node = self.node(ino)?;
        let NodeKind::File(file) = &node.kind else { return Err(TreeError::IsDirectory) };
        let plan = self.plan(ino, file)?;
        if self.io_mode(ino)? == IoMode::Direct {
            return self.work.run(ino, plan.len(), |progress| {
                for at in (0..plan.len()).step_by(WARM_STEP) {
                    self.reader.warm(&plan, at..at + WARM_STEP as u64)?;
                    progress.add(WARM_STEP as u64);
                }
                Ok(Warmed::Source)
            });
        }
        // What is kept already stays: to let it go for this would make warming many files a circle.
        let has_room = || self.settings.cache.has_room(plan.len());
        let opened = self.open_files.open(ino, || {
            let whole = passes.then(|| self.whole(ino, file, &plan, has_room)).flatten();
            opened(whole)
        });
        self.open_files.close(ino);
        Ok(if matches!(opened, Opened::Whole(_)) { Warmed::Whole } else { Warmed::Nothing })
    }

    /// The file whole in memory: as it is kept, or assembled now if that is worth it.
    fn whole(
        &self,
        ino: Ino,
        file: &ViewFile,
        plan: &FilePlan,
        worth_it: impl FnOnce() -> bool,
    ) -> Option<Arc<MemoryFile>> {
        let (cache, key) = (&self.settings.cache, FileKey(ino.0));
        if !cache.could_keep(plan.len()) {
            return None;
        }
        // What is kept of a source that has changed since is what it was. Who opens it now is told by the reads.
        let kept = cache.file(key).filter(|_| self.reader.check(plan, 0..plan.len()).is_ok());
        kept.or_else(|| {
            let assemble =
                |progress: &_| backing::assemble(&self.reader, plan, &file.checksums, cache, key, progress);
            let promise = if worth_it() { self.promised.memory_for(plan.len()) } else { None };
            promise.and_then(|_promise| self.work.run(ino, plan.len(), assemble))
        })
    }
}

/// How a file is opened that may be there whole.
fn opened(whole: Option<Arc<MemoryFile>>) -> Opened {
    match whole {
        Some(file) => Opened::Whole(file),
        None => Opened::Cached,
    }
}
