//! A tree that notes what it is asked, and fails, panics or waits where a test says so.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex};

use crate::reader::ReadError;
use crate::store::StoreError;
use crate::sys::memory_file::MemoryFile;
use crate::vfs::{Attr, DirEntry, Ino, IoMode, Kind, Opened, Status, Tree, TreeError, Warmed, Use};

/// A directory that gets entries while it is mounted.
pub(super) const GROWS: u64 = 2;
/// Files of [`SIZE`] bytes.
pub(super) const DIRECT: u64 = 3;
pub(super) const CACHED: u64 = 4;
/// A file that the kernel is to read by itself, where it can.
pub(super) const WHOLE: u64 = 5;

pub(super) const SIZE: u64 = (8 << 20) + 5;
pub(super) const MODIFIED: Duration = Duration::new(1_700_000_000, 123_456_789);
const PATIENCE: Duration = Duration::from_secs(60);

/// Number, name and kind of all nodes; each is in the root.
pub(super) const NODES: [(u64, &str, Kind); 5] = [
    (1, "", Kind::Directory),
    (GROWS, "grows", Kind::Directory),
    (DIRECT, "direct", Kind::File),
    (CACHED, "cached", Kind::File),
    (WHOLE, "whole", Kind::File),
];

/// What comes of a question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outcome {
    NotFound,
    Io,
    Stale,
    Panic,
    /// Fewer bytes than there are.
    Short,
}

#[derive(Default)]
struct State {
    asked: Vec<String>,
    outcomes: HashMap<String, Outcome>,
    held: HashSet<String>,
    used: Vec<(u64, Use)>,
}

/// The tree. Questions are words: the method, the node, and what tells one from another.
#[derive(Default)]
pub(super) struct Fake {
    state: Mutex<State>,
    changed: Condvar,
}

impl Fake {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// From now on `question` comes out like this.
    pub(super) fn make(&self, question: &str, outcome: Outcome) {
        self.state.lock().outcomes.insert(question.to_owned(), outcome);
    }

    /// Whoever asks this waits until it is let go.
    pub(super) fn hold(&self, question: &str) {
        self.state.lock().held.insert(question.to_owned());
    }

    pub(super) fn let_go(&self, question: &str) {
        self.state.lock().held.remove(question);
        self.changed.notify_all();
    }

    /// Waits until this was asked.
    pub(super) fn wait_for(&self, question: &str) {
        let mut state = self.state.lock();
        while !state.asked.iter().any(|asked| asked == question) {
            let waited = self.changed.wait_for(&mut state, PATIENCE);
            assert!(!waited.timed_out(), "{question} was never asked: {:?}", state.asked);
        }
    }

    /// What was asked so far with this method; all of it without any.
    pub(super) fn asked(&self, method: &str) -> Vec<String> {
        self.state.lock().asked.iter().filter(|asked| asked.starts_with(method)).cloned().collect()
    }

    /// What it was told of the use of its files.
    pub(super) fn used(&self) -> Vec<(u64, Use)> {
        self.state.lock().used.clone()
    }

    /// How a question comes out, when it was let go; notes it first.
    fn answer(&self, question: String) -> Result<Option<Outcome>, TreeError> {
        let mut state = self.state.lock();
        state.asked.push(question.clone());
        self.changed.notify_all();
        while state.held.contains(&question) {
            assert!(!self.changed.wait_for(&mut state, PATIENCE).timed_out(), "{question} was never let go");
        }
        let outcome = state.outcomes.get(&question).copied();
        drop(state);
        match outcome {
            Some(Outcome::NotFound) => Err(TreeError::NotFound),
            Some(Outcome::Io) => Err(TreeError::Io(format!("{question}: cannot be read"))),
            Some(Outcome::Stale) => Err(changed(question)),
            Some(Outcome::Panic) => panic!("{question}, on purpose"),
            other => Ok(other),
        }
    }
}

/// What is read no longer is what it was.
fn changed(path: String) -> TreeError {
    TreeError::Read(ReadError::Store(StoreError::Changed { path, what: "it is another file".into() }))
}

/// The byte at `at` of every file: no offset looks like another one nearby.
fn byte(at: u64) -> u8 {
    (at % 1_048_573).wrapping_mul(2_654_435_761).to_be_bytes()[5]
}

pub(super) fn bytes(range: Range<u64>) -> Vec<u8> {
    range.map(byte).collect()
}

fn kind(ino: Ino) -> Result<Kind, TreeError> {
    NODES.iter().find(|(number, ..)| *number == ino.0).map(|(.., kind)| *kind).ok_or(TreeError::NotFound)
}

