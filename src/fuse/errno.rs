//! What the tree's errors are to the kernel: one exhaustive table; and where their words go, since errno has none.
//!
//! Not here: what goes wrong (`vfs`).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::Errno;
use parking_lot::Mutex;

use crate::vfs::TreeError;

/// The errno for an error of the tree.
pub(super) fn errno(error: &TreeError) -> Errno {
    match error {
        TreeError::NotFound => Errno::ENOENT,
        TreeError::NotDirectory => Errno::ENOTDIR,
        TreeError::IsDirectory => Errno::EISDIR,
        // "The file handle is no longer valid": what network file systems say of a file replaced on the server.
        TreeError::Stale(_) => Errno::ESTALE,
        TreeError::Io(_) => Errno::EIO,
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
        match error {
            TreeError::Stale(message) | TreeError::Io(message) => self.say(message),
            TreeError::NotFound | TreeError::NotDirectory | TreeError::IsDirectory => {}
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

    #[test]
    fn repeated_words_are_said_once() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&said);
        let report = Report::new(Warn::new(move |message| sink.lock().push(message.to_owned())));
        for message in ["a", "a", "b", "a"] {
            report.errno(&TreeError::Stale(message.into()));
        }
        report.errno(&TreeError::NotFound);
        assert_eq!(*said.lock(), ["a", "b", "a"]);
    }
}
