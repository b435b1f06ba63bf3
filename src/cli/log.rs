//! Messages of a running mount: to a log file, to standard error, or in the background to the system's log.
//!
//! Those of the libraries below come here too, if they are asked for. Not here: which are (`log_filter`), how the system's log is told (`syslog`).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use env_filter::Filter;
use log::{Level, Metadata, Record};

use super::error::in_one_line;
use super::syslog::Syslog;
use crate::vfs::{Messages, Severity};

/// Who says what a command says of itself.
const COMMAND: &str = "ckpt_fs::cli";

/// Writes the messages that its filter lets through, and keeps all of ours for whoever asks the mount.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    filter: Arc<Filter>,
    form: Form,
    to: To,
    kept: Arc<Messages>,
}

#[derive(Debug, Clone)]
enum To {
    File(Arc<File>),
    StandardError,
    /// Standard error as well, which somebody reads until the mount is live.
    System(Arc<Syslog>),
}

/// Something that others can warn through.
pub(crate) type Warner = Arc<dyn Fn(&str) + Send + Sync>;

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// A line for people
    Text,
    /// A line of JSON: time, level, target, message
    Json,
}

impl Log {
    /// A log at the end of the file at `path`; without one on standard error and, for a mount in the background, in the system's log.
    pub(crate) fn to(filter: Filter, form: Form, path: Option<&Path>, background: bool) -> io::Result<Self> {
        let to = match path {
            Some(path) => To::File(Arc::new(OpenOptions::new().create(true).append(true).open(path)?)),
            None if background => {
                Syslog::open().map_or(To::StandardError, |syslog| To::System(Arc::new(syslog)))
            }
            None => To::StandardError,
        };
        Ok(Self { filter: Arc::new(filter), form, to, kept: Arc::default() })
    }

    /// Takes the messages of all that is below, too.
    pub(crate) fn listen(&self) -> io::Result<()> {
        log::set_boxed_logger(Box::new(self.clone())).map_err(io::Error::other)?;
        log::set_max_level(self.filter.filter());
        Ok(())
    }

    /// Everything that was said.
    pub(crate) fn kept(&self) -> &Arc<Messages> {
        &self.kept
    }

    /// The log file, where there is one.
    pub(crate) fn file(&self) -> Option<&File> {
        if let To::File(file) = &self.to { Some(file) } else { None }
    }

    /// Says something of the mount itself, which is kept whether it is written or not.
    pub(crate) fn say(&self, level: Level, message: &str) {
        self.say_as(COMMAND, level, message);
    }

    fn say_as(&self, target: &str, level: Level, message: &str) {
        let severity = match level {
            Level::Error => Severity::Error,
            Level::Warn => Severity::Warning,
            Level::Info | Level::Debug | Level::Trace => Severity::Info,
        };
        self.kept.keep(severity, message);
        log::Log::log(
            self,
            &Record::builder().target(target).level(level).args(format_args!("{message}")).build(),
        );
    }

    fn write(&self, level: Level, target: &str, message: &str) {
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let word = match level {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        };
        // Whoever asks for details asks where they come from.
        let text = if level > Level::Info { format!("{target}: {message}") } else { message.to_owned() };
        let (line, alone) = match self.form {
            Form::Text => {
                let text = in_one_line(&text);
                (format!("{now} ckpt-fs: {word}: {text}\n"), text)
            }
            Form::Json => {
                let value =
                    serde_json::json!({ "time": now, "level": word, "target": target, "message": message });
                (format!("{value}\n"), value.to_string())
            }
        };
        // A log that cannot be written has nobody to tell.
        let _ = match &self.to {
            To::File(file) => (&**file).write_all(line.as_bytes()),
            To::StandardError => io::stderr().write_all(line.as_bytes()),
            To::System(syslog) => {
                syslog.send(level, &alone);
                io::stderr().write_all(line.as_bytes())
            }
        };
    }

    /// Something that others can warn through, under the name of who they are.
    pub(crate) fn warner(&self, target: &'static str) -> Warner {
        let log = self.clone();
        Arc::new(move |message| log.say_as(target, Level::Warn, message))
    }
}

impl log::Log for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.filter.matches(record) {
            self.write(record.level(), record.target(), &record.args().to_string());
        }
    }

    fn flush(&self) {}
}
