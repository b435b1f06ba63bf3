//! Objects that are local files: long runs by `pread`, short ones copied out of a guarded mapping.
//!
//! No hints to the kernel about how files will be read: each one measured slower than none.
//! Not here: the guard against files that shrink (`sys`), what tells a changed file (`identity`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::RwLock;
use rustix::fs::FileType;

use super::identity::{Identity, StatusTime};
use super::{Run, Store, StoreError, check_runs};
use crate::extent::ObjectId;
use crate::sys::mapping::{CopyError, Mapping, Piece};
use crate::sys::{limits, residency};

/// Runs from here on are read by `pread`: copying them from a mapping gains nothing, and a failing read is an ordinary
/// error.
const LONG_RUN: usize = 64 << 10;

/// A store of files on this machine, each opened once and kept open.
#[derive(Debug, Default)]
pub struct FileStore {
    sources: RwLock<Vec<Arc<Source>>>,
}

impl FileStore {
    /// An empty store. Raises the process's limit of open files as far as it goes.
    #[must_use]
    pub fn new() -> Self {
        limits::raise_open_files();
        Self::default()
    }

    /// Opens the file at `path` and gives it a number.
    ///
    /// # Errors
    /// As [`OpenFile::open`].
    pub fn add(&self, path: &Path) -> Result<ObjectId, StoreError> {
        self.take(OpenFile::open(path)?)
    }

    /// Gives an open file a number: the next one, so that files opened by many threads can be numbered in an order of their own.
    ///
    /// # Errors
    /// [`StoreError::TooManyFiles`] after 2^32 files.
    pub fn take(&self, file: OpenFile) -> Result<ObjectId, StoreError> {
        let mut sources = self.sources.write();
        let number = u32::try_from(sources.len())
            .map_err(|_| StoreError::TooManyFiles { path: file.0.name(), limit: u32::MAX.to_string() })?;
        sources.push(Arc::new(file.0));
        Ok(ObjectId(number))
    }

    pub(super) fn source(&self, object: ObjectId) -> Result<Arc<Source>, StoreError> {
        self.sources.read().get(object.0 as usize).cloned().ok_or(StoreError::Unknown(object))
    }
}

impl Store for FileStore {
    fn name(&self, object: ObjectId) -> String {
        match self.source(object) {
            Ok(source) => source.name(),
            Err(_) => object.to_string(),
        }
    }

    fn len(&self, object: ObjectId) -> Result<u64, StoreError> {
        Ok(self.source(object)?.identity.size)
    }

    fn modified(&self, object: ObjectId) -> Result<SystemTime, StoreError> {
        Ok(self.source(object)?.identity.modified())
    }

    fn gather(&self, object: ObjectId, runs: &[Run], out: &mut [u8]) -> Result<(), StoreError> {
        self.source(object)?.gather(runs, out)
    }

    fn resident(&self, object: ObjectId, from: u64, len: u64) -> Option<u64> {
        residency::resident(&self.source(object).ok()?.file, from, len)
    }

    fn read_unchecked(&self, object: ObjectId, offset: u64, out: &mut [u8]) -> Result<(), StoreError> {
        let source = self.source(object)?;
        let run = Run { from: offset, to: 0, len: out.len() };
        check_runs(&[run], source.identity.size, out.len(), || source.name())?;
        source.pread(&run, out)
    }

    fn check_unchanged(&self, object: ObjectId) -> Result<(), StoreError> {
        self.source(object)?.check_identity()
    }
}

/// A file that was opened and has no number yet.
#[derive(Debug)]
pub struct OpenFile(Source);

impl OpenFile {
    /// Opens the file at `path`. The identity of the file at this moment is what every later answer is held against.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Permission`], [`StoreError::NotARegularFile`],
    /// [`StoreError::TooManyFiles`], [`StoreError::Io`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Source::open(path).map(Self)
    }

    /// Where the file that was opened is, without links: also where the path leads elsewhere by now. Without `/proc`, where the path leads now.
    ///
    /// # Errors
    /// The path leads nowhere any more.
    pub fn place(&self) -> io::Result<PathBuf> {
        let by_number = std::fs::read_link(format!("/proc/self/fd/{}", self.0.file.as_raw_fd()));
        by_number.or_else(|_| self.0.absolute.canonicalize())
    }
}

/// One open file.
#[derive(Debug)]
pub(super) struct Source {
    /// As the user gave it, for messages.
    path: PathBuf,
    /// The same, good from any working directory.
    absolute: PathBuf,
    file: File,
    identity: Identity,
    pub(super) status_time: StatusTime,
    /// Made when first needed; `None` where the file cannot be mapped.
    mapping: OnceLock<Option<Mapping>>,
}

