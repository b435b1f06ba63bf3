//! The tree of a whole run: a directory for each iteration, which is the tree of a mount of that one, and a link to the newest.
//!
//! An iteration is opened when somebody enters it, and closed when others were entered since and nothing of it is open. Its nodes keep
//! their numbers meanwhile: numbers are made of names, and the names that lead to a node are remembered for as long as its iteration is the
//! one it was. One that goes away, or is saved again, takes its numbers along: who still has them gets an error, never other bytes.
//!
//! Not here: which iterations are whole and how they are opened ([`Supply`]), what a directory of one shows (`views`).

mod answers;
mod instance;
mod known;
mod open;
mod records;
mod slots;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, RwLock};

use super::table::number;
use super::{Ino, Messages, NotShown, RunStatus, Severity, TreeError, Usage, Views};
use crate::cache::Cache;
use instance::Instance;
use known::Known;
use records::Records;
use slots::Slots;

/// How often it is looked at what there is. What takes long is done less often.
const LOOK: Duration = Duration::from_secs(1);

/// Share of the time that looking may take.
const SHARE: u32 = 10;

/// Iterations that are open at a time, beside those that somebody has files of open. Each takes its metadata in memory, which is 230 MB for a
/// model of a hundred thousand tensors, and a descriptor for each of its files; few are entered at a time: the one that is served, the
/// newest, those that are compared.
const MOST_OPEN: usize = 8;

/// Iterations that are opened at the same time: whoever enters hundreds at once must not have all of them in memory.
const MOST_OPENING: usize = 4;

/// Time after which what could not be opened is tried once more: too few descriptors, or storage that did not answer, are no damage.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Time that listings may take for opening what the tracker speaks for, to see that it is whole.
const TRUST_AFTER: Duration = Duration::from_secs(1);

/// Time that one listing may take for opening what nobody speaks for, which is not shown before.
const LONGEST_LISTING: Duration = Duration::from_secs(5);

/// Iterations that are told of by name in an answer.
const MOST_LISTED: usize = 20;

/// And in a message.
const MOST_NAMED: usize = 8;

/// Characters of a reason in an answer, which has bounds. The log has more of it.
const LONGEST_REASON: usize = 500;

/// The name of the link to the newest.
const LATEST: &str = "latest";

/// Where the iterations of a run come from. Methods are called from many threads at once.
pub trait Supply: Send + Sync + 'static {
    /// What there is now.
    ///
    /// # Errors
    /// It cannot be looked at: what was there before is taken to be there still.
    fn look(&self) -> io::Result<Vec<Found>>;

    /// A number for what is in an iteration now: as long as it is the same, so are its weights.
    ///
    /// # Errors
    /// Why it is not to be opened now.
    fn examine(&self, name: &str) -> Result<u64, String>;

    /// Something is wrong with an iteration: it is not whole before its files say so.
    fn doubt(&self, name: &str);

    /// Opens an iteration as a tree whose root has this number.
    ///
    /// # Errors
    /// Why it cannot be opened.
    fn open(&self, name: &str, root: Ino) -> Result<Views, String>;
}

/// An iteration that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Name of its directory.
    pub name: String,
    /// Its number, where it has one.
    pub number: Option<u64>,
    /// Whether the run itself says that it is the newest.
    pub is_tracked: bool,
    /// What tells its directory from another one of that name.
    pub place: (u64, u64),
    /// When the directory changed last.
    pub modified: SystemTime,
    /// How far it is.
    pub state: Saved,
}

/// How far an iteration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// The run says that it is whole.
    Whole,
    /// It is whole if it can be opened.
    Quiet,
    /// It is not whole yet, or none, and why.
    Waiting(String),
}

/// Says something of the mount.
pub type Say = Arc<dyn Fn(Severity, &str) + Send + Sync>;

/// The tree of a run.
pub struct Iterations {
    supply: Box<dyn Supply>,
    /// What each directory shows, in words.
    words: String,
    say: Say,
    cache: Arc<Cache>,
    usage: Arc<Usage>,
    messages: Arc<Messages>,
    known: RwLock<Known>,
    records: RwLock<Records>,
    /// When it is looked again.
    next: Mutex<Option<Instant>>,
    /// Why it could not be looked.
    trouble: Mutex<Option<String>>,
    /// Those that are open, and were when somebody last looked.
    open: Mutex<Vec<Arc<Instance>>>,
    /// For those who open one.
    opening: Slots,
    /// Counts uses, to tell which was used last.
    uses: AtomicU64,
    /// Time that went into opening what was only to be listed.
    proving: Mutex<Duration>,
    since: Instant,
    started: SystemTime,
}

impl Iterations {
    /// The tree over a run. Nothing is opened for it. `words` says what each directory shows.
    #[must_use]
    pub fn new(
        supply: Box<dyn Supply>,
        words: String,
        say: Say,
        (cache, usage): (Arc<Cache>, Arc<Usage>),
        messages: Arc<Messages>,
    ) -> Self {
        Self {
            supply,
            words,
            say,
            cache,
            usage,
            messages,
            known: RwLock::default(),
            records: RwLock::default(),
            next: Mutex::new(None),
            trouble: Mutex::default(),
            open: Mutex::default(),
            opening: Slots::new(MOST_OPENING),
            uses: AtomicU64::new(0),
            proving: Mutex::new(Duration::ZERO),
            since: Instant::now(),
            started: SystemTime::now(),
        }
    }

