//! The read-only tree without FUSE types: what a mount shows, testable without a kernel.
//!
//! Not here: errno, FUSE protocol (`fuse`); how bytes are found (`reader`); how files are laid out (`view`).

#![deny(clippy::disallowed_methods)]

mod figures;
mod file;
mod iterations;
mod messages;
mod open_files;
mod shape;
mod spelling;
mod status;
mod table;
mod usage;
mod views;
mod backing;
mod work;

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::reader::ReadError;
use crate::store::StoreError;
use crate::sys::memory_file::MemoryFile;
use crate::view::ViewError;

pub use iterations::{Found, Iterations, Saved, Say, Supply};
pub use messages::{Message, Messages, Severity};
pub use status::{
    Assembling, CacheStatus, Latency, LatencyBucket, MessageCounts, NotShown, RequestErrors, RunStatus, Status,
    ViewStatus, Warmed,
};
pub use shape::Shape;
pub use usage::{Usage, Use};
pub use views::{Settings, Views};

/// Number of a node; stable for one source and layout, also across mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory, as FUSE numbers it.
    pub const ROOT: Self = Self(1);
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link: another spelling of a name beside it.
    Link,
}

/// What `stat` tells about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    /// Its number.
    pub ino: Ino,
    /// File, directory or link.
    pub kind: Kind,
    /// Exact size in bytes; zero for directories. Of a link that of its target's name.
    pub size: u64,
    /// Hard links: one for files, two plus sub-directories for directories.
    pub links: u32,
    /// Time of the source it was made from.
    pub modified: SystemTime,
}

/// One line of a directory listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Number of the node.
    pub ino: Ino,
    /// File or directory.
    pub kind: Kind,
    /// Name within the directory.
    pub name: String,
}

/// How the kernel should treat reads of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoMode {
    /// Every read comes here; best for loaders that `read()`.
    Direct,
    /// The kernel keeps pages; best for loaders that map the file.
    Cached,
}

/// How a file was opened.
#[derive(Debug, Clone)]
pub enum Opened {
    /// Every read comes here.
    Direct,
    /// The kernel keeps pages.
    Cached,
    /// The kernel reads this file instead and asks no more.
    Whole(Arc<MemoryFile>),
}

impl From<IoMode> for Opened {
    fn from(mode: IoMode) -> Self {
        match mode {
            IoMode::Direct => Self::Direct,
            IoMode::Cached => Self::Cached,
        }
    }
}

/// Why an operation cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// No such node.
    #[error("no such file or directory")]
    NotFound,
    /// A file where a directory is needed.
    #[error("not a directory")]
    NotDirectory,
    /// A directory where a file is needed.
    #[error("is a directory")]
    IsDirectory,
    /// Bytes of a file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file could not be laid out.
    #[error("{0}")]
    View(Box<ViewError>),
    /// What a tree has only words for.
    #[error("{0}")]
    Io(String),
    /// A node of something that is gone, or that something else is in the place of. Why was said when that was noticed.
    #[error("it is gone, or another is in its place")]
    Stale,
}

impl From<ViewError> for TreeError {
    fn from(error: ViewError) -> Self {
        Self::View(Box::new(error))
    }
}

/// What an error comes down to, for those who can say no more than that.
#[derive(Debug)]
pub enum Cause<'a> {
    /// No such node, or a file of the source is not there.
    Missing,
    /// A file where a directory is needed.
    NotDirectory,
    /// A directory where a file is needed.
    IsDirectory,
    /// The source changed.
    Changed,
    /// The source may not be read.
    Denied,
    /// No more files may be open.
    TooManyFiles,
    /// What the system answered when the source was read.
    System(&'a io::Error),
    /// Something that no other program has a word for.
    Other,
}

impl TreeError {
    /// What it comes down to.
    #[must_use]
    pub fn cause(&self) -> Cause<'_> {
        match self {
            Self::NotFound => Cause::Missing,
            Self::NotDirectory => Cause::NotDirectory,
            Self::IsDirectory => Cause::IsDirectory,
            Self::Stale => Cause::Changed,
            Self::Read(ReadError::Store(error)) => match error {
                StoreError::NotFound { .. } | StoreError::Dangling { .. } => Cause::Missing,
                StoreError::Permission { .. } => Cause::Denied,
                StoreError::TooManyFiles { .. } => Cause::TooManyFiles,
                StoreError::Changed { .. } => Cause::Changed,
                StoreError::Io { why, .. } => Cause::System(why),
                StoreError::NotARegularFile { .. }
                | StoreError::OutOfRange { .. }
                | StoreError::Unknown(_) => Cause::Other,
            },
            Self::Read(ReadError::Plan(_)) | Self::View(_) | Self::Io(_) => Cause::Other,
        }
    }

    /// Whether it is an answer to what was asked, and nothing that went wrong.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::NotFound | Self::NotDirectory | Self::IsDirectory | Self::Stale)
    }
}