impl Tree for Fake {
    fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Attr, TreeError> {
        self.answer(format!("lookup {} {}", parent.0, name.display()))?;
        match kind(parent)? {
            Kind::File | Kind::Link => Err(TreeError::NotDirectory),
            Kind::Directory => {
                let found = NODES.iter().find(|(number, known, _)| *number != 1 && *known == name);
                self.attr(Ino(found.ok_or(TreeError::NotFound)?.0))
            }
        }
    }

    fn attr(&self, ino: Ino) -> Result<Attr, TreeError> {
        self.answer(format!("attr {}", ino.0))?;
        let kind = kind(ino)?;
        let (size, links) = if kind == Kind::File { (SIZE, 1) } else { (0, 3) };
        Ok(Attr { ino, kind, size, links, modified: SystemTime::UNIX_EPOCH + MODIFIED })
    }

    fn parent(&self, ino: Ino) -> Result<Ino, TreeError> {
        self.answer(format!("parent {}", ino.0))?;
        kind(ino).map(|_| Ino::ROOT)
    }

    fn list(&self, ino: Ino) -> Result<Vec<DirEntry>, TreeError> {
        self.answer(format!("list {}", ino.0))?;
        if kind(ino)? == Kind::File {
            return Err(TreeError::NotDirectory);
        }
        let inside = NODES.iter().filter(|(number, ..)| *number != 1 && ino == Ino::ROOT);
        Ok(inside
            .map(|(number, name, kind)| DirEntry { ino: Ino(*number), kind: *kind, name: (*name).into() })
            .collect())
    }

    fn grows(&self, ino: Ino) -> bool {
        self.answer(format!("grows {}", ino.0)).is_ok() && ino.0 == GROWS
    }

    fn total_bytes(&self) -> u64 {
        match self.answer("total_bytes".to_owned()) {
            Ok(_) => 3 * SIZE,
            Err(_) => 0,
        }
    }

    fn io_mode(&self, ino: Ino) -> Result<IoMode, TreeError> {
        self.answer(format!("io_mode {}", ino.0))?;
        match (kind(ino)?, ino.0) {
            (Kind::Directory, _) => Err(TreeError::IsDirectory),
            (Kind::Link, _) => Err(TreeError::NotFound),
            (Kind::File, DIRECT) => Ok(IoMode::Direct),
            (Kind::File, _) => Ok(IoMode::Cached),
        }
    }

    fn open(&self, ino: Ino, passes: bool) -> Result<Opened, TreeError> {
        self.answer(format!("open {} {passes}", ino.0))?;
        if passes && ino.0 == WHOLE {
            return Ok(Opened::Whole(Arc::new(MemoryFile::of(tempfile::tempfile().unwrap()))));
        }
        Ok(Opened::Cached)
    }

    fn close(&self, ino: Ino) {
        let _ = self.answer(format!("close {}", ino.0));
    }

    fn takes_long(&self, ino: Ino) -> bool {
        ino.0 == GROWS
    }

    fn hold(&self, ino: Ino) {
        let _ = self.answer(format!("hold {}", ino.0));
    }

    fn let_go(&self, ino: Ino) {
        let _ = self.answer(format!("let_go {}", ino.0));
    }

    fn warm(&self, ino: Ino, passes: bool) -> Result<Warmed, TreeError> {
        self.answer(format!("warm {} {passes}", ino.0))?;
        Ok(Warmed::Source)
    }

    fn used(&self, ino: Ino, what: Use) {
        self.state.lock().used.push((ino.0, what));
    }

    fn status(&self) -> Status {
        let _ = self.answer("status".to_owned());
        Status { version: "a version".to_owned(), reads: 7, ..Status::default() }
    }

    fn tensor_end(&self, ino: Ino, offset: u64) -> u64 {
        let _ = self.answer(format!("tensor_end {} {offset}", ino.0));
        SIZE
    }

    fn unchanged(&self, ino: Ino, range: Range<u64>) -> Result<(), TreeError> {
        self.answer(format!("unchanged {} {}..{}", ino.0, range.start, range.end)).map(drop)
    }

    fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize, TreeError> {
        let outcome = self.answer(format!("read {} {offset}", ino.0))?;
        let end = (offset + buffer.len() as u64).min(SIZE);
        let mut there = bytes(offset.min(end)..end);
        if outcome == Some(Outcome::Short) {
            there.pop();
        }
        buffer[..there.len()].copy_from_slice(&there);
        Ok(there.len())
    }
}
