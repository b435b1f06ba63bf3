//! Progress of long work, as a bar for people or as lines for programs, and a way to stop it.

use std::io::{Write, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use parking_lot::Mutex;

use super::error::CliError;
use crate::sys::signals::Signals;

/// A bar of bytes on standard error; nothing where that is no terminal.
pub(super) fn bar(quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    let style = "{bar:40} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
    // A template that is wrong would leave the default bar.
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shown {
    /// A bar where standard error is a terminal
    Bar,
    /// For programs: lines of JSON, {"written": BYTES, "total": BYTES, "seconds": SECONDS}, the last one when all is written. Other lines
    /// are messages as always; none of those begins with a brace
    Json,
    /// Not at all
    None,
}

/// Progress as it is shown.
pub(super) enum Progress {
    Bar(ProgressBar),
    Lines(Lines),
}

impl Progress {
    pub(super) fn shown(how: Shown) -> Self {
        match how {
            Shown::Bar => Self::Bar(bar(false)),
            Shown::None => Self::Bar(bar(true)),
            Shown::Json => Self::Lines(Lines::new()),
        }
    }

    pub(super) fn set_length(&self, total: u64) {
        match self {
            Self::Bar(bar) => bar.set_length(total),
            Self::Lines(lines) => lines.start(total),
        }
    }

    pub(super) fn inc(&self, written: u64) {
        match self {
            Self::Bar(bar) => bar.inc(written),
            Self::Lines(lines) => lines.add(written),
        }
    }

    /// Nothing is shown afterwards.
    pub(super) fn finish(&self) {
        match self {
            Self::Bar(bar) => bar.finish_and_clear(),
            Self::Lines(lines) if lines.total.load(Ordering::Relaxed) > 0 => lines.say(),
            // It failed before there was anything to write.
            Self::Lines(_) => {}
        }
    }
}

/// A line of JSON now and then.
pub(super) struct Lines {
    total: AtomicU64,
    written: AtomicU64,
    started: Instant,
    last: Mutex<Instant>,
}

/// As often as people can see, and programs need not be told more.
const EVERY: Duration = Duration::from_millis(100);

impl Lines {
    fn new() -> Self {
        let now = Instant::now();
        Self { total: AtomicU64::new(0), written: AtomicU64::new(0), started: now, last: Mutex::new(now) }
    }

    fn start(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.say();
    }

    fn add(&self, written: u64) {
        self.written.fetch_add(written, Ordering::Relaxed);
        // Who finds it locked would say the same as the one who has it.
        let Some(mut last) = self.last.try_lock() else { return };
        if last.elapsed() >= EVERY {
            *last = Instant::now();
            self.say();
        }
    }

    /// Whoever does not listen any more does not stop the work.
    fn say(&self) {
        let line = serde_json::json!({
            "written": self.written.load(Ordering::Relaxed),
            "total": self.total.load(Ordering::Relaxed),
            "seconds": self.started.elapsed().as_secs_f64(),
        });
        // In one piece, so that no other message gets into it.
        drop(stderr().write_all(format!("{line}\n").as_bytes()));
    }
}

/// A flag that an interrupt sets. Call before any thread is started.
pub(super) fn stop_on_signal() -> Result<Arc<AtomicBool>, CliError> {
    let failed = |source| CliError::System { what: "handle signals", source };
    let signals = Signals::block().map_err(failed)?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if signals.wait().is_ok() {
                flag.store(true, Ordering::Relaxed);
                // A second one does not wait for the work to notice.
                if signals.wait().is_ok() {
                    std::process::exit(super::error::Exit::Interrupted as i32);
                }
            }
        })
        .map_err(failed)?;
    Ok(stop)
}
