//! The directory that a job writes to, beside its destination, and how it takes the destination's place.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FlockOperation, RenameFlags, StatxFlags, flock, renameat_with, statvfs, statx,
};

use super::{MaterializeError, failed, resume};

/// A staging directory; removed when dropped before it is published.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    /// Locked as long as the job runs: how others know that it is not abandoned, on whatever machine they are.
    lock: File,
    destination: PathBuf,
    overwrite: bool,
    /// Folders above it that were made for it, the innermost first.
    made: Made,
    /// Left where it is when it is not published, for another run to go on with.
    keep: bool,
    published: bool,
}

/// Folders that go again, where they are empty, unless they are kept.
#[derive(Debug)]
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for folder in &self.0 {
            let _ = fs::remove_dir(folder);
        }
    }
}

impl Staging {
    /// Checks the destination and makes an empty directory beside it, or with `resume` takes one over that another run left. With
    /// `overwrite`, a destination is replaced that holds no file but those whose path in it `may_go` accepts.
    pub(super) fn prepare(
        destination: &Path,
        sources: &[PathBuf],
        overwrite: bool,
        resume: bool,
        may_go: &dyn Fn(&str) -> bool,
    ) -> Result<Self, MaterializeError> {
        let destination = resolve(destination)?;
        let (Some(parent), Some(name)) = (destination.parent(), destination.file_name()) else {
            return Err(MaterializeError::NotADirectory(destination));
        };
        check_overlap(&destination, sources)?;
        check_destination(&destination, overwrite, may_go)?;
        let made = parent.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
        let made = Made(made);
        fs::create_dir_all(parent).map_err(failed("make", parent))?;
        let prefix = format!(".{}.ckpt-fs-", name.to_string_lossy());
        let renamed = if resume { resume::rename(parent, &prefix) } else { None };
        remove_abandoned(parent, &prefix);
        let (path, lock) = match renamed {
            Some(renamed) => renamed,
            None => make(parent, &prefix)?,
        };
        Ok(Self { path, lock, destination, overwrite, made, keep: resume, published: false })
    }

    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that so many more bytes fit.
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
        self.take_over_rights();
        sync_directories(&self.path)?;
        let replaced = match fs::rename(&self.path, &self.destination) {
            Ok(()) => None,
            // Not empty: checked before, or filled by somebody else since.
            Err(error) if is_not_empty(&error) && self.overwrite => Some(self.exchange()?),
            Err(error) if is_not_empty(&error) => {
                return Err(MaterializeError::NotEmpty(self.destination.clone()));
            }
            Err(error) => return Err(failed("rename the finished copy to", &self.destination)(error)),
        };
        self.published = true;
        self.made.0.clear();
        if let Some(parent) = self.destination.parent() {
            File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed("sync", parent))?;
        }
        match replaced {
            Some(old) => fs::remove_dir_all(&old).map_err(failed("remove the old copy at", &old)),
            None => Ok(()),
        }
    }

    /// Where a directory is replaced, the new one is as open to others as it was.
    fn take_over_rights(&self) {
        let Ok(old) = fs::metadata(&self.destination) else { return };
        // Owner first, because changing it clears the set-group-id bit. Who may not give it away keeps it.
        let _ = std::os::unix::fs::chown(&self.path, Some(old.uid()), Some(old.gid()));
        let _ = fs::set_permissions(&self.path, old.permissions());
    }

    /// The new and the old directory change places; returns where the old one is now.
    fn exchange(&self) -> Result<PathBuf, MaterializeError> {
        let replace = failed("replace", &self.destination);
        match renameat_with(CWD, &self.path, CWD, &self.destination, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(self.path.clone()),
            // A file system that cannot exchange: for a moment neither is there, never half of one.
            Err(rustix::io::Errno::INVAL) => {
                let aside = self.path.with_extension("old");
                fs::rename(&self.destination, &aside).map_err(failed("move aside", &self.destination))?;
                fs::rename(&self.path, &self.destination).map_err(|error| {
                    let _ = fs::rename(&aside, &self.destination);
                    replace(error)
                })?;
                Ok(aside)
            }
            Err(error) => Err(replace(error.into())),
        }
    }
}

