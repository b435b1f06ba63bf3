//! What to say of a directory that is no checkpoint itself: which kind it is of, or which directory below it was meant.
//!
//! Not here: which kinds there are (`kinds`).

use std::fs;
use std::path::{Path, PathBuf};

use super::aux_files::read_start;
use super::locate::{is_run, iteration_below, list, locate};
use super::{SourceError, dcp, dcp_model, hf, kinds, ranks, some_of, torch_dist};
use crate::format::hf::CONFIG;
use crate::format::megatron::{MODEL_FILE, TRACKER};
use crate::layout::LayoutSpec;

/// Why `path`, a directory with these names in it, cannot be opened.
pub(super) fn explain(path: &Path, names: &[String]) -> SourceError {
    let has = |name: &str| names.iter().any(|n| n == name);
    let not_one = |what: String| SourceError::NotACheckpoint { path: path.into(), what };
    if has(MODEL_FILE) {
        return not_one("this is the directory of one rank; pass the directory above it".into());
    }
    if names.iter().any(|name| LayoutSpec::parse(name).is_ok()) {
        return not_one("this looks like a mount of many layouts; pass one of the layouts in it".into());
    }
    if let Some(refusal) = kinds::refusal(path, names, false) {
        return refusal;
    }
    if let Some(what) = in_cache(path, names) {
        return not_one(what);
    }
    let Below { readable, other } = Below::of(path);
    match (readable.as_slice(), other) {
        ([], Some(other)) => return other,
        ([], None) => {}
        ([only], _) => {
            let only = path.join(only);
            return not_one(format!("no checkpoint itself; there is one below it: pass {}", only.display()));
        }
        (several, _) => {
            let several = some_of(several);
            return not_one(format!("no checkpoint itself; there are some below it, pass one of: {several}"));
        }
    }
    if let Some(refusal) = kinds::refusal(path, names, true) {
        return refusal;
    }
    not_one(if has(CONFIG) {
        hf::without_weights()
    } else if names.is_empty() {
        format!(
            "the directory is empty; expected a Megatron checkpoint ({TRACKER}), a Hugging Face model ({CONFIG} with safetensors files) or a distributed one of torch (.metadata)"
        )
    } else {
        format!(
            "neither a Megatron checkpoint ({TRACKER} or a directory mp_rank_00) nor a Hugging Face model ({CONFIG} with safetensors files) nor a distributed one of torch (.metadata)"
        )
    })
}

/// What to say where the directory is that of a model in a cache of the Hugging Face hub, or its `snapshots`.
pub(super) fn in_cache(path: &Path, names: &[String]) -> Option<String> {
    let has = |name: &str| names.iter().any(|n| n == name);
    let model = if path.file_name().is_some_and(|name| name == "snapshots") {
        path.parent()?
    } else {
        Some(path).filter(|_| has("snapshots") && (has("refs") || has("blobs")))?
    };
    let snapshots = model.join("snapshots");
    let there = directories(&snapshots);
    let snapshot = snapshot(model);
    Some(match (snapshot, there.len()) {
        (_, 0) => {
            "this is a cache of the Hugging Face hub without a snapshot; download the model again".into()
        }
        (Some(snapshot), 1) => {
            format!(
                "this is a cache of the Hugging Face hub; pass the snapshot in it: {}",
                snapshot.display()
            )
        }
        (Some(snapshot), count) => format!(
            "this is a cache of the Hugging Face hub with {count} snapshots; that of main is {}",
            snapshot.display()
        ),
        (None, _) => format!(
            "this is a cache of the Hugging Face hub; pass one of the snapshots in {}: {}",
            snapshots.display(),
            some_of(&there)
        ),
    })
}

/// The snapshot of a model in the cache that is meant where none is named: that of its main branch, or the only one.
pub(super) fn snapshot(model: &Path) -> Option<PathBuf> {
    /// The name of a branch holds a hash.
    const HASH: u64 = 256;
    let there = directories(&model.join("snapshots"));
    let main = read_start(&model.join("refs/main"), HASH).ok();
    let main = main.and_then(|hash| String::from_utf8(hash).ok()).map(|hash| hash.trim().to_owned());
    let main = main.filter(|hash| there.contains(hash));
    let only = || there.first().filter(|_| there.len() == 1).cloned();
    Some(model.join("snapshots").join(main.or_else(only)?))
}

/// Checkpoints in the directories below one.
#[derive(Default)]
struct Below {
    /// Those that can be read, by their paths from that directory.
    readable: Vec<String>,
    /// Why the first one of another kind cannot.
    other: Option<SourceError>,
}

/// Levels that are looked at, and directories in all: someone may have passed a whole disk.
const LEVELS: usize = 3;
const MOST: usize = 500;

impl Below {
    fn of(root: &Path) -> Self {
        let mut found = Self::default();
        let mut level = vec![PathBuf::new()];
        let mut room = MOST;
        for _ in 0..LEVELS {
            let mut next = Vec::new();
            for above in &level {
                for name in directories(&root.join(above)) {
                    let Some(rest) = room.checked_sub(1) else { return found };
                    room = rest;
                    let below = above.join(name);
                    if !found.take(root, &below) {
                        next.push(below);
                    }
                }
            }
            // What lies as high as can be is what was meant.
            if !found.readable.is_empty() {
                return found;
            }
            level = next;
        }
        found
    }

    /// Notes a checkpoint; false where the directory is none.
    fn take(&mut self, root: &Path, below: &Path) -> bool {
        let path = root.join(below);
        let Ok(names) = list(&path) else { return true };
        let refusal = if torch_dist::is_checkpoint(&names) || is_distributed_run(&path, &names) {
            None
        } else if is_run(&names) {
            // What else is wrong with a run is said when it is passed.
            locate(&path, &names, None).err().filter(|error| matches!(error, SourceError::Unsupported { .. }))
        } else if ranks::is_checkpoint(&names)
            || hf::has_weights(&names)
            || (dcp_model::is_checkpoint(&names) && !dcp::is_megatrons(&names))
        {
            None
        } else {
            let Some(refusal) = kinds::refusal(&path, &names, false) else { return false };
            Some(refusal)
        };
        match refusal {
            Some(refusal) => _ = self.other.get_or_insert(refusal),
            None => self.readable.push(below.display().to_string()),
        }
        true
    }
}

/// Whether the iteration that a run's tracker names is a distributed checkpoint.
fn is_distributed_run(path: &Path, names: &[String]) -> bool {
    let directory = iteration_below(path, names, None).ok().flatten().filter(|_| is_run(names));
    directory.is_some_and(|(directory, _)| list(&directory).is_ok_and(|names| torch_dist::is_checkpoint(&names)))
}

/// Directories in `path` that are not hidden, by name, those with a number at the end by that: `checkpoint-500` before `checkpoint-1000`.
fn directories(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let is_directory = |entry: &fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_symlink() => fs::metadata(entry.path()).is_ok_and(|target| target.is_dir()),
        kind => kind.is_ok_and(|kind| kind.is_dir()),
    };
    let entries = entries.flatten().take(MOST * 4).filter(is_directory);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort_by_cached_key(|name| {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = name.get(stem.len()..).and_then(|digits| digits.parse::<u64>().ok());
        (stem.to_owned(), number, name.clone())
    });
    names
}
