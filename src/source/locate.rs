//! Finds the rank files of a checkpoint: tracker, iteration directory, rank directories.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::SourceError;
use super::aux_files::read_start;
use super::kinds;
use super::workers::in_parallel;
use crate::catalog::Iteration;
use crate::format::instead::Instead;
use crate::format::megatron::{
    DISTRIBUTED_FILE, MODEL_FILE, RELEASE, RankDir, TRACKER, iteration_dir, parse_iteration_dir,
    parse_rank_dir, rank_dir,
};
use crate::layout::{LayoutSpec, Rank};
use crate::store::dangling_link;

/// Which iteration the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IterationChoice {
    /// This one.
    Number(u64),
    /// The release.
    Release,
}

impl std::str::FromStr for IterationChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            RELEASE => Ok(Self::Release),
            _ => text.parse().map(Self::Number).map_err(|_| "expected a number or 'release'".to_owned()),
        }
    }
}

/// Where a checkpoint is.
#[derive(Debug)]
pub(super) struct Located {
    /// The directory that holds the rank directories.
    pub(super) directory: PathBuf,
    /// Its iteration.
    pub(super) iteration: Iteration,
    /// Rank files that are there.
    pub(super) files: Vec<RankPath>,
    /// What follows the name of a rank in that of its file.
    pub(super) ending: String,
}

/// A rank file.
#[derive(Debug)]
pub(super) struct RankPath {
    /// What the name of its directory says.
    pub(super) dir: RankDir,
    /// Name of its directory.
    pub(super) name: String,
    /// The file.
    pub(super) path: PathBuf,
    /// The buffers of a distributed optimizer, where they are beside it.
    pub(super) buffers: Option<PathBuf>,
}

/// Sizes of a layout, before the layers of its stages are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) tp: u32,
    pub(super) pp: u32,
    pub(super) ep: u32,
}

impl Located {
    /// Rank files that a layout of these sizes has and this directory does not.
    pub(super) fn missing(&self, sizes: Sizes) -> Vec<String> {
        let there: HashSet<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        let Sizes { tp, pp, ep } = sizes;
        let ranks =
            (0..pp).flat_map(|pp| (0..tp).flat_map(move |tp| (0..ep).map(move |ep| Rank { pp, tp, ep })));
        ranks
            .map(|rank| rank_dir(rank, pp, ep))
            .filter(|name| !there.contains(name.as_str()))
            .map(|name| format!("{name}{}", self.ending))
            .collect()
    }
}

/// Finds the checkpoint that `path`, a directory with these names in it, means: the root of a run, or the directory of one iteration.
pub(super) fn locate(
    path: &Path,
    names: &[String],
    choice: Option<IterationChoice>,
) -> Result<Located, SourceError> {
    let is_iteration = names.iter().any(|name| parse_rank_dir(name).is_some());
    let (directory, iteration) =
        if is_iteration { iteration_itself(path, choice)? } else { below_root(path, names, choice)? };
    let files = if is_iteration {
        rank_files(&directory, names)?
    } else {
        rank_files(&directory, &list(&directory)?)?
    };
    Ok(Located { directory, iteration, files, ending: format!("/{MODEL_FILE}") })
}

/// The directory of the iteration that is meant, and which one it is, where `path` is the root of a run.
pub(super) fn iteration_below(
    path: &Path,
    names: &[String],
    choice: Option<IterationChoice>,
) -> Result<Option<(PathBuf, Iteration)>, SourceError> {
    let is_iteration = names.iter().any(|name| parse_rank_dir(name).is_some());
    if is_iteration { Ok(None) } else { below_root(path, names, choice).map(Some) }
}

/// The iteration that `path`, the directory of one, says by its name, or the user.
pub(super) fn iteration_of(path: &Path, choice: Option<IterationChoice>) -> Result<Iteration, SourceError> {
    Ok(iteration_itself(path, choice)?.1)
}

/// Whether these are the names in a run of Megatron, whatever else lies in it.
pub(super) fn is_run(names: &[String]) -> bool {
    names.iter().any(|name| name == TRACKER || parse_rank_dir(name).is_some())
        || !iterations(names).is_empty()
}

/// `path` holds rank directories: its own name says the iteration.
fn iteration_itself(
    path: &Path,
    choice: Option<IterationChoice>,
) -> Result<(PathBuf, Iteration), SourceError> {
    let resolved = fs::canonicalize(path).map_err(|source| SourceError::Io { path: path.into(), source })?;
    let name = resolved.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let named = if name == RELEASE {
        Some(Iteration::Release)
    } else {
        parse_iteration_dir(&name).map(Iteration::Number)
    };
    let chosen = choice.map(Iteration::from);
    match (named, chosen) {
        (Some(named), Some(chosen)) if named != chosen => Err(SourceError::NotACheckpoint {
            path: path.into(),
            what: format!("this is iteration {named}, not {chosen}; pass the directory above it"),
        }),
        // A directory of another name (a copy, a link) is what the user calls it, else a release: it needs no number.
        (named, chosen) => Ok((path.into(), named.or(chosen).unwrap_or(Iteration::Release))),
    }
}

