//! The iterations of a run that may still be running: which there are, and which are whole.
//!
//! A save takes minutes and is seen while it lasts: directories come first, files one by one, and what says that all of them are there
//! comes last. Whoever looks gets three answers. The tracker speaks for an iteration that it names or that came before, as long as nothing
//! in it is newer than the tracker: that is how Megatron says that a save is over, also one that overwrites an older save of that number.
//! An iteration that nobody speaks for may be whole once its files have been left alone for a while; it is for opening it to tell. Any
//! other one is waited for, and why is said.
//!
//! Not here: opening an iteration (`open`), which of them a mount keeps open (`vfs`).

mod names;
mod stamp;
mod tracker;

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::{IterationChoice, SourceError, dcp, hf, kinds, locate, nowhere, ranks};
use crate::format::megatron::parse_rank_dir;
use crate::store::dangling_link;
use names::Named;
use stamp::Stamp;
use tracker::Tracker;

/// How long ago everything in a directory has changed that nobody is writing to, also where the clock of the storage and ours differ.
const LONG_AGO: Duration = Duration::from_secs(10 * 60);

/// Files of one save are not written further apart. Where a save was cut short that overwrote an older one, they are of two.
const LONGEST_SAVE: Duration = Duration::from_secs(60 * 60);

/// Time in which a second change of a directory may bear the same time stamp as the first, also on network storage.
const TICK: Duration = Duration::from_secs(2);

/// A directory with the iterations of a run.
#[derive(Debug)]
pub struct Run {
    directory: PathBuf,
    /// How long files must have been left alone where no tracker speaks for them.
    settle: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    listed: Option<Listed>,
    tracker: Option<Tracker>,
    /// Iterations that the tracker's word is not enough for: something was found wrong with them.
    doubted: HashSet<String>,
    /// What was seen of iterations that nobody speaks for, and since when it is so.
    seen: HashMap<String, (u64, Instant)>,
    /// What was in iterations that were found whole.
    whole: HashMap<String, u64>,
    /// Directories of iterations whose names of files were found in order.
    plausible: HashMap<String, (u64, i64, i64)>,
}

/// The names of iterations, and by which looks of the directory they are still right.
#[derive(Debug, Clone)]
struct Listed {
    look: Look,
    names: Vec<Named>,
}

/// What the directory of a run looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    inode: (u64, u64),
    modified: (i64, i64),
    /// Whether it had not changed for a while then.
    is_old: bool,
}

/// An iteration that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iteration {
    /// Name of its directory.
    pub name: String,
    /// How it is asked for.
    pub choice: IterationChoice,
    /// Whether the tracker names it.
    pub is_tracked: bool,
    /// Device and inode of its directory; those of a link are those of what it leads to.
    pub place: (u64, u64),
    /// When its directory changed last.
    pub modified: SystemTime,
    /// Whether it is whole.
    pub state: Saved,
}

/// How far an iteration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// The tracker says that it was saved.
    Whole,
    /// It has not changed for long enough: it is whole if it can be opened.
    Quiet,
    /// It is not to be looked into, and why.
    Waiting(String),
}

impl Run {
    /// The run in `directory`, where files that no tracker speaks for must have been left alone for so long.
    ///
    /// # Errors
    /// [`SourceError`] where that is no directory, or a checkpoint itself.
    pub fn open(directory: &Path, settle: Duration) -> Result<Self, SourceError> {
        let names = nowhere::names(directory)?;
        let has_iterations = names.iter().any(|name| Named::parse(name).is_some());
        let is_run = locate::is_run(&names) || has_iterations;
        let is_iteration = names.iter().any(|name| parse_rank_dir(name).is_some());
        let is_checkpoint = ranks::is_checkpoint(&names) || hf::has_weights(&names) || dcp::is_checkpoint(&names);
        if is_iteration || (is_checkpoint && !is_run) {
            let what = "this is one checkpoint, not a run of several; leave --iteration all out, or pass the directory above it";
            return Err(SourceError::NotACheckpoint { path: directory.into(), what: what.into() });
        }
        // One that has saved nothing yet has nothing of any kind.
        match kinds::refusal(directory, &names, false).filter(|_| !has_iterations) {
            Some(refusal) => Err(refusal),
            None => Ok(Self { directory: directory.to_owned(), settle, state: Mutex::default() }),
        }
    }

