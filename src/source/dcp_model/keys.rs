//! Keys of a state dict: which of them are the model, under which prefix, and what belongs to which of the others.
//!
//! Nobody writes down where in a checkpoint the model is: it is where its names are. Not here: which names a model has (`family`), and the
//! optimizer (`states`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Parts of keys that wrappers put there: of modules that FSDP, `torch.compile` and activation checkpointing wrapped.
const WRAPPERS: [&str; 3] = ["_fsdp_wrapped_module.", "_orig_mod.", "_checkpoint_wrapped_module."];

/// No key has more parts that matter; a hostile one has any.
const MOST_PARTS: usize = 16;

/// The key without what wrappers put there.
pub(super) fn plain(key: &str) -> Cow<'_, str> {
    if !WRAPPERS.iter().any(|wrapper| key.contains(wrapper)) {
        return Cow::Borrowed(key);
    }
    let parts: Vec<&str> = key.split('.').collect();
    let is_wrapper = |part: &&&str| WRAPPERS.iter().any(|wrapper| wrapper.strip_suffix('.') == Some(**part));
    // What a wrapper is the last part of is no module's.
    let (last, modules) = match parts.split_last() {
        Some((last, modules)) => (*last, modules),
        None => return Cow::Borrowed(key),
    };
    let kept: Vec<&str> = modules.iter().filter(|part| !is_wrapper(part)).copied().chain([last]).collect();
    Cow::Owned(kept.join("."))
}

/// Where in a key a name may begin: at its start, and behind the first dots.
pub(super) fn beginnings(key: &str) -> impl Iterator<Item = usize> + '_ {
    let dots = key.match_indices('.').map(|(at, _)| at + 1);
    std::iter::once(0).chain(dots.take(MOST_PARTS))
}

/// Prefixes under which there are names, and how many: `model.` where keys are `model.lm_head.weight` and so on.
///
/// Of several beginnings of a key that are names the first counts.
pub(super) fn prefixes<'a>(
    keys: impl Iterator<Item = &'a str>,
    is_name: impl Fn(&str) -> bool,
) -> BTreeMap<String, usize> {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for key in keys {
        let begins = beginnings(key).find(|at| key.get(*at..).is_some_and(&is_name));
        if let Some(prefix) = begins.and_then(|at| key.get(..at)) {
            *found.entry(prefix.to_owned()).or_default() += 1;
        }
    }
    found
}

/// Of the prefixes with names under them, those that may be the model's: the one with most, and all with half as many.
pub(super) fn fitting(prefixes: &BTreeMap<String, usize>) -> Vec<&str> {
    let most = prefixes.values().copied().max().unwrap_or(0);
    let fits = |count: usize| count.saturating_mul(2) > most;
    prefixes.iter().filter(|(_, count)| fits(**count)).map(|(prefix, _)| prefix.as_str()).collect()
}

/// Whether a prefix lies under the root that the user says.
pub(super) fn is_under(prefix: &str, root: &str) -> bool {
    let root = root.trim_end_matches('.');
    if root.is_empty() {
        return prefix.is_empty();
    }
    prefix.strip_prefix(root).is_some_and(|rest| rest.starts_with('.'))
}

/// What a key is without its prefix; `None` where it has another. Where there is no prefix, only what begins like one of `first` is the
/// model's: beside it stand the roots of everything else.
pub(super) fn name_under<'k>(key: &'k str, prefix: &str, first: &BTreeSet<&str>) -> Option<&'k str> {
    let name = key.strip_prefix(prefix)?;
    let begins = name.split('.').next()?;
    (!prefix.is_empty() || first.contains(begins)).then_some(name)
}

/// The root that a key is under.
pub(super) fn root(key: &str) -> &str {
    key.split('.').next().unwrap_or(key)
}

/// `train (2 entries)` for each root of these keys.
pub(super) fn by_root<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for key in keys {
        *counts.entry(root(key)).or_default() += 1;
    }
    let words = |(root, count): (&str, usize)| {
        let root: String = root.chars().take(80).collect();
        if count == 1 { root } else { format!("{root} ({count} entries)") }
    };
    counts.into_iter().map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["model.norm.weight", "model.layers.0.mlp.weight", "lm_head.weight"];

    fn found(keys: &[&str]) -> Vec<(String, usize)> {
        prefixes(keys.iter().copied(), |name| NAMES.contains(&name)).into_iter().collect()
    }

    #[test]
    fn wrappers_are_no_part_of_names() {
        for key in [
            "model._fsdp_wrapped_module.norm.weight",
            "_orig_mod.model.norm.weight",
            "model.norm._checkpoint_wrapped_module._orig_mod.weight",
            "model.norm.weight",
        ] {
            assert_eq!(plain(key), "model.norm.weight", "{key}");
        }
        for key in ["model.my_orig_mod.weight", "a._orig_mod", "_orig_mod"] {
            assert_eq!(plain(key), key);
        }
    }

    #[test]
    fn the_prefix_is_what_stands_before_names() {
        assert_eq!(found(&["model.model.norm.weight", "model.lm_head.weight", "x"]), [("model.".into(), 2)]);
        assert_eq!(found(&["model.norm.weight", "lm_head.weight"]), [(String::new(), 2)]);
        let both = found(&["ema.model.norm.weight", "app.net.model.norm.weight", "app.net.lm_head.weight"]);
        assert_eq!(both, [("app.net.".into(), 2), ("ema.".into(), 1)]);
        assert_eq!(found(&["optim.state.model.norm.weight.exp_avg"]), []);
    }

    #[test]
    fn several_roots_fit_where_one_has_not_most() {
        let of = |counts: &[(&str, usize)]| -> BTreeMap<String, usize> {
            counts.iter().map(|(prefix, count)| ((*prefix).to_owned(), *count)).collect()
        };
        assert_eq!(fitting(&of(&[("ema.", 20), ("model.", 20), ("x.", 1)])), ["ema.", "model."]);
        assert_eq!(fitting(&of(&[("", 20), ("x.", 10)])), [""]);
        assert!(fitting(&of(&[])).is_empty());
    }

    #[test]
    fn roots_are_said_as_they_are_shown() {
        for (prefix, root) in [("ema.", "ema"), ("ema.", "ema."), ("app.model.", "app"), ("", ""), ("app.model.", "app.model")] {
            assert!(is_under(prefix, root), "{prefix} {root}");
        }
        for (prefix, root) in [("emax.", "ema"), ("model.", ""), ("", "model")] {
            assert!(!is_under(prefix, root), "{prefix} {root}");
        }
    }

    #[test]
    fn beside_a_model_without_prefix_stand_other_roots() {
        let first = BTreeSet::from(["layers", "norm"]);
        assert_eq!(name_under("norm.weight", "", &first), Some("norm.weight"));
        assert_eq!(name_under("optimizer.state.norm.weight.exp_avg", "", &first), None);
        assert_eq!(name_under("model.anything", "model.", &first), Some("anything"));
        let left = by_root(["train.step", "train.tokens", "lr_scheduler"].into_iter());
        assert_eq!(left, ["lr_scheduler", "train (2 entries)"]);
    }

    /// Each dot is another beginning: together they would take the square of a hostile key.
    #[test]
    fn a_key_of_dots_alone_is_not_read_in_every_way() {
        assert!(beginnings(&".".repeat(1 << 16)).count() <= MOST_PARTS + 1);
    }
}
