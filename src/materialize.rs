//! Writes a view to disk: whole or not at all, with true checksums.
//!
//! Files are written to a directory beside the destination, synced, and renamed into place at the end. What a stopped run left there can be gone
//! on with, byte for byte compared. Not here: progress bars (`cli`).

#![deny(clippy::disallowed_methods)]

mod output;
mod resume;
mod staging;
mod write;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::parallel::{Failed, Pool, Signal};
use crate::reader::{CrcMode, ReadError, Reader};
use crate::view::{View, ViewError, ViewFile};
use staging::Staging;
use write::{Buffers, Writing};

/// What to write, and where.
#[derive(Debug)]
pub struct Job<'a> {
    /// The view.
    pub view: &'a dyn View,
    /// Reads its bytes.
    pub reader: &'a Reader,
    /// The directory to make.
    pub destination: &'a Path,
    /// Replace a destination that is not empty.
    pub overwrite: bool,
    /// Go on with what a run left behind that was stopped, and leave it behind again if this one is.
    pub resume: bool,
    /// Tensor-parallel ranks to write; all where `None`.
    pub tp_ranks: Option<BTreeSet<u32>>,
    /// Pipeline stages to write; all where `None`.
    pub pp_ranks: Option<BTreeSet<u32>>,
    /// Files written at the same time, at least 1.
    pub jobs: usize,
    /// What checksum fields hold that are not known before the bytes are.
    pub crc: CrcMode,
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
    #[error("{}: not empty; choose another directory, or pass --overwrite to replace it", .0.display())]
    NotEmpty(PathBuf),
    /// The destination holds what the job would not write again.
    #[error(
        "{}: also holds {}, which --overwrite would delete; choose another destination",
        .path.display(), few(.names)
    )]
    Foreign {
        /// The destination.
        path: PathBuf,
        /// Names in it.
        names: Vec<String>,
    },
    /// The destination is where another file system is mounted.
    #[error("{}: is a mount point, which cannot be replaced; choose a directory in it", .0.display())]
    MountPoint(PathBuf),
    /// A file that was written is gone or has another size.
    #[error("{}: is not what was written; does something else write to this directory?", .0.display())]
    Disturbed(PathBuf),
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
    /// A rank was asked for that the layout does not have.
    #[error("{what} {rank} was asked for, but this layout has 0 to {}", .size - 1)]
    NoRank {
        /// Which kind of rank.
        what: &'static str,
        /// The rank.
        rank: u32,
        /// How many there are.
        size: u32,
    },
    /// A file cannot be laid out.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The source cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The destination cannot be written.
    #[error("cannot {action} {}: {why}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What happened.
        why: io::Error,
    },
    /// Stopped from outside.
    #[error("stopped; nothing was written to the destination")]
    Stopped,
    /// Writing panicked.
    #[error(
        "writing failed by a bug in ckpt-fs; the lines before say where, and nothing was written to the destination"
    )]
    Bug,
}

/// A file of the view, and which one.
type Numbered<'a> = (usize, &'a ViewFile);

