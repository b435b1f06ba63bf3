//! Holds files on disk against those of a view, byte for byte: whether they are copies of it, of some ranks or of all.
//!
//! Checksum fields may be zeros, as in a mount, or true. Not here: which view it is, and checkpoints that are no copies (`verify`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Hooks;
use crate::parallel::{Failed, Pool};
use crate::plan::{FilePlan, Segment};
use crate::reader::{BLOCK, Checksums, CrcMode, ReadError, Reader, Sums};
use crate::tensor::Shape;
use crate::view::{PlacedTensor, PlannedFile, View, ViewError};

/// What was found in a directory.
#[derive(Debug, Default)]
pub struct Copies {
    /// Files that were compared.
    pub files: usize,
    /// Files that the view has.
    pub all: usize,
    /// Bytes compared.
    pub bytes: u64,
    /// What differs, in the order of the view; then files that it does not have.
    pub differences: Vec<CopyDifference>,
}

/// A file that is not as in the view.
#[derive(Debug, PartialEq, Eq)]
pub struct CopyDifference {
    /// Its path in the directory.
    pub file: String,
    /// What is wrong with it.
    pub what: CopyProblem,
}

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq)]
pub enum CopyProblem {
    /// The view has no such file.
    NotOfView,
    /// It is shorter or longer.
    Size {
        /// Bytes in the view.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },
    /// It cannot be read.
    Unreadable(String),
    /// A byte differs.
    Bytes {
        /// The first of them.
        at: u64,
        /// The tensor that it is in, and the element.
        tensor: Option<(String, Vec<u64>)>,
    },
}

impl std::fmt::Display for CopyDifference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = &self.file;
        match &self.what {
            CopyProblem::NotOfView => write!(f, "{file} is no file of the view"),
            CopyProblem::Size { expected, found } => {
                write!(f, "{file} has {found} bytes, and {expected} in the view")
            }
            CopyProblem::Unreadable(why) => write!(f, "{file} cannot be read: {why}"),
            CopyProblem::Bytes { at, tensor: Some((name, index)) } => {
                let index = Shape(index.clone());
                write!(f, "{file} differs from byte {at} on: {name} from element {index} on")
            }
            CopyProblem::Bytes { at, tensor: None } => {
                write!(f, "{file} differs from byte {at} on, beside its tensors")
            }
        }
    }
}

/// Why files cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A file of the view cannot be laid out.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The source cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file on disk cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nothing there is a file of the view.
    #[error("{}: none of its {files} files is one of a view as {view}; say with --as, --tp, --pp .. which view they are copies of", path.display())]
    NoneOfView {
        /// The directory.
        path: PathBuf,
        /// Files in it.
        files: usize,
        /// What the view is.
        view: String,
    },
    /// None of the files has tensors.
    #[error("{}: none of the files of the view that hold tensors is there, so nothing of the model was compared", .0.display())]
    NoTensors(PathBuf),
    /// Stopped from outside.
    #[error("stopped")]
    Stopped,
    /// Comparing panicked.
    #[error("comparing failed by a bug in ckpt-fs; the lines before say where")]
    Bug,
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> CopyError {
    move |source| CopyError::Io { path: path.to_owned(), source }
}

/// Compares every file below `directory` with that of the same name in the view.
///
/// # Errors
/// [`CopyError`]
pub fn compare_copies(
    view: &dyn View,
    reader: &Reader,
    directory: &Path,
    hooks: &Hooks<'_>,
) -> Result<Copies, CopyError> {
    let numbers: BTreeMap<&str, usize> =
        view.files().iter().enumerate().map(|(number, file)| (file.path.as_str(), number)).collect();
    let found = files_below(directory)?;
    let prefix = iteration_of(&found, &numbers);
    let mut wanted = Vec::new();
    let mut strangers = Vec::new();
    for file in &found {
        match numbers.get(format!("{prefix}{file}").as_str()) {
            Some(number) => wanted.push((*number, file)),
            None => strangers.push(CopyDifference { file: file.clone(), what: CopyProblem::NotOfView }),
        }
    }
    if wanted.is_empty() {
        let view = format!("{} {}", view.format(), view.format().layout_name(view.layout()));
        return Err(CopyError::NoneOfView { path: directory.to_owned(), files: found.len(), view });
    }
    wanted.sort();
    let pool = Pool::new(hooks.jobs).stopped_by(hooks.stop);
    let results = pool.map(&wanted, |(number, file)| {
        let planned = view.plan(*number)?;
        let problem = problem(&planned, reader, &directory.join(file), hooks)?;
        Ok((planned.plan.len(), !planned.tensors.is_empty(), problem))
    });
    let results = results.map_err(|failed| match failed {
        Failed::Work(error) => error,
        Failed::Stopped => CopyError::Stopped,
        Failed::Panicked => CopyError::Bug,
    })?;
    if !results.iter().any(|(_, has_tensors, _)| *has_tensors) {
        return Err(CopyError::NoTensors(directory.to_owned()));
    }
    let bytes = results.iter().filter(|(.., problem)| problem.is_none()).map(|(bytes, ..)| bytes).sum();
    let named = wanted.iter().zip(results).filter_map(|((_, file), (.., problem))| {
        Some(CopyDifference { file: String::clone(file), what: problem? })
    });
    let differences = named.chain(strangers).collect();
    Ok(Copies { files: wanted.len(), all: view.files().len(), bytes, differences })
}