/// `path` is the root of a run: the user or the tracker says which iteration.
fn below_root(
    path: &Path,
    names: &[String],
    choice: Option<IterationChoice>,
) -> Result<(PathBuf, Iteration), SourceError> {
    let iteration = match choice {
        Some(choice) => Iteration::from(choice),
        None if names.iter().any(|name| name == TRACKER) => read_tracker(path)?,
        None => {
            let what = format!(
                "there is no {TRACKER}; choose one of {} with --iteration",
                iterations(names).join(", ")
            );
            return Err(SourceError::NotACheckpoint { path: path.into(), what });
        }
    };
    let name = match iteration {
        Iteration::Release => RELEASE.to_owned(),
        Iteration::Number(number) => iteration_dir(number),
    };
    if names.contains(&name) {
        return Ok((path.join(name), iteration));
    }
    if let Some(refusal) = kinds::refusal(path, names, false) {
        return Err(refusal);
    }
    let by = if choice.is_some() { "--iteration asks for" } else { "its tracker names" };
    let there = iterations(names);
    let what = if there.is_empty() {
        format!("{by} {name}, which is not there")
    } else {
        format!("{by} {name}, which is not there; there are: {}", there.join(", "))
    };
    Err(SourceError::NotACheckpoint { path: path.into(), what })
}

fn read_tracker(root: &Path) -> Result<Iteration, SourceError> {
    /// A number, with room for white space.
    const MOST: u64 = 256;
    let path = root.join(TRACKER);
    let text = read_start(&path, MOST)?;
    let text = String::from_utf8_lossy(&text);
    match text.trim() {
        RELEASE => Ok(Iteration::Release),
        number => number.parse().map(Iteration::Number).map_err(|_| {
            let start: String = number.chars().take(40).collect();
            let what = Instead::of_markup(number).map_or_else(
                || format!("expected an iteration number or 'release', found {start:?}"),
                |instead| instead.to_string(),
            );
            SourceError::NotACheckpoint { path, what }
        }),
    }
}

fn iterations(names: &[String]) -> Vec<String> {
    names.iter().filter(|name| *name == RELEASE || parse_iteration_dir(name).is_some()).cloned().collect()
}

fn rank_files(directory: &Path, names: &[String]) -> Result<Vec<RankPath>, SourceError> {
    let ranks: Vec<_> = names.iter().filter_map(|name| Some((name, parse_rank_dir(name)?))).collect();
    let files = in_parallel(&ranks, |(name, dir)| rank_path(directory, name, *dir))?;
    let mut files: Vec<RankPath> = files.into_iter().flatten().collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    if files.is_empty() {
        if let Some(refusal) = kinds::refusal(directory, names, false) {
            return Err(refusal);
        }
        let is_mount = names.iter().any(|name| LayoutSpec::parse(name).is_ok());
        let what = if is_mount {
            "this looks like a mount of many layouts; pass one of the layouts in it".to_owned()
        } else {
            format!("there is no mp_rank_*/{MODEL_FILE} in it")
        };
        return Err(SourceError::NotACheckpoint { path: directory.into(), what });
    }
    Ok(files)
}

/// The files of a rank, where it has its model.
fn rank_path(directory: &Path, name: &str, dir: RankDir) -> Result<Option<RankPath>, SourceError> {
    let path = directory.join(name).join(MODEL_FILE);
    // Only what is not there is missing: a link to nowhere or a directory that may not be read is an error when it is opened.
    match fs::symlink_metadata(&path) {
        Ok(_) => {
            let aux_files = directory.join(name).join(DISTRIBUTED_FILE);
            let buffers = fs::symlink_metadata(&aux_files).is_ok().then_some(aux_files);
            Ok(Some(RankPath { dir, name: name.to_owned(), path, buffers }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match dangling_link(&directory.join(name)) {
            Some(what) => Err(SourceError::NotACheckpoint { path: directory.join(name), what }),
            None => Ok(None),
        },
        Err(source) => Err(SourceError::Io { path, source }),
    }
}

/// Names in the directory `path`.
pub(super) fn list(path: &Path) -> Result<Vec<String>, SourceError> {
    let failed = |source| SourceError::Io { path: path.into(), source };
    let entries = fs::read_dir(path).map_err(|error| {
        let what = dangling_link(path).filter(|_| error.kind() == io::ErrorKind::NotFound);
        what.map_or_else(|| failed(error), |what| SourceError::NotACheckpoint { path: path.into(), what })
    })?;
    let mut names = Vec::new();
    for entry in entries {
        // Names that are not UTF-8 are none of a checkpoint's.
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

impl From<IterationChoice> for Iteration {
    fn from(choice: IterationChoice) -> Self {
        match choice {
            IterationChoice::Number(number) => Self::Number(number),
            IterationChoice::Release => Self::Release,
        }
    }
}