/// A read-only tree of directories and files. Methods are called from many threads at once.
pub trait Tree: Send + Sync + 'static {
    /// The entry `name` of directory `parent`.
    ///
    /// # Errors
    /// [`TreeError::NotFound`], [`TreeError::NotDirectory`], or what laying out a file ran into.
    fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Attr, TreeError>;

    /// Attributes of a node.
    ///
    /// # Errors
    /// [`TreeError::NotFound`], or what laying out a file ran into.
    fn attr(&self, ino: Ino) -> Result<Attr, TreeError>;

    /// Number of the directory that holds `ino` (the root holds itself).
    ///
    /// # Errors
    /// [`TreeError::NotFound`]
    fn parent(&self, ino: Ino) -> Result<Ino, TreeError>;

    /// Entries of a directory, without `.` and `..`, in an order that does not change while it is open.
    ///
    /// # Errors
    /// [`TreeError::NotFound`], [`TreeError::NotDirectory`]
    fn list(&self, ino: Ino) -> Result<Vec<DirEntry>, TreeError>;

    /// What link `ino` stands for, relative to the directory it is in; `None` for what is no link.
    ///
    /// # Errors
    /// [`TreeError::NotFound`]
    fn read_link(&self, ino: Ino) -> Result<Option<String>, TreeError> {
        self.attr(ino).map(|_| None)
    }

    /// Whether directory `ino` may get entries while it is mounted: its listing must then not be kept.
    fn grows(&self, ino: Ino) -> bool {
        let _ = ino;
        false
    }

    /// How long what is said of node `ino`, and that it has its name, may be taken for true; `None` for as long as it is mounted.
    fn holds_for(&self, ino: Ino) -> Option<Duration> {
        self.grows(ino).then_some(Duration::ZERO)
    }

    /// Whether a question about node `ino` may take as long as opening a checkpoint: others must not wait for it.
    fn takes_long(&self, ino: Ino) -> bool {
        let _ = ino;
        false
    }

    /// Bytes of all files, roughly and without laying anything out: what `df` shows.
    fn total_bytes(&self) -> u64;

    /// How reads of file `ino` are to be made.
    ///
    /// # Errors
    /// [`TreeError::NotFound`], [`TreeError::IsDirectory`]
    fn io_mode(&self, ino: Ino) -> Result<IoMode, TreeError>;

    /// Opens file `ino`. `passes` says whether the kernel takes a whole file ([`Opened::Whole`]); assembling one may take a while.
    ///
    /// # Errors
    /// As [`Tree::io_mode`].
    fn open(&self, ino: Ino, passes: bool) -> Result<Opened, TreeError> {
        let _ = passes;
        self.io_mode(ino).map(Opened::from)
    }

    /// Somebody has file `ino` open from now on, in whatever way: what it is made of must be kept.
    fn hold(&self, ino: Ino) {
        let _ = ino;
    }

    /// One of those who have it open is done with it.
    fn let_go(&self, ino: Ino) {
        let _ = ino;
    }

    /// One who opened file `ino` is done with it.
    fn close(&self, ino: Ino) {
        let _ = ino;
    }

    /// File `ino` was used: opened, or an answer of [`Tree::read`] handed to a reader.
    fn used(&self, ino: Ino, what: Use) {
        let _ = (ino, what);
    }

    /// Makes later reads of file `ino` fast, which takes as long as reading it. `passes` as for [`Tree::open`].
    ///
    /// # Errors
    /// As [`Tree::read`].
    fn warm(&self, ino: Ino, passes: bool) -> Result<Warmed, TreeError> {
        let _ = (ino, passes);
        Ok(Warmed::Nothing)
    }

    /// Figures of this moment.
    fn status(&self) -> Status {
        Status::default()
    }

    /// What it said lately, the oldest first.
    fn messages(&self) -> Vec<Message> {
        Vec::new()
    }

    /// Where the tensor ends that byte `offset` of file `ino` is in; `offset` itself where it is in none.
    fn tensor_end(&self, ino: Ino, offset: u64) -> u64 {
        let _ = ino;
        offset
    }

    /// Fails where bytes `range` of file `ino`, read earlier, could no longer be read now.
    ///
    /// # Errors
    /// As [`Tree::read`].
    fn unchanged(&self, ino: Ino, range: Range<u64>) -> Result<(), TreeError> {
        let _ = (ino, range);
        Ok(())
    }

    /// Fills `buffer` from byte `offset` on and returns how many bytes it got: fewer than asked for only at the end of the file.
    ///
    /// # Errors
    /// [`TreeError`]: the buffer then holds nothing of value.
    fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize, TreeError>;
}