impl Job<'_> {
    /// Does the job. `sources` are the directories of the source, which are never written.
    ///
    /// # Errors
    /// [`MaterializeError`]: the destination is then as it was.
    pub fn run(&self, sources: &[PathBuf], hooks: &Hooks<'_>) -> Result<Written, MaterializeError> {
        let files = self.files()?;
        // Laid out before anything is written: what cannot be made is said now, and the size is known.
        let sizes: Vec<u64> = files
            .iter()
            .map(|(number, _)| Ok(self.view.plan(*number)?.plan.len()))
            .collect::<Result<_, ViewError>>()?;
        let bytes: u64 = sizes.iter().sum();
        let may_go = |path: &str| self.may_go(&files, path);
        let staging = Staging::prepare(self.destination, sources, self.overwrite, self.resume, &may_go)?;
        let there =
            resume::clean(staging.path(), &files.iter().map(|(_, file)| Path::new(&file.path)).collect())?;
        staging.check_space(bytes.saturating_sub(there))?;
        (hooks.total)(bytes);
        make_directories(&files, staging.path())?;
        self.write_all(&files, staging.path(), hooks)?;
        check_written(&files, &sizes, staging.path())?;
        staging.publish()?;
        Ok(Written { files: files.len(), bytes })
    }

    /// Whether a file of the destination may be replaced: it is written again, or it is a rank file of another layout of this iteration
    /// and the whole checkpoint is written.
    fn may_go(&self, files: &[Numbered<'_>], path: &str) -> bool {
        let is_whole = self.tp_ranks.is_none() && self.pp_ranks.is_none();
        files.iter().any(|(_, file)| file.path == path) || (is_whole && self.view.may_replace(path))
    }

    fn files(&self) -> Result<Vec<Numbered<'_>>, MaterializeError> {
        let layout = self.view.layout();
        let asked = [("TP rank", &self.tp_ranks, layout.tp), ("stage", &self.pp_ranks, layout.pp())];
        for (what, ranks, size) in asked {
            if let Some(rank) = ranks.iter().flatten().copied().find(|rank| *rank >= size) {
                return Err(MaterializeError::NoRank { what, rank, size });
            }
        }
        let wanted =
            |set: &Option<BTreeSet<u32>>, number: u32| set.as_ref().is_none_or(|set| set.contains(&number));
        let files = self.view.files().iter().enumerate();
        let files = files.filter(|(_, file)| {
            file.rank.is_none_or(|rank| wanted(&self.tp_ranks, rank.tp) && wanted(&self.pp_ranks, rank.pp))
        });
        Ok(files.collect())
    }

    /// Writes files, several at a time; the first error stops them all.
    fn write_all(
        &self,
        files: &[Numbered<'_>],
        into: &Path,
        hooks: &Hooks<'_>,
    ) -> Result<(), MaterializeError> {
        let pool = Pool::new(self.jobs).stopped_by(hooks.stop);
        let work = |buffers: &mut Buffers, (number, file): &Numbered<'_>, signal: &Signal<'_>| {
            let stop = || signal.says_stop();
            let writing =
                Writing { reader: self.reader, crc: self.crc, resume: self.resume, written: hooks.written, stop: &stop };
            writing.file(&self.view.plan(*number)?.plan, &into.join(&file.path), buffers)
        };
        match pool.map_with(files, Buffers::new, work) {
            Ok(_) => Ok(()),
            Err(Failed::Work(error)) => Err(error),
            Err(Failed::Stopped) => Err(MaterializeError::Stopped),
            Err(Failed::Panicked) => Err(MaterializeError::Bug),
        }
    }
}

/// Makes the directories of all files. None is made later: if the staging directory goes away, writing must fail.
fn make_directories(files: &[Numbered<'_>], into: &Path) -> Result<(), MaterializeError> {
    let directories: BTreeSet<&Path> = files
        .iter()
        .flat_map(|(_, file)| Path::new(&file.path).ancestors().skip(1))
        .filter(|p| *p != Path::new(""))
        .collect();
    for directory in directories {
        let path = into.join(directory);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What is about to be published is whole.
fn check_written(files: &[Numbered<'_>], sizes: &[u64], into: &Path) -> Result<(), MaterializeError> {
    for ((_, file), size) in files.iter().zip(sizes) {
        let path = into.join(&file.path);
        if fs::metadata(&path).map(|meta| meta.len()).ok() != Some(*size) {
            return Err(MaterializeError::Disturbed(path));
        }
    }
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MaterializeError + use<> {
    let path = path.to_owned();
    move |why| MaterializeError::Io { action, path, why }
}

/// A few of the names, for a message.
fn few(names: &[String]) -> String {
    const NAMED: usize = 5;
    let named = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED { format!("{named} and {} more", names.len() - NAMED) } else { named }
}
