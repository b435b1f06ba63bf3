//! Why bytes of an object cannot be had: one variant per thing the user can do about it.
//!
//! Not here: errno (`fuse`).

use std::io;
use std::path::Path;

use super::links::dangling_link;
use crate::extent::ObjectId;
use crate::sys::limits;

/// Why an object cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such file.
    #[error("{path}: no such file; is the checkpoint complete?")]
    NotFound {
        /// The file.
        path: String,
    },
    /// A link that leads nowhere in its place.
    #[error("{path}: {what}")]
    Dangling {
        /// The file.
        path: String,
        /// Which link, and where to.
        what: String,
    },
    /// The file may not be read by this user.
    #[error("{path}: permission denied; run as a user who may read the checkpoint")]
    Permission {
        /// The file.
        path: String,
    },
    /// A directory, a device or a pipe in place of a file.
    #[error("{path}: is a {what}, not a regular file")]
    NotARegularFile {
        /// The path.
        path: String,
        /// What is there.
        what: &'static str,
    },
    /// The process may not open more files.
    #[error("{path}: too many open files (limit {limit}); raise it with `ulimit -n` or LimitNOFILE=")]
    TooManyFiles {
        /// The file that was one too many.
        path: String,
        /// The limit that was met.
        limit: String,
    },
    /// The file is no longer the one that was opened; nothing read from it can be trusted.
    #[error("{path}: changed since it was opened ({what}); restore it, or unmount and mount again")]
    Changed {
        /// The file.
        path: String,
        /// What was noticed.
        what: String,
    },
    /// A read outside the object or the buffer: a mistake in what asked, not in the file.
    #[error(
        "{path}: read of {len} bytes at {from} does not fit the file ({size} bytes) or the buffer; this is a bug"
    )]
    OutOfRange {
        /// The file.
        path: String,
        /// First byte asked for.
        from: u64,
        /// Number of bytes asked for.
        len: usize,
        /// Size of the file.
        size: u64,
    },
    /// A number that this store never gave out: a mistake in what asked.
    #[error("{0} is not in this store; this is a bug")]
    Unknown(ObjectId),
    /// The system could not read the file.
    #[error("{path}: cannot {action}: {why}; check the storage and its kernel messages")]
    Io {
        /// The file.
        path: String,
        /// What was tried.
        action: &'static str,
        /// What the system answered.
        why: io::Error,
    },
}

impl StoreError {
    /// The variant for an error that opening or examining `path` ran into.
    pub(super) fn opening(path: &Path, source: io::Error) -> Self {
        let dangling = || dangling_link(path);
        let path = path.display().to_string();
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => match dangling() {
                Some(what) => Self::Dangling { path, what },
                None => Self::NotFound { path },
            },
            Some(libc::EACCES | libc::EPERM) => Self::Permission { path },
            Some(libc::EMFILE) => {
                let limit = match limits::open_files() {
                    Some(limit) => limit.to_string(),
                    None => "none".to_owned(),
                };
                Self::TooManyFiles { path, limit }
            }
            Some(libc::ENFILE) => {
                Self::TooManyFiles { path, limit: "of the whole system, fs.file-max".to_owned() }
            }
            _ => Self::Io { path, action: "open", why: source },
        }
    }
}
