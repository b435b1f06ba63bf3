//! Progress bars on long work in a terminal, and a way to stop it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
