//! A checkpoint of a model that nothing describes: without a config, or with one of an architecture that no family knows.
//!
//! Its tensors go by the names that they have below the root they are under, and can be shown as a Hugging Face model. What is under which
//! root says the metadata where it says how keys were nested, else the first part of the key.

use std::collections::{BTreeMap, BTreeSet};

use super::config::Found;
use super::described::is_trained;
use super::keys::{is_under, root};
use super::members::Contents;
use super::parts::Keyed;
use super::{Opened, Opening};
use crate::catalog::Iteration;
use crate::family::Family;
use crate::format::dcp::metadata::PathItem;
use crate::format::hf::CONFIG;
use crate::format::megatron::keys::STATE;
use crate::source::{SourceError, some_of};
use crate::value::Value;

/// Under what most people put a model.
const MODEL: &str = "model.";

/// Opens it with the names that it has.
pub(super) fn open(
    of: &Opening<'_>,
    contents: &Contents<'_>,
    found: Option<&Found>,
    iteration: Iteration,
) -> Result<Opened, SourceError> {
    let roots = roots(contents);
    let prefix = prefix(of, &roots)?;
    let first: BTreeSet<&str> = if prefix.is_empty() { roots.get("").cloned().unwrap_or_default() } else { BTreeSet::new() };
    let mut members = contents.members(&prefix, &first)?;
    let empty = members.without_empty(contents);
    let file = contents.rank_file(&members, Value::namespace(Vec::new()), roots.len() < 2 || is_trained(&prefix), of.store)?;
    let tensors = members.named.iter().filter_map(|(name, index)| {
        Some((&**name, contents.tensors.get(*index)?.shape.rank()))
    });
    let wrong = |error: crate::family::FamilyError| SourceError::Contents {
        file: of.path.display().to_string(),
        what: error.to_string(),
    };
    let family = std::sync::Arc::new(Family::of_names(tensors).map_err(wrong)?);
    let explain = |source| SourceError::Model { file: of.path.display().to_string(), source };
    let model = family.model(&Value::namespace(Vec::new()), 0.0).map_err(explain)?;
    let mut catalog = of.catalog(&model, file, iteration)?;
    if !empty.is_empty() {
        catalog.left_out.insert(format!("{} (no elements)", some_of(&empty)));
    }
    if found.is_none() {
        catalog.left_out.insert(format!(
            "{CONFIG} (there is none: tensors go by the names that they have; --template DIR says what they are a model of)"
        ));
    }
    Ok(Opened { catalog, model, inexpressible: Vec::new() })
}

/// Prefixes of tensors that are no optimizer's; under none of them, with the first parts of their keys, those that stand beside the roots.
fn roots<'c>(contents: &'c Contents<'_>) -> BTreeMap<String, BTreeSet<&'c str>> {
    let mut roots: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for keyed in contents.tensors.iter().filter(|keyed| !keyed.key.split('.').any(|part| part == STATE)) {
        let prefix = match nested(contents, keyed) {
            // Files of ranks have no dict around the model.
            _ if contents.parts.are_files() => String::new(),
            Some(0..=1) => String::new(),
            _ => match keyed.key.split_once('.') {
                Some((root, _)) => format!("{root}."),
                None => String::new(),
            },
        };
        roots.entry(prefix).or_default().insert(root(&keyed.key));
    }
    roots
}

/// In how many dicts a tensor was, where the metadata says it.
fn nested(contents: &Contents<'_>, keyed: &Keyed) -> Option<usize> {
    let path = contents.parts.path_of(keyed)?;
    // A list of tensors is no model.
    path.iter().all(|item| matches!(item, PathItem::Key(_))).then_some(path.len())
}

/// The prefix of the model.
fn prefix(of: &Opening<'_>, roots: &BTreeMap<String, BTreeSet<&str>>) -> Result<String, SourceError> {
    if let Some(root) = &of.options.root {
        let root = root.trim_end_matches('.');
        let prefix = if root.is_empty() { String::new() } else { format!("{root}.") };
        // It may lie deeper than the first root.
        let is_there = roots.keys().any(|known| prefix.starts_with(known.as_str()) || is_under(known, root));
        return if is_there { Ok(prefix) } else { Err(nothing(of, &format!("no tensor below {root}"))) };
    }
    let all: Vec<&str> = roots.keys().map(String::as_str).collect();
    match all.as_slice() {
        [] => Err(nothing(of, "no tensor of a model")),
        [only] => Ok((*only).to_owned()),
        several if several.contains(&MODEL) => Ok(MODEL.to_owned()),
        several => Err(of.several(several)),
    }
}

fn nothing(of: &Opening<'_>, what: &str) -> SourceError {
    SourceError::NotACheckpoint { path: of.path.to_owned(), what: format!("it has {what}") }
}
