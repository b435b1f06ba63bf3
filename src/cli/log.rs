//! Messages of a running mount: one line each on standard error, which a background mount points at its log file.

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
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log(pub(crate) Level);

impl Log {
    pub(crate) fn say(self, level: Level, message: &str) {
        if level <= self.0 {
            let now = humantime::format_rfc3339_seconds(SystemTime::now());
            let level = match level {
                Level::Error => "error",
                Level::Warn => "warning",
                Level::Info => "info",
            };
            eprintln!("{now} ckpt-fs: {level}: {message}");
        }
    }
}
