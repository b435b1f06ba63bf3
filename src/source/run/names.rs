//! Which names in the directory of a run are iterations, and which names must be in one that is whole.
//!
//! Not here: the file system.

use std::cmp::Ordering;
use std::time::SystemTime;

use super::{Iteration, Saved};
use crate::format::dcp::names::{METADATA, METADATA_JSON};
use crate::format::megatron::{RELEASE, iteration_dir, parse_iteration_dir, parse_rank_dir};
use crate::source::IterationChoice;

/// What torchtitan and the Trainer call the directory of a step.
const STEPS: [&str; 2] = ["step-", "checkpoint-"];

/// What the data of a distributed checkpoint is called.
const DATA: &str = ".distcp";

/// An iteration by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) choice: IterationChoice,
    /// Whether the tracker of Megatron speaks of it.
    pub(super) is_megatrons: bool,
}

impl Named {
    /// The iteration that a name is.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let named = |choice, is_megatrons| Some(Self { name: name.to_owned(), choice, is_megatrons });
        if name == RELEASE {
            return named(IterationChoice::Release, true);
        }
        if let Some(number) = parse_iteration_dir(name) {
            return named(IterationChoice::Number(number), true);
        }
        let digits = STEPS.iter().find_map(|start| name.strip_prefix(start))?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        named(IterationChoice::Number(digits.parse().ok().filter(|_| is_number)?), false)
    }

    /// What to say of one that its run would call otherwise, and would not find.
    pub(super) fn misspelled(&self) -> Option<String> {
        let IterationChoice::Number(number) = self.choice else { return None };
        let own = iteration_dir(number);
        (self.is_megatrons && own != self.name).then(|| format!("a run would call it {own}"))
    }

    /// Whether these can be the names in a whole one.
    ///
    /// # Errors
    /// What is not there yet.
    pub(super) fn plausible(&self, names: &[String]) -> Result<(), String> {
        let has = |name: &str| names.iter().any(|other| other == name);
        // Where ranks do not gather it, each writes its own.
        let has_metadata = names.iter().any(|name| name.ends_with(METADATA));
        let is_distributed = has(METADATA_JSON) || names.iter().any(|name| name.ends_with(DATA));
        let has_ranks = names.iter().any(|name| parse_rank_dir(name).is_some());
        let not_yet = |what: &str| Err(what.to_owned());
        if names.is_empty() {
            return not_yet("it is empty");
        }
        if is_distributed && !has_metadata {
            return not_yet("its .metadata is not there, which is written when all else is");
        }
        if self.is_megatrons && has_metadata && !has(METADATA_JSON) {
            return not_yet("its metadata.json is not there, which is written when all else is");
        }
        if self.is_megatrons && !has_metadata && !has_ranks {
            return not_yet("there are neither directories of ranks nor a .metadata in it");
        }
        Ok(())
    }

    /// The iteration in a place.
    pub(super) fn found(self, place: (u64, u64), modified: SystemTime, is_tracked: bool, state: Saved) -> Iteration {
        let Self { name, choice, .. } = self;
        Iteration { name, choice, is_tracked, place, modified, state }
    }

    /// Its number; a release came before all others.
    fn order(&self) -> (Option<u64>, &str) {
        match self.choice {
            IterationChoice::Number(number) => (Some(number), &self.name),
            IterationChoice::Release => (None, &self.name),
        }
    }
}

impl Ord for Named {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Named {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterations_are_told_from_everything_else() {
        for (name, number) in
            [("iter_0001000", 1000), ("iter_12345678", 12_345_678), ("step-10", 10), ("checkpoint-500", 500)]
        {
            assert_eq!(Named::parse(name).unwrap().choice, IterationChoice::Number(number), "{name}");
        }
        assert_eq!(Named::parse("release").unwrap().choice, IterationChoice::Release);
        for name in [
            "iter_0001000.tmp", "tmp-checkpoint-500", "checkpoint-", "step-1a", "iter_", "latest", "checkpoint-+5",
            "iter_99999999999999999999", "checkpoint-500.tmp", ".iter_0000001", "step--1", "",
        ] {
            assert_eq!(Named::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_run_of_megatron_has_one_name_for_a_number() {
        assert_eq!(Named::parse("iter_0001000").unwrap().misspelled(), None);
        assert!(Named::parse("iter_1000").unwrap().misspelled().unwrap().contains("iter_0001000"));
        assert_eq!(Named::parse("step-010").unwrap().misspelled(), None);
    }

    #[test]
    fn what_is_written_last_must_be_there() {
        let named = Named::parse("iter_0000005").unwrap();
        let whole = |names: &[&str]| named.plausible(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(whole(&["mp_rank_00"]), Ok(()));
        assert_eq!(whole(&["__0_0.distcp", ".metadata", "metadata.json"]), Ok(()));
        for (names, what) in [
            (&[][..], "empty"),
            (&["__0_0.distcp", "common.pt"], ".metadata"),
            (&["__0_0.distcp", ".metadata.tmp"], ".metadata"),
            (&["__0_0.distcp", ".metadata", "common.pt"], "metadata.json"),
            (&["common.pt"], "neither"),
        ] {
            assert!(whole(names).unwrap_err().contains(what), "{names:?}");
        }
    }
}
