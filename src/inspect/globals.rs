//! What the pickles of a checkpoint name: what loading it with pickle would import, and with some of it call.
//!
//! Not here: finding it (`source`), printing (`cli`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::known::known;
use crate::source::PickleFile;

/// What the pickles of a checkpoint name.
#[derive(Debug, Clone, Serialize)]
pub struct Globals {
    /// Files that hold pickles; none in formats that have none.
    pub files: usize,
    /// Names, those that are not known to be plain data first.
    pub globals: Vec<NamedGlobal>,
    /// Files that could not be looked at, or not to the end.
    pub unread: Vec<Unread>,
}

/// A class or function.
#[derive(Debug, Clone, Serialize)]
pub struct NamedGlobal {
    /// Its module.
    pub module: String,
    /// Its name there.
    pub name: String,
    /// How often it is used.
    pub uses: u64,
    /// Whether it is known to be plain data.
    pub known: bool,
    /// Where that is known from.
    pub source: Option<&'static str>,
    /// Some of the files that name it.
    pub files: Vec<String>,
    /// How many files name it.
    pub file_count: usize,
}

/// A file that could not be looked at to the end.
#[derive(Debug, Clone, Serialize)]
pub struct Unread {
    /// The file.
    pub file: String,
    /// Why.
    pub what: String,
}

/// Files that are listed for each name.
const LISTED: usize = 3;

/// The names in these files of the checkpoint at `root`.
#[must_use]
pub fn globals(root: &Path, pickles: &[PickleFile]) -> Globals {
    let name = |file: &PickleFile| {
        let below = file.path.strip_prefix(root).ok().filter(|below| !below.as_os_str().is_empty());
        below.unwrap_or(&file.path).display().to_string()
    };
    let mut all: BTreeMap<_, NamedGlobal> = BTreeMap::new();
    for file in pickles {
        // An archive may hold several pickles.
        let mut in_file = BTreeMap::new();
        for (global, uses) in &file.globals {
            *in_file.entry(global).or_default() += *uses;
        }
        for (global, uses) in in_file {
            let source = known(global);
            let key = (source.is_some(), global);
            let named = all.entry(key).or_insert_with(|| NamedGlobal {
                module: global.module.to_string(),
                name: global.name.to_string(),
                uses: 0,
                known: source.is_some(),
                source,
                files: Vec::new(),
                file_count: 0,
            });
            let uses: u64 = uses;
            named.uses = named.uses.saturating_add(uses);
            named.file_count += 1;
            if named.files.len() < LISTED {
                named.files.push(name(file));
            }
        }
    }
    let unread = pickles.iter().filter_map(|file| {
        let what = file.problem.clone()?;
        Some(Unread { file: name(file), what })
    });
    Globals { files: pickles.len(), unread: unread.collect(), globals: all.into_values().collect() }
}
