//! Messages of a running mount: one line each, to a log file or to standard error.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::vfs::{Messages, Severity};

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

/// Writes messages at or below a level, and keeps all of them for whoever asks the mount.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    level: Level,
    form: Form,
    /// Standard error where there is none.
    file: Option<Arc<File>>,
    kept: Arc<Messages>,
}

/// Something that others can warn through.
pub(crate) type Warner = Arc<dyn Fn(&str) + Send + Sync>;

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// A line for people
    Text,
    /// A line of JSON: time, level, message
    Json,
}

impl Log {
    /// A log at the end of the file at `path`, or on standard error.
    pub(crate) fn to(level: Level, form: Form, path: Option<&Path>) -> io::Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path).map(Arc::new);
        Ok(Self { level, form, file: path.map(open).transpose()?, kept: Arc::default() })
    }

    /// Everything that was said.
    pub(crate) fn kept(&self) -> &Arc<Messages> {
        &self.kept
    }

    /// The log file, where there is one.
    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_deref()
    }

    pub(crate) fn say(&self, level: Level, message: &str) {
        let (severity, word) = match level {
            Level::Error => (Severity::Error, "error"),
            Level::Warn => (Severity::Warning, "warning"),
            Level::Info => (Severity::Info, "info"),
        };
        self.kept.keep(severity, message);
        if level > self.level {
            return;
        }
        let now = humantime::format_rfc3339_seconds(SystemTime::now());
        let line = match self.form {
            Form::Text => format!("{now} ckpt-fs: {word}: {message}\n"),
            Form::Json => {
                format!(
                    "{}\n",
                    serde_json::json!({ "time": now.to_string(), "level": word, "message": message })
                )
            }
        };
        // A log that cannot be written has nobody to tell.
        let _ = match &self.file {
            Some(file) => (&**file).write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }

    /// Something that others can warn through.
    pub(crate) fn warner(&self) -> Warner {
        let log = self.clone();
        Arc::new(move |message| log.say(Level::Warn, message))
    }
}