/// Paths of all files below, `/`-separated, in order; links are followed to files and not to directories.
fn files_below(root: &Path) -> Result<BTreeSet<String>, CopyError> {
    let mut files = BTreeSet::new();
    let mut left = vec![String::new()];
    while let Some(folder) = left.pop() {
        let path = if folder.is_empty() { root.to_owned() } else { root.join(&folder) };
        for entry in fs::read_dir(&path).map_err(io_error(&path))? {
            let entry = entry.map_err(io_error(&path))?;
            let name = entry.file_name();
            // A name that is no text is no name of a view, whatever it is shown as.
            let name = name.to_string_lossy();
            let inner = if folder.is_empty() { name.into_owned() } else { format!("{folder}/{name}") };
            let kind = entry.file_type().map_err(io_error(&entry.path()))?;
            if kind.is_dir() && entry.file_name().to_str().is_some() {
                left.push(inner);
            } else {
                files.insert(inner);
            }
        }
    }
    Ok(files)
}

/// The directory of an iteration that is missing in front of the names, with its slash, where it was copied alone.
fn iteration_of(found: &BTreeSet<String>, numbers: &BTreeMap<&str, usize>) -> String {
    let is_there = |path: &str| numbers.contains_key(path);
    if found.iter().any(|file| is_there(file)) {
        return String::new();
    }
    let inner = |path: &&&str| path.split_once('/').is_some_and(|(_, inner)| found.contains(inner));
    match numbers.keys().find(inner).and_then(|path| path.split_once('/')) {
        Some((directory, _)) => format!("{directory}/"),
        None => String::new(),
    }
}

/// In what a file on disk is not the planned one.
fn problem(
    planned: &PlannedFile,
    reader: &Reader,
    path: &Path,
    hooks: &Hooks<'_>,
) -> Result<Option<CopyProblem>, CopyError> {
    let plan = &planned.plan;
    // Looked at before it is opened: opening a pipe waits for somebody who writes.
    let opened = fs::metadata(path).and_then(|about| match about.is_file() {
        true => Ok((File::open(path)?, about)),
        false => Err(io::Error::other("it is no regular file")),
    });
    let (file, about) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(Some(CopyProblem::Unreadable(error.to_string()))),
    };
    if about.len() != plan.len() {
        return Ok(Some(CopyProblem::Size { expected: plan.len(), found: about.len() }));
    }
    let mut sums = Sums::new(plan);
    let checksums = Checksums::new(CrcMode::Exact);
    let (mut wanted, mut found) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut at = 0;
    while at < plan.len() {
        if hooks.stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(CopyError::Stopped);
        }
        let len = sums.fill((reader, plan), &checksums, at, &mut wanted)?;
        let short = || ReadError::Plan(at..plan.len());
        let (wanted, found) = (wanted.get(..len).ok_or_else(short)?, found.get_mut(..len).ok_or_else(short)?);
        if let Err(error) = file.read_exact_at(found, at) {
            return Ok(Some(CopyProblem::Unreadable(error.to_string())));
        }
        if let Some(byte) = first_that_differs(plan, at, wanted, found) {
            return Ok(Some(CopyProblem::Bytes { at: byte, tensor: holder(&planned.tensors, byte) }));
        }
        (hooks.done)(len as u64);
        at += len as u64;
    }
    Ok(None)
}

/// The first byte of the file that differs, but for checksum fields that hold zeros.
fn first_that_differs(plan: &FilePlan, at: u64, wanted: &[u8], found: &mut [u8]) -> Option<u64> {
    if wanted == found {
        return None;
    }
    let end = at + wanted.len() as u64;
    for (start, segment) in plan.located() {
        if let (Segment::Crc32(_), true) = (segment, (at..end).contains(&start) || (at..end).contains(&(start + 3))) {
            let (low, high) = (start.max(at) - at, (start + 4).min(end) - at);
            let range = low as usize..high as usize;
            if let (Some(field), Some(sum)) = (found.get_mut(range.clone()), wanted.get(range))
                && field.iter().all(|byte| *byte == 0)
            {
                field.copy_from_slice(sum);
            }
        }
    }
    let same = wanted.iter().zip(found.iter()).take_while(|(a, b)| a == b).count();
    (same < wanted.len()).then_some(at + same as u64)
}

/// The tensor that a byte of the file belongs to, and the index of the element.
fn holder(tensors: &[PlacedTensor], byte: u64) -> Option<(String, Vec<u64>)> {
    let tensor = tensors.iter().find(|tensor| tensor.bytes.contains(&byte))?;
    let element = (byte - tensor.bytes.start) / tensor.dtype.size();
    Some((tensor.name.to_string(), tensor.shape.index_of(element)))
}