impl Source {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let explain = |source| StoreError::opening(path, source);
        // Looked at before it is opened: opening a device can do something, and a link may lead to one.
        let before = rustix::fs::stat(path).map_err(|error| explain(error.into()))?;
        check_regular(path, before.st_mode)?;
        // O_NONBLOCK: a pipe that took its place meanwhile is refused below instead of hanging the open.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
            .open(path)
            .map_err(explain)?;
        let stat = rustix::fs::fstat(&file).map_err(|error| explain(error.into()))?;
        check_regular(path, stat.st_mode)?;
        let absolute = std::path::absolute(path).map_err(explain)?;
        let (identity, status_time) = (Identity::of(&stat), StatusTime::of(&stat));
        Ok(Self { path: path.to_owned(), absolute, file, identity, status_time, mapping: OnceLock::new() })
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn gather(&self, runs: &[Run], out: &mut [u8]) -> Result<(), StoreError> {
        check_runs(runs, self.identity.size, out.len(), || self.name())?;
        self.check_identity()?;
        let filled = self.fill(runs, out);
        // Also when filling failed: what changed explains more than what it made fail.
        self.check_identity()?;
        filled
    }

    /// Whether the path still leads to the file that was opened, and it was not cut meanwhile.
    fn check_identity(&self) -> Result<(), StoreError> {
        match self.identity.change_at(&self.absolute) {
            Ok(None) => self.check_lost_pages(),
            Ok(Some(what)) => Err(self.changed(what)),
            Err(source) => Err(self.failed("examine", source)),
        }
    }

    /// A file that lost pages was cut, and given all back if it looks as before; or its storage failed, and may be well again.
    fn check_lost_pages(&self) -> Result<(), StoreError> {
        if !self.mapping.get().and_then(Option::as_ref).is_some_and(Mapping::is_poisoned) {
            return Ok(());
        }
        let now = rustix::fs::fstat(&self.file).map_err(|error| self.failed("examine", error.into()))?;
        if StatusTime::of(&now) == self.status_time {
            return Ok(());
        }
        Err(self.changed("pages of it were gone, and it was changed since it was opened".to_owned()))
    }

    fn fill(&self, runs: &[Run], out: &mut [u8]) -> Result<(), StoreError> {
        let is_short = |run: &&Run| run.len < LONG_RUN;
        // A single run is read. For a mapped page the kernel reads many around it, which for a header here and there, as when a source is
        // opened, is far more than anybody asked for.
        let maps = runs.len() > 1 && runs.iter().any(|run| is_short(&run));
        let is_copied = maps && self.copy_mapped(runs.iter().filter(is_short), out)?;
        for run in runs.iter().filter(|run| !is_copied || !is_short(run)) {
            self.pread(run, out)?;
        }
        Ok(())
    }

    /// Copies runs out of the mapping; false where there is none, or none any more: a page that could not be read takes the mapping away for
    /// good, and what is read from then on says itself what is wrong with it.
    fn copy_mapped<'r>(
        &self,
        runs: impl Iterator<Item = &'r Run>,
        out: &mut [u8],
    ) -> Result<bool, StoreError> {
        let Some(mapping) = self.mapping() else { return Ok(false) };
        match mapping.copy_pieces(runs.map(|run| Piece { from: run.from, to: run.to, len: run.len }), out) {
            Ok(()) => Ok(true),
            Err(CopyError::Poisoned) => Ok(false),
            Err(error @ CopyError::OutOfRange) => Err(self.failed("read", std::io::Error::other(error))),
        }
    }

    pub(super) fn mapping(&self) -> Option<&Mapping> {
        let map = || Mapping::new(&self.file, self.identity.size).ok();
        self.mapping.get_or_init(map).as_ref()
    }

    fn pread(&self, run: &Run, out: &mut [u8]) -> Result<(), StoreError> {
        let Some(target) = out.get_mut(run.to..run.to + run.len) else {
            let (path, size) = (self.name(), self.identity.size);
            return Err(StoreError::OutOfRange { path, from: run.from, len: run.len, size });
        };
        self.file.read_exact_at(target, run.from).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                self.changed(format!("it had {} bytes, now fewer", self.identity.size))
            }
            _ => self.failed("read", error),
        })
    }

    fn changed(&self, what: String) -> StoreError {
        StoreError::Changed { path: self.name(), what }
    }

    fn failed(&self, action: &'static str, why: std::io::Error) -> StoreError {
        StoreError::Io { path: self.name(), action, why }
    }
}

/// Refuses what is not a file of bytes that stay as they are.
fn check_regular(path: &Path, mode: rustix::fs::RawMode) -> Result<(), StoreError> {
    let what = match FileType::from_raw_mode(mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => "directory",
        FileType::Fifo => "pipe",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Socket => "socket",
        _ => "special file",
    };
    Err(StoreError::NotARegularFile { path: path.display().to_string(), what })
}
