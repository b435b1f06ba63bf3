//! What is known of the iterations of a run: how far each is, and what was said of it.
//!
//! Not here: clocks, files, threads.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::instance::Instance;
use super::{Found, MOST_NAMED, Saved};
use crate::vfs::Severity;

/// One name, and what is under it now.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) found: Found,
    pub(super) instance: Arc<Instance>,
    generation: u64,
    verdict: Verdict,
    /// What was said of it last.
    said: Option<String>,
}

/// What came of opening an iteration.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Nobody has opened it.
    Unproven,
    /// It could not be opened, which may be otherwise now.
    Again { why: String },
    /// It was open.
    Proven,
    /// It cannot be opened as it is now.
    Refused {
        /// What was in it.
        stamp: u64,
        why: String,
    },
}

/// Something to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) severity: Severity,
    pub(super) text: String,
}

/// All names.
#[derive(Debug, Default)]
pub(super) struct Known {
    entries: BTreeMap<String, Entry>,
    /// Of names that were there, the last generation: it must not come again.
    generations: BTreeMap<String, u64>,
    /// Those that went away and were not told of.
    gone: Vec<String>,
}

impl Entry {
    pub(super) fn is_shown(&self) -> bool {
        match (&self.found.state, &self.verdict) {
            (Saved::Whole, Verdict::Unproven | Verdict::Proven) | (Saved::Quiet, Verdict::Proven) => true,
            (Saved::Waiting(_), _) | (Saved::Quiet, Verdict::Unproven) => false,
            (_, Verdict::Again { .. } | Verdict::Refused { .. }) => false,
        }
    }

    /// Whether it is shown if it can be opened.
    pub(super) fn is_to_prove(&self) -> bool {
        let is_unproven = matches!(self.verdict, Verdict::Unproven | Verdict::Again { .. });
        is_unproven && matches!(self.found.state, Saved::Whole | Saved::Quiet)
    }

    /// Why it is not shown; `None` where it is.
    pub(super) fn why_not(&self) -> Option<String> {
        match (&self.found.state, &self.verdict) {
            (Saved::Waiting(why), _) | (_, Verdict::Again { why } | Verdict::Refused { why, .. }) => Some(why.clone()),
            (Saved::Quiet, Verdict::Unproven) => Some("it has not been opened yet; look at it by its name".to_owned()),
            (Saved::Whole | Saved::Quiet, _) => None,
        }
    }
}

impl Known {
    /// Takes over what was found. `stamps` are those of refused ones now: one that is another by now is no longer refused. Returns the
    /// instances that are no more.
    pub(super) fn take(
        &mut self,
        found: Vec<Found>,
        stamps: Vec<(Option<u64>, Arc<Instance>)>,
    ) -> Vec<Arc<Instance>> {
        for (now, instance) in stamps {
            if let Some(entry) = self.of_mut(&instance) {
                entry.verdict = match std::mem::replace(&mut entry.verdict, Verdict::Unproven) {
                    Verdict::Refused { stamp, why } if Some(stamp) != now => Verdict::Again { why },
                    other => other,
                };
            }
        }
        let mut before = std::mem::take(&mut self.entries);
        let mut gone = Vec::new();
        for found in found {
            let entry = before.remove(&found.name);
            let entry = self.entry(entry, found, &mut gone);
            self.entries.insert(entry.found.name.clone(), entry);
        }
        for (name, entry) in before {
            if entry.is_shown() {
                self.gone.push(name.clone());
            }
            self.generations.insert(name, entry.generation);
            gone.push(entry.instance);
        }
        gone
    }

    /// What is under a name now that `found` is there.
    fn entry(&self, before: Option<Entry>, found: Found, gone: &mut Vec<Arc<Instance>>) -> Entry {
        let Some(before) = before else {
            let generation = match self.generations.get(&found.name) {
                Some(last) => last + 1,
                None => 0,
            };
            let instance = Instance::new(&found, generation);
            return Entry { instance, found, generation, verdict: Verdict::Unproven, said: None };
        };
        // One that was whole and is waited for is being saved again.
        let is_saved_again = matches!(found.state, Saved::Waiting(_)) && before.verdict == Verdict::Proven;
        if before.found.place == found.place && !is_saved_again {
            return Entry { found, ..before };
        }
        let generation = before.generation + 1;
        gone.push(before.instance);
        let instance = Instance::new(&found, generation);
        Entry { instance, found, generation, verdict: Verdict::Unproven, said: before.said }
    }

