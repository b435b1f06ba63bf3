//! Files of a view for programs: read by their paths, and answered over a pair of streams (`pipe`).
//!
//! It is what a mount is for a machine without FUSE. Not here: which view (`view`), how bytes are found (`reader`), a tree with
//! directories (`vfs`), what else a client does with bytes (`python/ckpt_fs`).

#![deny(clippy::disallowed_methods)]

mod messages;
mod pipe;

use std::collections::HashMap;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

pub use pipe::{BLOCK, ExitCodes, answer};

use crate::layout::Format;
use crate::plan::FilePlan;
use crate::reader::{Checksums, CrcMode, Plans, ReadError, Reader};
use crate::view::{PlacedTensor, View, ViewError, ViewFile};

/// Why a file of a view cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No file is called so.
    #[error("the view has no file {0}; `ckpt-fs ls` with the same flags lists those it has")]
    NoFile(String),
    /// More was asked for in one request than is held in memory at a time.
    #[error("{0} bytes were asked for at once; ask for at most {BLOCK}")]
    TooMuch(u64),
    /// The request is none.
    #[error("not a request: {0}")]
    Request(String),
    /// A file cannot be laid out.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The source cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The files of a view, by path.
pub struct Files {
    view: Arc<dyn View>,
    reader: Reader,
    numbers: HashMap<String, usize>,
    checksums: Vec<Checksums>,
    plans: Plans<usize>,
    modified: SystemTime,
}

impl Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("view", &self.view).finish_non_exhaustive()
    }
}

/// One of them, laid out.
#[derive(Debug, Clone)]
pub struct FileOf {
    number: usize,
    plan: Arc<FilePlan>,
}

impl FileOf {
    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.plan.len()
    }
}

impl Files {
    /// The files of `view`, whose source was last changed then.
    #[must_use]
    pub fn new(view: Arc<dyn View>, reader: Reader, crc: CrcMode, modified: SystemTime) -> Self {
        let numbers = view.files().iter().enumerate().map(|(number, file)| (file.path.clone(), number));
        let numbers = numbers.collect();
        let checksums = view.files().iter().map(|_| Checksums::new(crc)).collect();
        Self { view, reader, numbers, checksums, plans: Plans::new(), modified }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[ViewFile] {
        self.view.files()
    }

    /// Their format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.view.format()
    }

    /// What their layout is called in that format.
    #[must_use]
    pub fn layout_name(&self) -> String {
        self.view.format().layout_name(self.view.layout())
    }

    /// The file at `path`.
    ///
    /// # Errors
    /// [`ServeError`]
    pub fn file(&self, path: &str) -> Result<FileOf, ServeError> {
        let number = self.number(path)?;
        if let Some(plan) = self.plans.get(&number) {
            return Ok(FileOf { number, plan });
        }
        Ok(self.lay_out(number)?.0)
    }

    /// The file at `path`, and the tensors in it.
    ///
    /// # Errors
    /// [`ServeError`]
    pub fn with_tensors(&self, path: &str) -> Result<(FileOf, Vec<PlacedTensor>), ServeError> {
        self.lay_out(self.number(path)?)
    }

    /// Fills `out` with the bytes `range` of a file, as far as it has them. `out` may have been used before: it keeps its memory.
    ///
    /// # Errors
    /// [`ReadError`]; `out` then holds nothing of value.
    pub fn read(&self, file: &FileOf, range: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let end = range.end.min(file.bytes());
        let len = end.saturating_sub(range.start) as usize;
        out.resize(len, 0);
        let checksums = self.checksums.get(file.number).ok_or(ReadError::Plan(range.clone()))?;
        let read = self.reader.read(&file.plan, checksums, range.start, out)?;
        if read == len { Ok(()) } else { Err(ReadError::Plan(range)) }
    }

    /// Nanoseconds since 1970.
    fn modified(&self) -> u64 {
        match self.modified.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => since.as_nanos() as u64,
            Err(_) => 0,
        }
    }

    fn number(&self, path: &str) -> Result<usize, ServeError> {
        self.numbers.get(path).copied().ok_or_else(|| ServeError::NoFile(path.to_owned()))
    }

    fn lay_out(&self, number: usize) -> Result<(FileOf, Vec<PlacedTensor>), ServeError> {
        let planned = self.view.plan(number)?;
        let plan = Arc::new(planned.plan);
        self.plans.put(number, plan.clone());
        Ok((FileOf { number, plan }, planned.tensors))
    }
}