/// A new directory, and the lock on it.
fn make(parent: &Path, prefix: &str) -> Result<(PathBuf, File), MaterializeError> {
    let path = parent.join(format!("{prefix}{:016x}", RandomState::new().build_hasher().finish()));
    fs::create_dir(&path).map_err(failed("make", &path))?;
    let lock = File::open(&path).map_err(failed("open", &path))?;
    // A file system without locks keeps what a killed run leaves behind; nothing worse.
    let _ = flock(&lock, FlockOperation::NonBlockingLockExclusive);
    Ok((path, lock))
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published && !self.keep {
            // Nobody is left to tell; the next run removes what stays.
            let _ = fs::remove_dir_all(&self.path);
        }
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

fn is_not_empty(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}

/// The destination itself: where links lead, and with a name of its own (a trailing slash or `.` has none). Its last parts need not
/// exist yet.
fn resolve(destination: &Path) -> Result<PathBuf, MaterializeError> {
    let absolute = std::path::absolute(destination).map_err(failed("find", destination))?;
    let absolute: PathBuf = absolute.components().collect();
    for existing in absolute.ancestors() {
        match fs::canonicalize(existing) {
            Ok(found) => {
                let outside = |_| MaterializeError::NotADirectory(destination.to_owned());
                let rest = absolute.strip_prefix(existing).map_err(outside)?;
                let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
                if !plain || (!rest.as_os_str().is_empty() && !found.is_dir()) {
                    return Err(MaterializeError::NotADirectory(destination.to_owned()));
                }
                return Ok(found.join(rest).components().collect());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && existing.is_symlink() => {
                return Err(failed("follow the link", existing)(error));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(failed("find", existing)(error)),
        }
    }
    Ok(absolute)
}

fn check_destination(
    destination: &Path,
    overwrite: bool,
    may_go: &dyn Fn(&str) -> bool,
) -> Result<(), MaterializeError> {
    match fs::read_dir(destination) {
        Ok(mut entries) => {
            if entries.next().is_some() && !overwrite {
                return Err(MaterializeError::NotEmpty(destination.to_owned()));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(MaterializeError::NotADirectory(destination.to_owned()));
        }
        Err(error) => return Err(failed("read", destination)(error)),
    }
    let mut names = Vec::new();
    foreign(destination, "", may_go, &mut names)?;
    if !names.is_empty() {
        names.sort();
        return Err(MaterializeError::Foreign { path: destination.to_owned(), names });
    }
    match destination.parent() {
        Some(parent) if mount_of(parent)? != mount_of(destination)? => {
            Err(MaterializeError::MountPoint(destination.to_owned()))
        }
        _ => Ok(()),
    }
}

/// Files below `folder` that may not go, by their paths in the destination.
fn foreign(
    folder: &Path,
    path: &str,
    may_go: &dyn Fn(&str) -> bool,
    names: &mut Vec<String>,
) -> Result<(), MaterializeError> {
    for entry in fs::read_dir(folder).map_err(failed("read", folder))? {
        let entry = entry.map_err(failed("read", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let inner = if path.is_empty() { name } else { format!("{path}/{name}") };
        if entry.file_type().map_err(failed("examine", folder))?.is_dir() {
            foreign(&entry.path(), &inner, may_go, names)?;
        } else if !may_go(&inner) {
            names.push(inner);
        }
    }
    Ok(())
}

/// Which mount a directory is in. Two directories of one file system may be in different mounts.
fn mount_of(path: &Path) -> Result<(u64, u64), MaterializeError> {
    let device = fs::metadata(path).map_err(failed("examine", path))?.dev();
    // Kernels before 5.8 do not number mounts; the device tells most of them apart.
    match statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID) {
        Ok(found) => Ok((device, found.stx_mnt_id)),
        Err(_) => Ok((device, 0)),
    }
}

/// The source is never written: neither may hold the other.
fn check_overlap(destination: &Path, sources: &[PathBuf]) -> Result<(), MaterializeError> {
    for source in sources {
        let source = fs::canonicalize(source).map_err(failed("find", source))?;
        if destination.starts_with(&source) || source.starts_with(destination) {
            return Err(MaterializeError::IsSource(destination.to_owned()));
        }
    }
    Ok(())
}

/// Removes what runs left behind that were killed: staging directories that nobody holds a lock on.
fn remove_abandoned(parent: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_staging = entry.file_name().to_string_lossy().starts_with(prefix);
        let Some(directory) = is_staging.then(|| File::open(entry.path()).ok()).flatten() else { continue };
        if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // If it cannot be removed it takes room, nothing worse.
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
