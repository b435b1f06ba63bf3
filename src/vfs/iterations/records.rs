//! Which iteration a number belongs to, and by which names it is found again there.
//!
//! Not here: what is under it (`views`).

use std::collections::HashMap;
use std::sync::Arc;

use super::instance::Instance;
use crate::vfs::{Ino, TreeError};

/// Numbers that are remembered: some hundred bytes each. Nobody looks at so many.
const MOST: usize = 2_000_000;

/// A number that somebody was told.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) instance: Arc<Instance>,
    pub(super) parent: Ino,
    name: Box<str>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Records(HashMap<Ino, Record>);

impl Records {
    /// Remembers that `ino` is called `name` in `parent`.
    ///
    /// # Errors
    /// Something else has that number, or there are too many.
    pub(super) fn put(&mut self, instance: &Arc<Instance>, parent: Ino, name: &str, ino: Ino) -> Result<(), TreeError> {
        match self.0.get(&ino) {
            Some(known) if Arc::ptr_eq(&known.instance, instance) => return Ok(()),
            Some(known) => {
                let other = &known.instance.name;
                let message = format!("{}/{name}: its number is that of something in {other}; mount again", instance.name);
                return Err(TreeError::Io(message));
            }
            None => {}
        }
        if instance.is_retired() {
            return Err(TreeError::Stale);
        }
        if self.0.len() >= MOST {
            let message = format!("{}/{name}: too many files were looked at in this mount; mount again", instance.name);
            return Err(TreeError::Io(message));
        }
        self.0.insert(ino, Record { instance: Arc::clone(instance), parent, name: name.into() });
        Ok(())
    }

    pub(super) fn get(&self, ino: Ino) -> Option<&Record> {
        self.0.get(&ino)
    }

    /// The names that lead from the directory of its iteration to `ino`.
    pub(super) fn path(&self, ino: Ino) -> Option<Vec<Box<str>>> {
        let mut names = Vec::new();
        let mut at = self.get(ino)?;
        while at.parent != Ino::ROOT {
            names.push(at.name.clone());
            at = self.get(at.parent)?;
        }
        names.reverse();
        Some(names)
    }

    /// Forgets all of an iteration.
    pub(super) fn forget(&mut self, instance: &Arc<Instance>) {
        self.0.retain(|_, record| !Arc::ptr_eq(&record.instance, instance));
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::vfs::{Found, iterations::Saved};

    fn instance(name: &str) -> Arc<Instance> {
        let (name, place) = (name.to_owned(), (1, 2));
        let modified = SystemTime::UNIX_EPOCH;
        let found = Found { name, number: None, is_tracked: false, place, modified, state: Saved::Whole };
        Instance::new(&found, 0)
    }

    #[test]
    fn a_number_is_found_again_by_its_names_until_its_iteration_goes() {
        let (one, two) = (instance("one"), instance("two"));
        let mut records = Records::default();
        for (instance, number) in [(&one, 10u64), (&two, 20)] {
            let ino = |more: u64| Ino(number + more);
            records.put(instance, Ino::ROOT, &instance.name, ino(0)).unwrap();
            records.put(instance, ino(0), "tp1", ino(1)).unwrap();
            records.put(instance, ino(1), "file", ino(2)).unwrap();
            // Whoever asks again.
            records.put(instance, ino(1), "file", ino(2)).unwrap();
        }
        let path = records.path(Ino(12)).unwrap();
        assert_eq!(path.iter().map(|name| &**name).collect::<Vec<_>>(), ["tp1", "file"]);
        assert_eq!(records.path(Ino(10)).unwrap().len(), 0);
        // Two names with one number would be bytes of another file.
        let error = records.put(&two, Ino(20), "other", Ino(11)).unwrap_err();
        assert!(matches!(&error, TreeError::Io(text) if text.contains("two/other") && text.contains("one")));
        one.retire();
        records.forget(&one);
        assert!(records.get(Ino(12)).is_none() && records.path(Ino(12)).is_none());
        assert!(records.path(Ino(22)).is_some());
        assert!(matches!(records.put(&one, Ino::ROOT, "one", Ino(10)), Err(TreeError::Stale)));
    }
}
