//! Messages of a running mount: one line each, to a log file or to standard error.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Level {
    /// Only what ends the mount
    Error,
    /// What a reader got an error for, and why
    Warn,
    /// Also mounts and unmounts
    Info,
}

/// Writes messages at or below a level.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    level: Level,
    /// Standard error where there is none.
    file: Option<Arc<File>>,
}

impl Log {
    /// A log at the end of the file at `path`, or on standard error.
    pub(crate) fn to(level: Level, path: Option<&Path>) -> io::Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path).map(Arc::new);
        Ok(Self { level, file: path.map(open).transpose()? })
    }

    /// The log file, where there is one.
    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_deref()
    }

    pub(crate) fn say(&self, level: Level, message: &str) {
        if level > self.level {
            return;
        }
        let now = humantime::format_rfc3339_seconds(SystemTime::now());
        let level = match level {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
        };
        let line = format!("{now} ckpt-fs: {level}: {message}\n");
        // A log that cannot be written has nobody to tell.
        let _ = match &self.file {
            Some(file) => (&**file).write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }

    /// Something that others can warn through.
    pub(crate) fn warner(&self) -> Arc<dyn Fn(&str) + Send + Sync> {
        let log = self.clone();
        Arc::new(move |message| log.say(Level::Warn, message))
    }
}
