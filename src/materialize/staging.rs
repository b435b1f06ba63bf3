//! The directory that a job writes to, beside its destination, and how it takes the destination's place.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with, statvfs};
use rustix::process::{Pid, test_kill_process};

use super::MaterializeError;

/// A staging directory; removed when dropped before it is published.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    destination: PathBuf,
    published: bool,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MaterializeError {
    let path = path.to_owned();
    move |source| MaterializeError::Io { action, path, source }
}

impl Staging {
    /// Checks the destination and makes an empty directory beside it.
    pub(super) fn prepare(
        destination: &Path,
        source: &Path,
        overwrite: bool,
    ) -> Result<Self, MaterializeError> {
        // A trailing slash or `.` has no name of its own; the absolute path has.
        let destination = std::path::absolute(destination).map_err(failed("find", destination))?;
        let destination: PathBuf = destination.components().collect();
        let (Some(parent), Some(name)) = (destination.parent(), destination.file_name()) else {
            return Err(MaterializeError::NotADirectory(destination));
        };
        check_destination(&destination, overwrite)?;
        fs::create_dir_all(parent).map_err(failed("make", parent))?;
        check_overlap(&destination, parent, source)?;
        let prefix = format!(".{}.ckpt-fs-", name.to_string_lossy());
        remove_abandoned(parent, &prefix);
        let path = parent.join(format!("{prefix}{}", std::process::id()));
        fs::create_dir(&path).map_err(failed("make", &path))?;
        Ok(Self { path, destination, published: false })
    }

    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that so many bytes fit.
    pub(super) fn check_space(&self, need: u64) -> Result<(), MaterializeError> {
        let room = statvfs(&self.path).map_err(io::Error::from).map_err(failed("measure", &self.path))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if free < need {
            return Err(MaterializeError::NoSpace { path: self.destination.clone(), need, free });
        }
        Ok(())
    }

    /// Puts the directory in the destination's place: from one moment to the next it is there, whole.
    pub(super) fn publish(mut self) -> Result<(), MaterializeError> {
        sync_directories(&self.path)?;
        let exchanged = match fs::rename(&self.path, &self.destination) {
            Ok(()) => false,
            // Not empty: the two change places, and what was there is removed afterwards.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                renameat_with(CWD, &self.path, CWD, &self.destination, RenameFlags::EXCHANGE)
                    .map_err(io::Error::from)
                    .map_err(failed("replace", &self.destination))?;
                true
            }
            Err(error) => return Err(failed("rename the finished copy to", &self.destination)(error)),
        };
        self.published = true;
        if let Some(parent) = self.destination.parent() {
            File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed("sync", parent))?;
        }
        if exchanged {
            fs::remove_dir_all(&self.path).map_err(failed("remove the old copy at", &self.path))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            // Nobody is left to tell; the next run removes what stays.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn check_destination(destination: &Path, overwrite: bool) -> Result<(), MaterializeError> {
    match fs::read_dir(destination) {
        Ok(mut entries) => match entries.next() {
            Some(_) if !overwrite => Err(MaterializeError::NotEmpty(destination.to_owned())),
            _ => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(MaterializeError::NotADirectory(destination.to_owned()))
        }
        Err(error) => Err(failed("read", destination)(error)),
    }
}

/// The source is never written: neither may hold the other.
fn check_overlap(destination: &Path, parent: &Path, source: &Path) -> Result<(), MaterializeError> {
    let source = fs::canonicalize(source).map_err(failed("find", source))?;
    let real = match fs::canonicalize(destination) {
        Ok(path) => path,
        Err(_) => {
            let parent = fs::canonicalize(parent).map_err(failed("find", parent))?;
            destination.file_name().map_or_else(|| parent.clone(), |name| parent.join(name))
        }
    };
    if real.starts_with(&source) || source.starts_with(&real) {
        return Err(MaterializeError::IsSource(destination.to_owned()));
    }
    Ok(())
}

/// Removes what runs left behind that were killed: staging directories whose process is gone.
fn remove_abandoned(parent: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process =
            name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|pid| pid.parse().ok());
        let Some(process) = process.and_then(Pid::from_raw) else { continue };
        let is_own = process == rustix::process::getpid();
        if is_own || test_kill_process(process) == Err(rustix::io::Errno::SRCH) {
            // If it cannot be removed, making our own will say why.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn sync_directories(path: &Path) -> Result<(), MaterializeError> {
    for entry in fs::read_dir(path).map_err(failed("read", path))? {
        let entry = entry.map_err(failed("read", path))?;
        if entry.file_type().map_err(failed("read", path))?.is_dir() {
            sync_directories(&entry.path())?;
        }
    }
    File::open(path).and_then(|dir| dir.sync_all()).map_err(failed("sync", path))
}
