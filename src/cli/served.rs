//! The process that serves a mount: which it is, and waiting until it has let go of the source.
//!
//! The mount says itself which process that is. It is asked by this program once more, because a process that does not answer (it is stopped,
//! or its storage hangs) would keep whoever asks, and the mount with it. Not here: taking a mount away (`fuse`).

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use super::args::UNGUARDED;
use crate::fuse::{ControlError, mounts};
use crate::sys::process::{self, Process};
use crate::vfs::Status;

/// How long a mount may take to say who serves it. It takes a millisecond.
const ANSWER: Duration = Duration::from_secs(3);

/// The process that serves a mount.
#[derive(Debug)]
pub(super) enum Served {
    /// This one, by its number.
    By(Process, u32),
    /// None: it is gone.
    ByNobody,
    /// It does not answer.
    Silently,
    /// It answers, and cannot be watched from here: it is an older version's, or in a container.
    Elsewhere,
}

impl Served {
    /// The process that serves the mount of ours at `point`.
    pub(super) fn at(point: &Path) -> Self {
        #[derive(Deserialize)]
        struct Answer {
            status: Status,
        }
        let Ok((answered, text)) = ask(point) else { return Self::Elsewhere };
        if !answered {
            return Self::Silently;
        }
        let Ok(Answer { status }) = serde_json::from_str(&text) else {
            // It has answered, so this does not wait either.
            return if mounts::is_dead(point) { Self::ByNobody } else { Self::Elsewhere };
        };
        let is_here = status.pid_namespace.is_some() && status.pid_namespace == process::namespace();
        match Process::open(status.pid) {
            Ok(process) if is_here && status.pid != std::process::id() => Self::By(process, status.pid),
            _ => Self::Elsewhere,
        }
    }
}

/// Whether the mount that `path` is in answers. One that does not is left alone, so that nobody waits for it for ever.
pub(super) fn answering(path: &Path) -> Result<(), ControlError> {
    match ask(path) {
        Ok((false, _)) => Err(ControlError::Silent(path.to_owned())),
        // Where nobody can be sent to ask, it is asked all the same.
        Ok((true, _)) | Err(_) => Ok(()),
    }
}

/// What `ckpt-fs status` says of it, and whether it ended in time.
fn ask(point: &Path) -> io::Result<(bool, String)> {
    // The program that runs now, whatever became of its file.
    let mut command = Command::new("/proc/self/exe");
    command.args(["status", "--json", UNGUARDED, "--"]).arg(point);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let process = Process::open(child.id())?;
    if !process.wait(ANSWER)? {
        end(&mut child, &process)?;
        return Ok((false, String::new()));
    }
    let mut text = String::new();
    if let Some(mut said) = child.stdout.take() {
        said.read_to_string(&mut text)?;
    }
    child.wait()?;
    Ok((true, text))
}

/// Ends a process that waits for an answer. Where the kernel keeps it, it is left to end by itself.
fn end(child: &mut Child, process: &Process) -> io::Result<()> {
    child.kill()?;
    if process.wait(Duration::from_secs(1))? {
        child.wait()?;
    }
    Ok(())
}
