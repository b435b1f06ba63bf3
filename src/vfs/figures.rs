//! Figures that every mount has, whatever its tree is.
//!
//! Not here: what each figure means (`status`), those of one tree (`views`, `iterations`), requests (`fuse`).

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime};

use super::{Messages, Status, Usage};

/// What is so of every mount. Requests are known to those who put the questions.
pub(super) fn of_mount(
    (since, started): (Instant, SystemTime), messages: &Messages, usage: &Usage) -> Status {
    let messages = messages.counts();
    let views = usage.list();
    Status {
        seconds: since.elapsed().as_secs(),
        errors: messages.error + messages.warning,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        pid_namespace: crate::sys::process::namespace(),
        reads: views.iter().map(|view| view.reads).sum(),
        read_bytes: views.iter().map(|view| view.read_bytes).sum(),
        build: env!("CKPT_FS_BUILD").to_owned(),
        started: started.duration_since(SystemTime::UNIX_EPOCH).ok().map(|time| time.as_secs()),
        source_read_bytes: usage.source_bytes().load(Relaxed),
        messages,
        views,
        ..Status::default()
    }
}
