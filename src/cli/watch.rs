//! `mount --auto-unmount`: a process that outlives the one that serves, and takes the mount away when that was killed.
//!
//! It is this program once more, started before the mount is made, so that it holds nothing of it; a pipe from the serving process ends when
//! that does, however it does. Not here: taking a mount away (`fuse`).

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::args::{WATCH, WatchArgs};
use super::error::{CliError, Exit};
use crate::fuse::mounts::{self, Detach};
use crate::sys::signals::Signals;

/// Starts watching a mount that is about to be made at `point`. As long as what is returned lives, so does this process.
pub(super) fn start(point: &Path) -> Result<Option<ChildStdin>, CliError> {
    let failed = |source| CliError::System { what: "start the process that watches the mount", source };
    let point = std::path::absolute(point).map_err(failed)?;
    // The program that runs now, whatever became of its file.
    let mut command = Command::new("/proc/self/exe");
    command.arg(WATCH).arg("--").arg(point).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // An interrupt in the terminal is for the process that serves; this one comes after it.
    // It may outlive that by a moment, and must not keep the disk busy that either was started on.
    let child = command.process_group(0).current_dir("/").spawn().map_err(failed)?;
    Ok(child.stdin)
}

/// How long a process that was killed may take to let go of its mount, and how often to look.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

pub(super) fn run(args: &WatchArgs) -> Result<Exit, CliError> {
    let failed = |what| move |source| CliError::System { what, source };
    let _signals = Signals::block().map_err(failed("handle signals"))?;
    io::copy(&mut io::stdin().lock(), &mut io::sink()).map_err(failed("wait for the end of the mount"))?;
    let since = Instant::now();
    // A mount that was taken away in good order is gone. The pipe may end a moment before the connection to the kernel does.
    while mounts::is_ours(&args.mountpoint) && since.elapsed() < PATIENCE {
        if mounts::is_dead(&args.mountpoint) {
            mounts::unmount(&args.mountpoint, Detach::Lazily)?;
            break;
        }
        thread::sleep(PAUSE);
    }
    Ok(Exit::Success)
}