    /// What there is to say that was not said, of all that it is to be said of together.
    pub(super) fn news(&mut self) -> Vec<Said> {
        let mut of_text: BTreeMap<(Severity, String), Vec<String>> = BTreeMap::new();
        for (name, entry) in &mut self.entries {
            let (severity, text) = match entry.why_not() {
                _ if entry.is_shown() => (Severity::Info, "shown".to_owned()),
                // It is opened when somebody looks; there is something to say then.
                _ if entry.is_to_prove() => continue,
                Some(why) => match &entry.verdict {
                    Verdict::Refused { .. } => (Severity::Warning, format!("not shown: {why}")),
                    Verdict::Unproven | Verdict::Again { .. } | Verdict::Proven => {
                        (Severity::Info, format!("not shown: {why}"))
                    }
                },
                None => continue,
            };
            if entry.said.as_ref() != Some(&text) {
                entry.said = Some(text.clone());
                of_text.entry((severity, text)).or_default().push(name.clone());
            }
        }
        for name in std::mem::take(&mut self.gone) {
            of_text.entry((Severity::Info, "gone".to_owned())).or_default().push(name);
        }
        let said = of_text.into_iter();
        said.map(|((severity, text), names)| Said { severity, text: format!("{}: {text}", some(&names)) }).collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    pub(super) fn shown(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.entries.iter().filter(|(_, entry)| entry.is_shown())
    }

    /// Those that are not, and why.
    pub(super) fn hidden(&self) -> impl Iterator<Item = (&String, String)> {
        self.entries.iter().filter_map(|(name, entry)| Some((name, entry.why_not()?)))
    }

    /// Those that cannot be opened.
    pub(super) fn refused(&self) -> Vec<Arc<Instance>> {
        let is_refused = |entry: &&Entry| matches!(entry.verdict, Verdict::Refused { .. });
        self.entries.values().filter(is_refused).map(|entry| Arc::clone(&entry.instance)).collect()
    }

    /// Those that are shown or may be, the newest first.
    pub(super) fn newest_first(&self) -> Vec<Arc<Instance>> {
        let may_be = self.entries.values().filter(|entry| entry.is_shown() || entry.is_to_prove());
        let mut all: Vec<&Entry> = may_be.collect();
        all.sort_by_key(|entry| std::cmp::Reverse((entry.found.is_tracked, entry.found.number)));
        all.into_iter().map(|entry| Arc::clone(&entry.instance)).collect()
    }

    /// The newest one that nobody has opened; with `trusts`, of those that are not shown before.
    pub(super) fn unproven(&self, trusts: bool) -> Option<Arc<Instance>> {
        let wanted = |entry: &&Entry| entry.is_to_prove() && !(trusts && entry.is_shown());
        let all = self.entries.values().filter(wanted);
        all.max_by_key(|entry| entry.found.number).map(|entry| Arc::clone(&entry.instance))
    }

    pub(super) fn is_proven(&self, instance: &Arc<Instance>) -> bool {
        self.of(instance).is_some_and(|entry| entry.verdict == Verdict::Proven)
    }

    /// It was opened.
    pub(super) fn prove(&mut self, instance: &Arc<Instance>) {
        self.settle(instance, Verdict::Proven);
    }

    /// It cannot be opened as long as this is in it.
    pub(super) fn refuse(&mut self, instance: &Arc<Instance>, stamp: u64, why: String) {
        self.settle(instance, Verdict::Refused { stamp, why });
    }

    /// It is not whole now, which the next look may see otherwise.
    pub(super) fn wait(&mut self, instance: &Arc<Instance>, why: String) {
        if let Some(entry) = self.of_mut(instance) {
            entry.found.state = Saved::Waiting(why);
        }
    }

    /// Puts a new instance in the place of this one; false where it is not there any more.
    pub(super) fn renew(&mut self, instance: &Arc<Instance>) -> bool {
        let Some(entry) = self.of_mut(instance) else { return false };
        entry.generation += 1;
        entry.instance = Instance::new(&entry.found, entry.generation);
        entry.verdict = Verdict::Unproven;
        true
    }

    fn settle(&mut self, instance: &Arc<Instance>, verdict: Verdict) {
        if let Some(entry) = self.of_mut(instance) {
            entry.verdict = verdict;
        }
    }

    fn of(&self, instance: &Arc<Instance>) -> Option<&Entry> {
        self.entries.get(&instance.name).filter(|entry| Arc::ptr_eq(&entry.instance, instance))
    }

    fn of_mut(&mut self, instance: &Arc<Instance>) -> Option<&mut Entry> {
        self.entries.get_mut(&instance.name).filter(|entry| Arc::ptr_eq(&entry.instance, instance))
    }
}

/// Names as a message can hold them.
fn some(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(MOST_NAMED).map(String::as_str).collect();
    match names.len().checked_sub(MOST_NAMED) {
        Some(more) if more > 0 => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn found(number: u64, state: Saved) -> Found {
        let name = format!("iter_{number}");
        let place = (1, number);
        Found { name, number: Some(number), is_tracked: false, place, modified: SystemTime::UNIX_EPOCH, state }
    }

    fn waiting(why: &str) -> Saved {
        Saved::Waiting(why.to_owned())
    }

    fn shown(known: &Known) -> Vec<&str> {
        known.shown().map(|(name, _)| name.as_str()).collect()
    }

    fn said(known: &mut Known) -> Vec<String> {
        known.news().into_iter().map(|said| said.text).collect()
    }

    fn instance(known: &Known, name: &str) -> Arc<Instance> {
        Arc::clone(&known.get(name).unwrap().instance)
    }

    #[test]
    fn what_nobody_speaks_for_is_shown_when_it_was_opened() {
        let mut known = Known::default();
        known.take(vec![found(1, Saved::Whole), found(2, Saved::Quiet), found(3, waiting("empty"))], vec![]);
        assert_eq!(shown(&known), ["iter_1"]);
        assert_eq!(said(&mut known), ["iter_3: not shown: empty", "iter_1: shown"]);
        let second = instance(&known, "iter_2");
        known.prove(&second);
        assert_eq!(shown(&known), ["iter_1", "iter_2"]);
        assert_eq!(said(&mut known), ["iter_2: shown"]);
        assert_eq!(known.newest_first()[0].name, "iter_2");
    }

    #[test]
    fn the_tracker_says_which_is_the_newest() {
        let mut known = Known::default();
        known.take(vec![Found { is_tracked: true, ..found(1, Saved::Whole) }, found(2, Saved::Quiet)], vec![]);
        let names: Vec<_> = known.newest_first().iter().map(|instance| instance.name.clone()).collect();
        assert_eq!(names, ["iter_1", "iter_2"]);
        // Of what is to be opened only the newest; what is shown anyway, only while there is time.
        assert_eq!(known.unproven(false).unwrap().name, "iter_2");
        let second = instance(&known, "iter_2");
        known.prove(&second);
        assert_eq!(known.unproven(false).unwrap().name, "iter_1");
        assert!(known.unproven(true).is_none());
    }

    #[test]
    fn a_reason_is_said_once_and_of_all_together() {
        let mut known = Known::default();
        let many = |why: &str| (0..100).map(|number| found(number, waiting(why))).collect::<Vec<_>>();
        known.take(many("empty"), vec![]);
        let text = said(&mut known);
        assert_eq!(text.len(), 1);
        assert!(text[0].contains("and 92 more: not shown: empty"), "{text:?}");
        known.take(many("empty"), vec![]);
        assert!(known.news().is_empty());
        known.take(many("still empty"), vec![]);
        assert_eq!(known.news().len(), 1);
        known.take(vec![], vec![]);
        assert!(known.news().is_empty(), "what was never shown does not go");
    }

    #[test]
    fn a_refused_one_stays_away_until_something_else_is_in_it() {
        let mut known = Known::default();
        let look = || vec![found(1, Saved::Whole)];
        known.take(look(), vec![]);
        let first = instance(&known, "iter_1");
        known.refuse(&first, 7, "damaged".to_owned());
        known.take(look(), vec![(Some(7), Arc::clone(&first))]);
        assert_eq!((shown(&known).len(), &*known.refused()[0].name), (0, "iter_1"));
        let news = known.news();
        assert_eq!((news.len(), news[0].severity, &*news[0].text), (1, Severity::Warning, "iter_1: not shown: damaged"));
        known.take(look(), vec![(Some(8), Arc::clone(&first))]);
        // Until it is opened it is as it was, and nothing is said again.
        assert_eq!((shown(&known).len(), known.news().len()), (0, 0));
        assert_eq!(known.unproven(true).unwrap().name, "iter_1");
        known.refuse(&first, 8, "damaged".to_owned());
        assert!(known.news().is_empty());
        // What it was refused for may have passed.
        known.take(look(), vec![(None, Arc::clone(&first))]);
        known.prove(&first);
        assert_eq!(said(&mut known), ["iter_1: shown"]);
        assert_eq!(shown(&known), ["iter_1"]);
    }

    #[test]
    fn another_of_its_name_has_other_numbers() {
        let mut known = Known::default();
        known.take(vec![found(1, Saved::Whole)], vec![]);
        let mut roots = vec![instance(&known, "iter_1").root];
        let mut next = |known: &Known| roots.push(instance(known, "iter_1").root);
        // As it was.
        assert!(known.take(vec![found(1, Saved::Whole)], vec![]).is_empty());
        // Another directory.
        assert_eq!(known.take(vec![Found { place: (1, 99), ..found(1, Saved::Whole) }], vec![]).len(), 1);
        next(&known);
        // Saved again in place, where it had been open.
        let now = instance(&known, "iter_1");
        known.prove(&now);
        let again = Found { place: (1, 99), ..found(1, waiting("newer")) };
        assert_eq!(known.take(vec![again.clone()], vec![]).len(), 1);
        next(&known);
        assert!(known.take(vec![again], vec![]).is_empty());
        // Found out by a read.
        let now = instance(&known, "iter_1");
        assert!(known.renew(&now) && !known.renew(&now));
        next(&known);
        // Gone, and there again in the very same place.
        assert_eq!(known.take(vec![], vec![]).len(), 1);
        known.take(vec![Found { place: (1, 99), ..found(1, Saved::Whole) }], vec![]);
        next(&known);
        let count = roots.len();
        roots.sort();
        roots.dedup();
        assert_eq!((roots.len(), count), (5, 5));
    }
}
