//! What a run says of its own progress: the file that Megatron writes when a save is over.
//!
//! Not here: what it is compared with (`stamp`).

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::names::Named;
use crate::format::megatron::{RELEASE, TRACKER};
use crate::source::IterationChoice;
use crate::source::aux_files::read_start;

/// A tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tracker {
    says: IterationChoice,
    written: SystemTime,
}

impl Tracker {
    /// The tracker of the run in `directory`; `None` where it has none.
    ///
    /// # Errors
    /// It says nothing that is understood, as while it is written.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, ()> {
        /// A number, with room for white space.
        const MOST: u64 = 256;
        let path = directory.join(TRACKER);
        let time = || fs::metadata(&path).and_then(|metadata| metadata.modified());
        let written = match time() {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(_) => return Err(()),
        };
        let text = read_start(&path, MOST).map_err(drop)?;
        let text = String::from_utf8(text).map_err(drop)?;
        let says = match text.trim() {
            RELEASE => IterationChoice::Release,
            number => IterationChoice::Number(number.parse().map_err(drop)?),
        };
        // The time must be that of what was read.
        if time().is_ok_and(|now| now == written) { Ok(Some(Self { says, written })) } else { Err(()) }
    }

    /// Whether it says this iteration.
    pub(super) fn names(&self, named: &Named) -> bool {
        named.is_megatrons && self.says == named.choice
    }

    /// Whether an iteration was saved by the time it was written, by its number.
    pub(super) fn speaks_for(&self, named: &Named) -> bool {
        let is_before = match (named.choice, self.says) {
            (IterationChoice::Number(number), IterationChoice::Number(last)) => number <= last,
            (own, said) => own == said,
        };
        named.is_megatrons && is_before
    }

    /// Whether it was written after the last file of an iteration that it speaks for.
    pub(super) fn is_newer_than(&self, named: &Named, saved: SystemTime) -> bool {
        self.speaks_for(named) && saved <= self.written
    }
}

impl fmt::Display for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.says {
            IterationChoice::Number(number) => write!(f, "{number}"),
            IterationChoice::Release => f.write_str(RELEASE),
        }
    }
}
