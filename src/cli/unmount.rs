//! `ckpt-fs unmount`: takes mounts away, and comes back when their processes have let go of the sources.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::UnmountArgs;
use super::error::{CliError, Exit, harmless};
use super::served::Served;
use crate::fuse::UnmountError;
use crate::fuse::mounts::{self, Detach, MountEntry};

/// How long a process may take to end when its mount is gone. It takes milliseconds, and a second with much memory to give back.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(args: &UnmountArgs) -> Result<Exit, CliError> {
    let mut exit = Exit::Success;
    let mut left: Vec<&PathBuf> = args.mountpoints.iter().collect();
    // Mounts may stand on each other: one that is in use may be free when another is gone.
    while !left.is_empty() {
        let before = left.len();
        let mut busy = Vec::new();
        for point in left {
            match take_away(point, Detach::WhenIdle) {
                Err(CliError::Unmount(error @ UnmountError::Busy { .. })) => busy.push((point, error)),
                // One that cannot be taken away does not keep the others.
                result => report(result, &mut exit),
            }
        }
        if busy.len() == before {
            for (point, error) in busy {
                let busy = || Err(CliError::from(error));
                report(if args.lazy { take_away(point, Detach::Lazily) } else { busy() }, &mut exit);
            }
            break;
        }
        left = busy.into_iter().map(|(point, _)| point).collect();
    }
    Ok(exit)
}

fn report(result: Result<(), CliError>, exit: &mut Exit) {
    if let Err(error) = result {
        eprintln!("ckpt-fs: {}", harmless(&error.to_string()));
        *exit = error.exit();
    }
}

/// Takes a mount away and waits for the end of its process, if it is to end.
fn take_away(point: &Path, detach: Detach) -> Result<(), CliError> {
    let entry = mounts::find(point)?;
    let served = Served::at(&entry.point);
    mounts::unmount(point, detach)?;
    if detach == Detach::Lazily {
        note(&entry, &format!("detached, and in use{}: it ends when its files are closed", by(&served)));
        return Ok(());
    }
    if let Some(other) = shown_too(&entry) {
        note(
            &entry,
            &format!("unmounted; it is mounted at {} too, so its process stays", other.point.display()),
        );
        return Ok(());
    }
    let held = |what: String| Err(UnmountError::Held { path: point.to_owned(), what }.into());
    let source = mounts::source_name(&entry);
    match served {
        Served::By(process, pid) => match process.wait(PATIENCE) {
            Ok(true) => Ok(()),
            _ => held(format!(
                "process {pid} still holds {source} after {} seconds; its storage hangs, or the mount is shown in a container too",
                PATIENCE.as_secs()
            )),
        },
        Served::Silently => {
            held(format!("the process that serves it does not answer and still holds {source}"))
        }
        Served::ByNobody => Ok(()),
        Served::Elsewhere => {
            note(&entry, &format!("unmounted; its process may hold {source} for another moment"));
            Ok(())
        }
    }
}

/// Another place where the same mount is shown.
fn shown_too(entry: &MountEntry) -> Option<MountEntry> {
    // Numbers of devices are given out again: what is not ours is another file system.
    let is_same = |other: &MountEntry| {
        other.is_ours() && (other.device, &other.source) == (entry.device, &entry.source)
    };
    mounts::all().ok()?.into_iter().find(is_same)
}

fn by(served: &Served) -> String {
    if let Served::By(_, pid) = served { format!(" (process {pid})") } else { String::new() }
}

fn note(entry: &MountEntry, text: &str) {
    eprintln!("ckpt-fs: note: {}", harmless(&format!("{}: {text}", entry.point.display())));
}
