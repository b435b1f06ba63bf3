//! Writes a view to disk: whole or not at all, with true checksums.
//!
//! Files are written to a directory beside the destination, synced, and renamed into place at the end. Not here: progress bars (`cli`).

mod staging;
mod write;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use crate::reader::{ReadError, Reader};
use crate::view::ViewError;
use crate::view::megatron::{FileKind, MegatronView, ViewFile};
use staging::Staging;

/// What to write, and where.
#[derive(Debug)]
pub struct Job<'a> {
    /// The view.
    pub view: &'a MegatronView,
    /// Reads its bytes.
    pub reader: &'a Reader,
    /// The directory to make.
    pub destination: &'a Path,
    /// Replace a destination that is not empty.
    pub overwrite: bool,
    /// Tensor-parallel ranks to write; all where `None`.
    pub tp_ranks: Option<BTreeSet<u32>>,
    /// Pipeline stages to write; all where `None`.
    pub pp_ranks: Option<BTreeSet<u32>>,
    /// Files written at the same time, at least 1.
    pub jobs: usize,
}

/// How the outside follows and stops a job.
pub struct Hooks<'a> {
    /// Told once how many bytes there will be.
    pub total: &'a (dyn Fn(u64) + Sync),
    /// Told of bytes as they are written.
    pub written: &'a (dyn Fn(u64) + Sync),
    /// Set from outside to stop.
    pub stop: &'a AtomicBool,
}

impl std::fmt::Debug for Hooks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Files.
    pub files: usize,
    /// Bytes.
    pub bytes: u64,
}

/// Why a view is not on disk now. The destination is what it was before.
#[derive(Debug, thiserror::Error)]
pub enum MaterializeError {
    /// The destination is not empty.
    #[error("{}: not empty; pass --overwrite to replace it", .0.display())]
    NotEmpty(PathBuf),
    /// The destination is no directory.
    #[error("{}: exists and is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// The destination is the source, holds it, or lies in it.
    #[error("{}: is or overlaps the source, which is never written", .0.display())]
    IsSource(PathBuf),
    /// Not enough room.
    #[error("{}: needs {need} bytes, {free} are free", .path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Bytes of the view.
        need: u64,
        /// Bytes free for us.
        free: u64,
    },
    /// No rank is left to write.
    #[error("none of the ranks asked for is in this layout (TP ranks 0 to {}, stages 0 to {})", .tp - 1, .pp - 1)]
    NoRanks {
        /// Tensor-parallel size.
        tp: u32,
        /// Number of stages.
        pp: u32,
    },
    /// A file cannot be laid out.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The source cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The destination cannot be written.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Stopped from outside.
    #[error("stopped; nothing was written to the destination")]
    Stopped,
}

impl Job<'_> {
    /// Does the job. `source` is the directory of the source, which is never written.
    ///
    /// # Errors
    /// [`MaterializeError`]: the destination is then as it was.
    pub fn run(&self, source: &Path, hooks: &Hooks<'_>) -> Result<Written, MaterializeError> {
        let files = self.files()?;
        // Laid out before anything is written: what cannot be made is said now, and the size is known.
        let mut bytes = 0;
        for file in &files {
            bytes += self.view.plan(file.kind)?.plan.len();
        }
        let staging = Staging::prepare(self.destination, source, self.overwrite)?;
        staging.check_space(bytes)?;
        (hooks.total)(bytes);
        self.write_all(&files, staging.path(), hooks)?;
        staging.publish()?;
        Ok(Written { files: files.len(), bytes })
    }

    fn files(&self) -> Result<Vec<ViewFile>, MaterializeError> {
        let wanted =
            |set: &Option<BTreeSet<u32>>, number: u32| set.as_ref().is_none_or(|set| set.contains(&number));
        let mut files = self.view.files();
        files.retain(|file| match file.kind {
            FileKind::Rank(rank) => wanted(&self.tp_ranks, rank.tp) && wanted(&self.pp_ranks, rank.pp),
            FileKind::Tracker => true,
        });
        if files.iter().any(|file| file.kind != FileKind::Tracker) {
            return Ok(files);
        }
        let layout = self.view.layout();
        Err(MaterializeError::NoRanks { tp: layout.tp, pp: layout.pp() })
    }

    /// Writes files, several at a time; the first error stops them all.
    fn write_all(&self, files: &[ViewFile], into: &Path, hooks: &Hooks<'_>) -> Result<(), MaterializeError> {
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let error = Mutex::new(None);
        let work = || {
            let stop = || failed.load(Ordering::Relaxed) || hooks.stop.load(Ordering::Relaxed);
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                let result = self.write_one(file, into, hooks, &stop);
                if let Err(problem) = result {
                    failed.store(true, Ordering::Relaxed);
                    error.lock().get_or_insert(problem);
                    return;
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.jobs.min(files.len()) {
                scope.spawn(work);
            }
            work();
        });
        error.into_inner().map_or(Ok(()), Err)
    }

    fn write_one(
        &self,
        file: &ViewFile,
        into: &Path,
        hooks: &Hooks<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), MaterializeError> {
        let plan = self.view.plan(file.kind)?.plan;
        write::file(&plan, self.reader, &into.join(&file.path), hooks.written, stop)
    }
}
