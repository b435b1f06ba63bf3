//! The file system that a path is on.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::fuse::mounts;

/// A path and the file system under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// The path as it was given.
    pub path: PathBuf,
    /// The type of its file system, e.g. `ext4`, `nfs4`, `fuse.s3fs`.
    pub kind: String,
    /// Whether a file there can be read past the page cache; `None` where there is no file.
    pub is_direct: Option<bool>,
}

impl FileSystem {
    /// That of `path`.
    ///
    /// # Errors
    /// It is not there, or may not be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        let absolute = path.canonicalize()?;
        let mut kind = None;
        for entry in mounts::all()? {
            // Of mounts at one place the last lies on top; a longer path is further down.
            let length = entry.point.components().count();
            if absolute.starts_with(&entry.point) && kind.as_ref().is_none_or(|(longest, _)| length >= *longest) {
                kind = Some((length, entry.kind));
            }
        }
        let kind = kind.map_or_else(|| "unknown".to_owned(), |(_, kind)| kind);
        Ok(Self { path: path.to_owned(), kind, is_direct: a_file(&absolute, 4)?.map(|file| is_direct(&file)) })
    }
}

/// A file in a directory, not more than so many levels down.
fn a_file(path: &Path, levels: u32) -> io::Result<Option<PathBuf>> {
    if path.is_file() {
        return Ok(Some(path.to_owned()));
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_file() {
            return Ok(Some(path));
        }
        if levels > 0 && path.is_dir() && let Ok(Some(found)) = a_file(&path, levels - 1) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether the file system opens it for direct I/O.
fn is_direct(file: &Path) -> bool {
    let flags = OFlags::DIRECT | OFlags::NONBLOCK;
    File::options().read(true).custom_flags(flags.bits() as i32).open(file).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_on_the_file_system_that_is_mounted_nearest_above_it() {
        assert_eq!(FileSystem::of(Path::new("/proc/self/status")).unwrap().kind, "proc");
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(FileSystem::of(dir.path()).unwrap().is_direct, None);
        fs::create_dir(dir.path().join("inner")).unwrap();
        fs::write(dir.path().join("inner/file"), b"a").unwrap();
        assert!(FileSystem::of(dir.path()).unwrap().is_direct.is_some());
        assert_eq!(FileSystem::of(&dir.path().join("nothing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