    /// Where the iteration called `name` is opened, and what is asked for there: a run of Megatron as a whole, steps of others by their
    /// directories. `None` for what is no name of an iteration.
    #[must_use]
    pub fn source_of(&self, name: &str) -> Option<(PathBuf, IterationChoice)> {
        let named = Named::parse(name)?;
        let path = if named.is_megatrons { self.directory.clone() } else { self.directory.join(name) };
        Some((path, named.choice))
    }

    /// The iterations that there are now, in the order of their numbers.
    ///
    /// # Errors
    /// The directory cannot be listed. One that is gone has no iterations.
    pub fn look(&self) -> io::Result<Vec<Iteration>> {
        // Storage is asked without the lock: who examines an iteration meanwhile need not wait, and one may be a link to a mount of this run.
        let before = self.state.lock().listed.clone();
        let Some(listed) = Listed::of(&self.directory, before)? else {
            *self.state.lock() = State::default();
            return Ok(Vec::new());
        };
        let tracker = Tracker::read(&self.directory);
        let mut state = self.state.lock();
        state.retain(&listed.names);
        // One that cannot be read is being written: what it said before holds until it says something else.
        if let Ok(tracker) = tracker {
            state.tracker = tracker;
        }
        state.listed = Some(listed.clone());
        drop(state);
        let found = listed.names.into_iter().filter_map(|named| self.iteration(named));
        Ok(found.collect())
    }

    /// A number for what is in the directory of an iteration now, the same for as long as its weights are the same.
    ///
    /// # Errors
    /// Why it is not to be looked into, in words that follow its name.
    pub fn examine(&self, name: &str) -> Result<u64, String> {
        let Some(named) = Named::parse(name) else { return Err("it is no iteration".to_owned()) };
        let stamp = Stamp::of(&self.directory.join(name))?;
        self.state.lock().judge(&named, stamp, self.settle)
    }

    /// Something is wrong with an iteration: from now on the tracker's word is not enough to show it.
    pub fn doubt(&self, name: &str) {
        self.state.lock().doubted.insert(name.to_owned());
    }

    /// What there is to say of one name; `None` where it went away meanwhile.
    fn iteration(&self, named: Named) -> Option<Iteration> {
        let path = self.directory.join(&named.name);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => return None,
            Err(error) => {
                let what = dangling_link(&path);
                let why = what.unwrap_or_else(|| format!("it cannot be looked at: {error}"));
                return Some(named.found((0, 0), SystemTime::UNIX_EPOCH, false, Saved::Waiting(why)));
            }
        };
        let is_tracked = self.state.lock().tracker.is_some_and(|tracker| tracker.names(&named));
        let place = (metadata.dev(), metadata.ino());
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let saved = self.saved(&named, &path, &metadata);
        Some(named.found(place, modified, is_tracked, saved))
    }

    fn saved(&self, named: &Named, path: &Path, metadata: &Metadata) -> Saved {
        if !metadata.is_dir() {
            return Saved::Waiting("it is no directory".to_owned());
        }
        if let Some(why) = named.misspelled() {
            return Saved::Waiting(why);
        }
        if let Err(why) = self.plausible(named, path, metadata) {
            return Saved::Waiting(why);
        }
        let state = self.state.lock();
        let is_spoken_for = state.tracker.is_some_and(|tracker| tracker.speaks_for(named));
        if is_spoken_for && !state.doubted.contains(&named.name) {
            return Saved::Whole;
        }
        drop(state);
        let stamp = match Stamp::of(path) {
            Ok(stamp) => stamp,
            Err(why) => return Saved::Waiting(why),
        };
        let mut state = self.state.lock();
        match state.judge(named, stamp, self.settle) {
            Ok(_) if is_spoken_for => {
                state.doubted.remove(&named.name);
                Saved::Whole
            }
            Ok(_) => Saved::Quiet,
            Err(why) => Saved::Waiting(why),
        }
    }

    /// Whether the names in the directory of an iteration can be those of a whole one.
    fn plausible(&self, named: &Named, path: &Path, metadata: &Metadata) -> Result<(), String> {
        let now = (metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
        if self.state.lock().plausible.get(&named.name) == Some(&now) {
            return Ok(());
        }
        let names = locate::list(path).map_err(|error| error.to_string())?;
        named.plausible(&names)?;
        self.state.lock().plausible.insert(named.name.clone(), now);
        Ok(())
    }
}

