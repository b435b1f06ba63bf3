//! `ckpt-fs log`: what a mount said lately.

use std::io::{Write, stdout};

use super::args::LogArgs;
use super::error::{CliError, Exit, in_one_line};
use super::served::answering;
use crate::fuse::messages;
use crate::vfs::{Message, Severity};

pub(super) fn run(args: &LogArgs) -> Result<Exit, CliError> {
    answering(&args.mountpoint)?;
    let all = messages(&args.mountpoint)?;
    let text = if args.json {
        let values: Vec<_> = all.iter().map(json).collect();
        format!("{:#}\n", serde_json::Value::Array(values))
    } else {
        all.iter().map(|message| line(message) + "\n").collect()
    };
    stdout().lock().write_all(text.as_bytes())?;
    Ok(Exit::Success)
}

/// A message as a line for people.
pub(super) fn line(message: &Message) -> String {
    let Message { time, severity, text, times } = message;
    let again = if *times > 1 { format!(" ({times} times)") } else { String::new() };
    in_one_line(&format!("{} {}: {text}{again}", humantime::format_rfc3339_seconds(*time), word(*severity)))
}

/// The same for programs.
pub(super) fn json(message: &Message) -> serde_json::Value {
    let Message { time, severity, text, times } = message;
    let time = humantime::format_rfc3339_seconds(*time).to_string();
    serde_json::json!({ "time": time, "level": word(*severity), "message": text, "times": times })
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}