    /// How many iterations are shown, and the name of the newest.
    #[must_use]
    pub fn shown(&self) -> (u64, Option<String>) {
        self.refresh();
        let latest = self.latest();
        (self.known.read().shown().count() as u64, latest)
    }

    /// Looks at what there is, unless that was done a moment ago.
    fn refresh(&self) {
        // Whoever comes meanwhile is told what was known before: who looks may come here by itself, through a link into its own mount.
        let Some(mut next) = self.next.try_lock() else { return };
        let began = Instant::now();
        if next.is_some_and(|next| began < next) {
            return;
        }
        let open = self.open.lock().clone();
        for (instance, why) in open.iter().filter_map(|instance| Some((instance, instance.is_changed()?))) {
            self.replace(instance, &why);
        }
        match self.supply.look() {
            Ok(found) => {
                let refused = self.known.read().refused();
                let now = refused.into_iter().map(|instance| (self.stamp_of_refused(&instance), instance));
                let now = now.collect();
                let gone = self.known.write().take(found, now);
                self.say_news();
                gone.iter().for_each(|instance| self.retire(instance));
                *self.trouble.lock() = None;
            }
            Err(error) => self.say_trouble(&format!("the run cannot be looked at: {error}")),
        }
        *next = Some(Instant::now() + LOOK.max(began.elapsed() * SHARE));
    }

    /// What is in an iteration that could not be opened; `None` where it is to be tried again in any case.
    fn stamp_of_refused(&self, instance: &Instance) -> Option<u64> {
        if instance.may_be_tried_again() { None } else { self.supply.examine(&instance.name).ok() }
    }

    /// Says what is known and was not said.
    fn say_news(&self) {
        let news = self.known.write().news();
        news.iter().for_each(|said| (self.say)(said.severity, &said.text));
    }

    /// Says it unless that was what was said last.
    fn say_trouble(&self, text: &str) {
        let mut trouble = self.trouble.lock();
        if trouble.as_deref() != Some(text) {
            *trouble = Some(text.to_owned());
            (self.say)(Severity::Warning, text);
        }
    }

    /// Forgets an iteration that is gone: its numbers lead nowhere from now on.
    fn retire(&self, instance: &Arc<Instance>) {
        instance.retire();
        instance.set(None);
        self.records.write().forget(instance);
        self.open.lock().retain(|other| !Arc::ptr_eq(other, instance));
    }

    /// Puts a new instance in the place of one that is not as it was.
    fn replace(&self, instance: &Arc<Instance>, why: &str) {
        self.supply.doubt(&instance.name);
        let is_its = self.known.write().renew(instance);
        self.retire(instance);
        if is_its {
            let name = &instance.name;
            let then = "what is open of it is stale, and it is shown anew when it is whole";
            (self.say)(Severity::Info, &format!("{name}: {why}; {then}"));
        }
    }

    /// The newest iteration that is whole: that of the tracker, or that of the largest number.
    fn latest(&self) -> Option<String> {
        let candidates = self.known.read().newest_first();
        candidates.into_iter().find(|instance| self.is_whole(instance)).map(|instance| instance.name.clone())
    }

    /// Whether an iteration can be opened; it is, where that is not known.
    fn is_whole(&self, instance: &Arc<Instance>) -> bool {
        let is_proven = self.known.read().is_proven(instance);
        is_proven || self.views(instance).is_ok()
    }

    /// Opens what is to be listed, to see that it is whole, as long as that does not take too long.
    fn prove(&self) {
        let began = Instant::now();
        loop {
            let spent = *self.proving.lock() + began.elapsed();
            let trusts = spent > TRUST_AFTER + self.since.elapsed() / (SHARE * 2);
            let next = self.known.read().unproven(trusts);
            let Some(instance) = next.filter(|_| began.elapsed() < LONGEST_LISTING) else { break };
            // Why it cannot be opened was said.
            let _ = self.views(&instance);
        }
        *self.proving.lock() += began.elapsed();
    }

    /// The iteration of this name, where it is shown.
    fn find(&self, name: &str) -> Result<Arc<Instance>, TreeError> {
        self.refresh();
        let known = self.known.read();
        let entry = known.get(name).ok_or(TreeError::NotFound)?;
        let (instance, is_shown, is_to_prove) = (Arc::clone(&entry.instance), entry.is_shown(), entry.is_to_prove());
        drop(known);
        let is_whole = is_shown || (is_to_prove && self.views(&instance).is_ok());
        if is_whole { Ok(instance) } else { Err(TreeError::NotFound) }
    }

    fn run_status(&self) -> RunStatus {
        self.refresh();
        let latest = self.latest();
        let known = self.known.read();
        let hidden: Vec<(&String, String)> = known.hidden().collect();
        let not_shown = hidden.iter().take(MOST_LISTED);
        let not_shown = not_shown.map(|(name, why)| {
            NotShown { name: (*name).clone(), why: why.chars().take(LONGEST_REASON).collect() }
        });
        RunStatus {
            shown: known.shown().count() as u64,
            latest,
            open: self.open.lock().len() as u64,
            hidden: hidden.len() as u64,
            not_shown: not_shown.collect(),
        }
    }

    /// A number for the use of something.
    fn now(&self) -> u64 {
        self.uses.fetch_add(1, Relaxed)
    }
}

/// Number of the link to the newest.
fn latest_ino() -> Ino {
    number(LATEST)
}

impl std::fmt::Debug for Iterations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iterations").field("words", &self.words).finish_non_exhaustive()
    }
}


#[cfg(test)]
mod tests;
