//! Going on with what a run left behind that was stopped or killed.
//!
//! Nothing in it is trusted: every byte is compared with what it should be (`output`), and what does not belong is removed before anything is
//! opened. Not here: when a directory is left behind (`staging`).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

use super::{MaterializeError, failed};

/// Takes over a staging directory in `parent` whose name begins with `prefix` and that nobody works on; returns it and its lock.
pub(super) fn rename(parent: &Path, prefix: &str) -> Option<(PathBuf, File)> {
    let mut names: Vec<_> = fs::read_dir(parent)
        .ok()?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .collect();
    names.sort_by_key(fs::DirEntry::file_name);
    names.into_iter().find_map(|entry| {
        let about = entry.metadata().ok().filter(|about| about.is_dir() && is_own(about))?;
        let lock = File::open(entry.path()).ok()?;
        let is_same =
            lock.metadata().ok().is_some_and(|now| (now.dev(), now.ino()) == (about.dev(), about.ino()));
        (is_same && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok())
            .then(|| (entry.path(), lock))
    })
}

/// Removes what is not one of `files`, or is no file of this user with one name: a link could lead anywhere. Returns how many bytes of disk
/// those take that stay.
pub(super) fn clean(staging: &Path, files: &BTreeSet<&Path>) -> Result<u64, MaterializeError> {
    clean_below(staging, Path::new(""), files)
}

fn clean_below(staging: &Path, inner: &Path, files: &BTreeSet<&Path>) -> Result<u64, MaterializeError> {
    let folder = staging.join(inner);
    let mut kept = 0;
    for entry in fs::read_dir(&folder).map_err(failed("read", &folder))? {
        let entry = entry.map_err(failed("read", &folder))?;
        let (path, name) = (entry.path(), inner.join(entry.file_name()));
        let about = entry.metadata().map_err(failed("examine", &path))?;
        let is_wanted = is_own(&about)
            && match about.is_dir() {
                true => files.iter().any(|file| file.starts_with(&name) && **file != *name),
                false => about.is_file() && about.nlink() == 1 && files.contains(&*name),
            };
        if !is_wanted {
            remove(&path, about.is_dir()).map_err(failed("remove", &path))?;
        } else if about.is_dir() {
            kept += clean_below(staging, &name, files)?;
        } else {
            kept += about.blocks() * BLOCK;
        }
    }
    Ok(kept)
}

/// What `st_blocks` counts in.
const BLOCK: u64 = 512;

fn is_own(about: &fs::Metadata) -> bool {
    about.uid() == geteuid().as_raw()
}

fn remove(path: &Path, is_directory: bool) -> io::Result<()> {
    if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_files_that_are_written_again_stay() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("staging");
        fs::create_dir_all(root.join("iter/rank_0")).unwrap();
        fs::create_dir_all(root.join("iter/rank_9")).unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "precious").unwrap();
        fs::write(root.join("iter/rank_0/a.pt"), vec![1; 5000]).unwrap();
        fs::write(root.join("iter/rank_9/a.pt"), "of another layout").unwrap();
        symlink(&outside, root.join("iter/rank_0/b.pt")).unwrap();
        fs::hard_link(&outside, root.join("iter/rank_0/c.pt")).unwrap();
        symlink(dir.path(), root.join("iter/rank_1")).unwrap();
        fs::create_dir(root.join("iter/rank_0/d.pt")).unwrap();
        let names = ["a", "b", "c", "d"].map(|name| format!("iter/rank_0/{name}.pt"));
        let files = names.iter().map(Path::new).chain([Path::new("iter/rank_1/outside")]).collect();
        assert_eq!(clean(&root, &files).unwrap(), 8192);
        let left: Vec<_> =
            fs::read_dir(root.join("iter/rank_0")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["a.pt"]);
        assert!(!root.join("iter/rank_9").exists() && !root.join("iter/rank_1").exists());
        assert_eq!(fs::read_to_string(outside).unwrap(), "precious");
    }

    #[test]
    fn what_somebody_works_on_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        assert!(rename(dir.path(), ".out.").is_none());
        fs::create_dir(dir.path().join(".out.1")).unwrap();
        fs::create_dir(dir.path().join(".other.1")).unwrap();
        fs::write(dir.path().join(".out.0"), "no directory").unwrap();
        let (path, _lock) = rename(dir.path(), ".out.").unwrap();
        assert_eq!(path, dir.path().join(".out.1"));
        assert!(rename(dir.path(), ".out.").is_none());
    }
}
