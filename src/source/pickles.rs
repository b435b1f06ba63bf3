//! What the pickles of a checkpoint name, whatever else is wrong with it: no family, no layout and no tensor is asked about.
//!
//! Not here: which of these names are harmless (`inspect`).

use std::fs;
use std::path::{Path, PathBuf};

use super::dcp;
use super::torch_file::Reader;
use super::workers::{Turn, in_parallel};
use super::{IterationChoice, SourceError, locate, nowhere};
use crate::format::pickle;
use crate::store::{FileStore, OpenFile, Reads, StoreError, consistent};
use crate::value::Global;

/// A file that holds pickles, or should.
#[derive(Debug, Clone)]
pub struct PickleFile {
    /// The file.
    pub path: PathBuf,
    /// Every class and function that its pickles name, and how often it is used.
    pub globals: Vec<(Global, u64)>,
    /// Why not all of it could be looked at.
    pub problem: Option<String>,
}

/// Endings of files that Python's loaders take for pickles, alone or in an archive.
const ENDINGS: &[&str] = &[".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".distcp", ".tar"];

/// A pickle that is larger is not looked at: see `torch_file`.
const MOST: u64 = 1 << 26;

/// More pickles than this one after the other are not looked at. Torch before 1.6 wrote five, and weights behind them.
const PICKLES: usize = 64;

/// Goes through every pickle of the checkpoint at `path`: of its rank files, or, where it is no Megatron checkpoint, of the files that
/// are directly in it; of the file, where it is one.
///
/// # Errors
/// [`SourceError`] where the directory cannot be read, or no iteration can be found in it.
pub fn pickles(path: &Path, iteration: Option<IterationChoice>) -> Result<Vec<PickleFile>, SourceError> {
    let jobs: Vec<Job> = files(path, iteration)?.into_iter().map(Job::of).collect();
    // What is wrong with a file is part of the answer.
    in_parallel(&jobs, |job| Ok(survey(job)))
}

/// A file to be looked into.
struct Job {
    path: PathBuf,
    /// First byte and length of the archives that it is, where a `.metadata` beside it says so; else it is one itself.
    pieces: Option<Vec<(u64, u64)>>,
}

impl Job {
    fn of(path: PathBuf) -> Self {
        let is_data = path.extension().is_some_and(|ending| ending == DATA);
        let pieces = path.parent().zip(path.file_name()).filter(|_| is_data).and_then(|(directory, name)| {
            let names = locate::list(directory).ok()?;
            dcp::pieces_of_file(directory, &names, name.to_str()?)
        });
        Self { path, pieces }
    }
}

/// What data files of a distributed checkpoint end in.
const DATA: &str = "distcp";

fn files(path: &Path, iteration: Option<IterationChoice>) -> Result<Vec<PathBuf>, SourceError> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let names = nowhere::names(path)?;
    if locate::is_run(&names) {
        match locate::locate(path, &names, iteration) {
            Ok(located) => {
                let files = located.files.into_iter();
                return Ok(files.flat_map(|file| [Some(file.path), file.buffers]).flatten().collect());
            }
            // The iteration may be of another kind.
            Err(SourceError::Unsupported { path, what }) => {
                let files = loose(Path::new(&path))?;
                return if files.is_empty() {
                    Err(SourceError::Unsupported { path, what })
                } else {
                    Ok(files)
                };
            }
            Err(error) => return Err(error),
        }
    }
    loose(path)
}

/// The files in a directory that may hold pickles.
fn loose(path: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let names = locate::list(path)?.into_iter();
    let is_one = |name: &String| name == ".metadata" || ENDINGS.iter().any(|ending| name.ends_with(ending));
    let files = names.filter(is_one).map(|name| path.join(name));
    Ok(files.filter(|file| !fs::metadata(file).is_ok_and(|file| file.is_dir())).collect())
}

fn survey(job: &Job) -> PickleFile {
    let mut found = PickleFile { path: job.path.clone(), globals: Vec::new(), problem: None };
    if let Err(error) = look_into(job, &mut found) {
        found.problem = Some(error.to_string());
    }
    found
}

fn look_into(job: &Job, found: &mut PickleFile) -> Result<(), SourceError> {
    let store = FileStore::default();
    let object = store.take(OpenFile::open(&job.path)?)?;
    let name = job.path.display().to_string();
    consistent(&store, object, |reads| {
        if let Some(pieces) = &job.pieces {
            return pieces.iter().try_for_each(|(offset, len)| archive(reads.part(*offset, *len)?, &name, found));
        }
        let start = beginning(reads, 2)?;
        // A bare pickle says its protocol first; so does a file of torch before 1.6.
        if let [0x80, _] = start.as_slice() {
            return bare(reads, found);
        }
        archive(reads, &name, found)
    })
}

/// The pickles in an archive.
fn archive(reads: Reads<'_>, name: &str, found: &mut PickleFile) -> Result<(), SourceError> {
    let mut reader = Reader::new(reads, name)?;
    let entries = reader.entries()?;
    for entry in entries.iter().filter(|entry| entry.name.ends_with(".pkl")) {
        let bytes = reader.content(entry, MOST, 0)?;
        let _turn = Turn::for_bytes(entry.size);
        let survey = pickle::survey(&bytes);
        let problem = survey.problem.map(|problem| format!("{}: {problem}", entry.name));
        add(found, survey.globals, problem);
    }
    Ok(())
}

/// Pickles one after the other, and what else may follow them.
fn bare(reads: Reads<'_>, found: &mut PickleFile) -> Result<(), SourceError> {
    let bytes = beginning(reads, MOST)?;
    let _turn = Turn::for_bytes(bytes.len() as u64);
    let mut rest = bytes.as_slice();
    for number in 0..PICKLES {
        // Behind the first, only what begins like one is one.
        if number > 0 && rest.first() != Some(&0x80) {
            break;
        }
        let survey = pickle::survey(rest);
        let failed = survey.problem.is_some();
        add(found, survey.globals, survey.problem.map(|problem| format!("pickle {number}: {problem}")));
        rest = rest.get(survey.len..).unwrap_or_default();
        if failed {
            break;
        }
    }
    Ok(())
}

fn beginning(reads: Reads<'_>, most: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; usize::try_from(reads.len()?.min(most)).unwrap_or(0)];
    reads.read_exact_at(0, &mut bytes)?;
    Ok(bytes)
}

fn add(found: &mut PickleFile, globals: Vec<(Global, u64)>, problem: Option<String>) {
    found.globals.extend(globals);
    found.problem = found.problem.take().or(problem);
}
