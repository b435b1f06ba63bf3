//! What is in the directory of an iteration, as far as names, sizes and times tell.
//!
//! Not here: what follows from it (`run`).

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Levels of directories in an iteration: no format has more.
const LEVELS: usize = 3;

/// Files that are looked at. No checkpoint has so many.
const MOST: usize = 200_000;

/// Ends of the names of files that weights are read from, or how. Who writes results beside them changes nothing.
const WEIGHTS: [&str; 9] = [
    ".pt",
    ".distcp",
    ".metadata",
    ".safetensors",
    ".bin",
    ".safetensors.index.json",
    "metadata.json",
    "config.json",
    "run_config.yaml",
];

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// A number for all files.
    pub(super) all: u64,
    /// A number for those that weights are read from.
    pub(super) weights: u64,
    /// When the last of those was written.
    pub(super) saved: SystemTime,
    /// When the first of them was.
    pub(super) began: SystemTime,
    /// When anything changed last, or came to where it is: nobody can set that time.
    pub(super) newest: SystemTime,
}

impl Stamp {
    /// What is at `path` now.
    ///
    /// # Errors
    /// What cannot be looked at.
    pub(super) fn of(path: &Path) -> Result<Self, String> {
        let mut found = BTreeMap::new();
        let mut level = vec![path.to_owned()];
        for _ in 0..LEVELS {
            let mut next = Vec::new();
            for directory in level {
                list(&directory, &mut found, &mut next)?;
            }
            level = next;
        }
        let (mut all, mut weights) = (DefaultHasher::new(), DefaultHasher::new());
        let (mut saved, mut newest) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        let mut began: Option<SystemTime> = None;
        for (path, metadata) in &found {
            let modified = time(metadata.mtime(), metadata.mtime_nsec());
            let changed = time(metadata.ctime(), metadata.ctime_nsec());
            newest = newest.max(modified).max(changed);
            if metadata.is_dir() {
                continue;
            }
            let identity =
                (metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec());
            (path, identity).hash(&mut all);
            let name = path.to_string_lossy();
            if WEIGHTS.iter().any(|end| name.ends_with(end)) {
                (path, identity).hash(&mut weights);
                saved = saved.max(modified);
                began = Some(began.map_or(modified, |began| began.min(modified)));
            }
        }
        Ok(Self { all: all.finish(), weights: weights.finish(), saved, began: began.unwrap_or(saved), newest })
    }
}

fn list(
    directory: &Path,
    found: &mut BTreeMap<PathBuf, Metadata>,
    directories: &mut Vec<PathBuf>,
) -> Result<(), String> {
    let failed = |path: &Path, error| format!("{} cannot be looked at: {error}", path.display());
    let entries = fs::read_dir(directory).map_err(|error| failed(directory, error))?;
    for entry in entries {
        let path = entry.map_err(|error| failed(directory, error))?.path();
        // Links are followed as opening does; one that leads nowhere is a thing of its own.
        let metadata = fs::metadata(&path).or_else(|_| fs::symlink_metadata(&path));
        let metadata = metadata.map_err(|error| failed(&path, error))?;
        if metadata.is_dir() {
            directories.push(path.clone());
        }
        found.insert(path, metadata);
        if found.len() > MOST {
            return Err(format!("it has more than {MOST} files"));
        }
    }
    Ok(())
}

/// A time as stat tells it; what cannot be said is as old as can be.
fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let nanoseconds = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
    SystemTime::UNIX_EPOCH.checked_add(seconds + nanoseconds).unwrap_or(SystemTime::UNIX_EPOCH)
}
