//! What the tree's errors are to the kernel: one exhaustive table; and where their words go, since errno has none.
//!
//! Not here: what goes wrong (`vfs`).

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::Errno;
use parking_lot::Mutex;

use crate::vfs::{Cause, TreeError};

/// The errno for an error of the tree.
pub(super) fn errno(error: &TreeError) -> Errno {
    match error.cause() {
        Cause::Missing => Errno::ENOENT,
        Cause::NotDirectory => Errno::ENOTDIR,
        Cause::IsDirectory => Errno::EISDIR,
        // "The file handle is no longer valid": what network file systems say of a file replaced on the server.
        Cause::Changed => Errno::ESTALE,
        Cause::Denied => Errno::EACCES,
        Cause::TooManyFiles => Errno::EMFILE,
        Cause::System(error) => of_source(error),
        Cause::Other => Errno::EIO,
    }
}

/// What the storage of the source answers, in words that mean the same to those who read the mount. Others do not: EINVAL would be said of
/// their own arguments, and EINTR or EAGAIN would have them try for ever.
fn of_source(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(
            number @ (libc::EACCES
            | libc::EPERM
            | libc::ENOENT
            | libc::ENODEV
            | libc::ENXIO
            | libc::EMFILE
            | libc::ENFILE
            | libc::ENOSPC
            | libc::EDQUOT
            | libc::ENOMEM
            | libc::ESTALE
            | libc::ETIMEDOUT
            | libc::ENOTCONN
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH),
        ) => Errno::from_i32(number),
        _ => Errno::EIO,
    }
}

/// The names of the errors that requests are answered with.
const NAMES: [(i32, &str); 26] = [
    (libc::EACCES, "EACCES"),
    (libc::EBADF, "EBADF"),
    (libc::EDQUOT, "EDQUOT"),
    (libc::EHOSTDOWN, "EHOSTDOWN"),
    (libc::EHOSTUNREACH, "EHOSTUNREACH"),
    (libc::EINVAL, "EINVAL"),
    (libc::EIO, "EIO"),
    (libc::EISDIR, "EISDIR"),
    (libc::EMFILE, "EMFILE"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG"),
    (libc::ENFILE, "ENFILE"),
    (libc::ENODATA, "ENODATA"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOENT, "ENOENT"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::ENOTCONN, "ENOTCONN"),
    (libc::ENOTDIR, "ENOTDIR"),
    (libc::ENOTTY, "ENOTTY"),
    (libc::ENXIO, "ENXIO"),
    (libc::EOVERFLOW, "EOVERFLOW"),
    (libc::EPERM, "EPERM"),
    (libc::ERANGE, "ERANGE"),
    (libc::EROFS, "EROFS"),
    (libc::ESTALE, "ESTALE"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
];

/// The name of an error, or its number.
pub(super) fn name(number: i32) -> String {
    match NAMES.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => (*name).to_owned(),
        None => number.to_string(),
    }
}

/// Where warnings go; the caller decides.
#[derive(Clone)]
pub struct Warn(Arc<dyn Fn(&str) + Send + Sync>);

impl Warn {
    /// Hands each warning to `sink`, which may be called from several threads at once.
    pub fn new(sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Drops them.
    #[must_use]
    pub fn none() -> Self {
        Self::new(|_| {})
    }

    pub(super) fn say(&self, message: &str) {
        (self.0)(message);
    }
}

impl fmt::Debug for Warn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Warn")
    }
}

/// How long a message that was just said is not said again: a loader meets a changed file thousands of times a second.
const QUIET: Duration = Duration::from_secs(10);

/// Turns errors into errno and says in words what errno cannot.
#[derive(Debug)]
pub(super) struct Report {
    warn: Warn,
    last: Mutex<Option<(String, Instant)>>,
}

impl Report {
    pub(super) fn new(warn: Warn) -> Self {
        Self { warn, last: Mutex::new(None) }
    }

    /// The errno for `error`; what concerns the source is said aloud.
    pub(super) fn errno(&self, error: &TreeError) -> Errno {
        if !error.is_answer() {
            self.say(&error.to_string());
        }
        errno(error)
    }

    /// Says `message` unless it was the last thing said, a moment ago.
    pub(super) fn say(&self, message: &str) {
        let now = Instant::now();
        let mut last = self.last.lock();
        let repeated = last.as_ref().is_some_and(|(said, at)| said == message && now - *at < QUIET);
        if !repeated {
            *last = Some((message.to_owned(), now));
            drop(last);
            self.warn.say(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::ObjectId;
    use crate::reader::ReadError;
    use crate::store::StoreError;
    use crate::view::ViewError;

    #[test]
    fn repeated_words_are_said_once() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&said);
        let report = Report::new(Warn::new(move |message| sink.lock().push(message.to_owned())));
        for message in ["a", "a", "b", "a"] {
            report.errno(&TreeError::Io(message.into()));
        }
        report.errno(&TreeError::NotFound);
        assert_eq!(*said.lock(), ["a", "b", "a"]);
    }
    fn of_reading(error: StoreError) -> TreeError {
        TreeError::Read(ReadError::Store(error))
    }

    fn of_system(number: i32) -> TreeError {
        let why = io::Error::from_raw_os_error(number);
        of_reading(StoreError::Io { path: "source/file".into(), action: "read", why })
    }

    #[test]
    fn what_storage_answers_reaches_the_reader_where_it_means_the_same() {
        for number in [
            libc::EACCES,
            libc::ENOENT,
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOSPC,
            libc::EDQUOT,
            libc::ENOMEM,
            libc::ESTALE,
            libc::ETIMEDOUT,
            libc::EIO,
        ] {
            assert_eq!(errno(&of_system(number)).code(), number);
        }
        // These would be taken for a mistake of the reader, or for a reason to try again.
        for number in [libc::EINVAL, libc::EBADF, libc::EFAULT, libc::EINTR, libc::EAGAIN, libc::ENOSYS] {
            assert_eq!(errno(&of_system(number)).code(), libc::EIO);
        }
        let path = || "source/file".to_owned();
        let known = [
            (StoreError::NotFound { path: path() }, libc::ENOENT),
            (StoreError::Permission { path: path() }, libc::EACCES),
            (StoreError::TooManyFiles { path: path(), limit: "7".into() }, libc::EMFILE),
            (StoreError::Changed { path: path(), what: "it was modified".into() }, libc::ESTALE),
            (StoreError::NotARegularFile { path: path(), what: "pipe" }, libc::EIO),
            (StoreError::OutOfRange { path: path(), from: 0, len: 1, size: 0 }, libc::EIO),
            (StoreError::Unknown(ObjectId(7)), libc::EIO),
        ];
        for (error, number) in known {
            assert_eq!(errno(&of_reading(error)).code(), number);
        }
        assert_eq!(errno(&TreeError::Read(ReadError::Plan(0..1))).code(), libc::EIO);
        assert_eq!(errno(&ViewError::NoFile(7).into()).code(), libc::EIO);
    }

    #[test]
    fn every_cause_is_said_once() {
        for error in [of_system(libc::ENOSPC), of_system(libc::EIO), ViewError::NoFile(7).into()] {
            let mut chain = vec![error.to_string()];
            let mut next = std::error::Error::source(&error);
            while let Some(cause) = next {
                assert!(!chain.iter().any(|said| said.contains(&cause.to_string())), "{chain:?}: {cause}");
                chain.push(cause.to_string());
                next = cause.source();
            }
        }
        let said = of_system(libc::ENOSPC).to_string();
        assert!(said.starts_with("source/file: cannot read: No space left on device"), "{said}");
    }
}