impl Listed {
    /// What is in the directory, which is not read again where it is as it was before; `None` where it is gone.
    fn of(directory: &Path, before: Option<Self>) -> io::Result<Option<Self>> {
        let metadata = match fs::metadata(directory) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // One that has just changed may change again without a sign.
        let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
        let look = Look {
            inode: (metadata.dev(), metadata.ino()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            is_old: age.is_some_and(|age| age > TICK),
        };
        if before.as_ref().is_some_and(|before| before.look == look && look.is_old) {
            return Ok(before);
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            // Names that are not UTF-8 are none of a run's.
            names.extend(entry?.file_name().into_string().ok().and_then(|name| Named::parse(&name)));
        }
        names.sort();
        Ok(Some(Self { look, names }))
    }
}

impl State {
    /// Forgets what is no more.
    fn retain(&mut self, names: &[Named]) {
        let all: HashSet<&str> = names.iter().map(|named| named.name.as_str()).collect();
        let there = |name: &String| all.contains(name.as_str());
        self.doubted.retain(&there);
        self.seen.retain(|name, _| there(name));
        self.whole.retain(|name, _| there(name));
        self.plausible.retain(|name, _| there(name));
    }

    /// Whether an iteration in which this was found may be opened.
    fn judge(&mut self, named: &Named, stamp: Stamp, settle: Duration) -> Result<u64, String> {
        // What was whole is so for as long as nothing in it changes, whatever becomes of the tracker.
        if self.whole.get(&named.name) != Some(&stamp.weights) {
            self.wait(named, stamp, settle)?;
            self.seen.remove(&named.name);
            self.whole.insert(named.name.clone(), stamp.weights);
        }
        Ok(stamp.weights)
    }

    /// Whether nothing has to be waited for.
    fn wait(&mut self, named: &Named, stamp: Stamp, settle: Duration) -> Result<(), String> {
        let is_saved = self.tracker.as_ref().is_some_and(|tracker| tracker.is_newer_than(named, stamp.saved));
        if is_saved {
            return Ok(());
        }
        let took = stamp.saved.duration_since(stamp.began);
        if named.is_megatrons && took.is_ok_and(|took| took > LONGEST_SAVE) {
            return Err("no tracker says that it is saved, and its files were written more than an hour apart, as those of two saves are; --iteration N shows it alone".to_owned());
        }
        if stamp.newest.elapsed().is_ok_and(|age| age > LONG_AGO.max(settle)) {
            return Ok(());
        }
        let now = Instant::now();
        let (all, since) = self.seen.entry(named.name.clone()).or_insert((stamp.all, now));
        if *all != stamp.all {
            (*all, *since) = (stamp.all, now);
        }
        if now.duration_since(*since) >= settle {
            return Ok(());
        }
        let settle = settle.as_secs();
        Err(match self.tracker {
            Some(tracker) if tracker.speaks_for(named) => format!(
                "it has files that are newer than the tracker, as one that is saved again has; it is shown when the tracker is written, or when they have not changed for {settle} s"
            ),
            Some(tracker) => format!(
                "the tracker says {tracker}, and its files changed a moment ago; it is shown when the tracker has come to it, or when they have not changed for {settle} s"
            ),
            None => format!("its files changed a moment ago; it is shown when they have not changed for {settle} s"),
        })
    }
}


#[cfg(test)]
mod tests;
