//! Keys of an optimizer's state: `optim.state.model.norm.weight.exp_avg` is the `exp_avg` of `model.norm.weight`.
//!
//! What stands before `.state.` may be anything, and so may a prefix of the names in it (Lightning's module has one). So both are found like
//! that of the model: by its names. Not here: what the states are (`optimizer`).

use std::collections::{BTreeMap, HashSet};

use super::keys::{beginnings, plain};
use crate::format::megatron::keys::PARAM_GROUPS;

/// Stands between an optimizer and the names of what it trains.
const STATE: &str = ".state.";

/// A state of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StateKey {
    /// Which of the keys.
    pub(super) index: usize,
    /// The model's tensor.
    pub(super) of: String,
    /// What the optimizer calls it.
    pub(super) state: String,
}

/// The optimizers of a checkpoint.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Optimizers {
    /// What stands before `.state.` in keys of states of the model's tensors, with that.
    pub(super) roots: Vec<String>,
    /// What stands before the names of the first of them.
    pub(super) prefix: String,
    /// Every state that is of one of the model's tensors.
    pub(super) states: Vec<StateKey>,
}

/// The states of the tensors with these names, among these keys.
pub(super) fn find<'k>(
    keys: impl Iterator<Item = (usize, &'k str)>,
    names: &HashSet<&str>,
) -> Optimizers {
    let keys: Vec<(usize, Split<'k>)> =
        keys.filter_map(|(index, key)| Some((index, Split::of(key)?))).collect();
    let mut prefixes: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for (_, split) in &keys {
        let name = plain(split.of);
        let begins = beginnings(&name).find(|at| name.get(*at..).is_some_and(|name| names.contains(name)));
        if let Some(prefix) = begins.and_then(|at| name.get(..at)) {
            *prefixes.entry((split.root, prefix.to_owned())).or_default() += 1;
        }
    }
    // Of each optimizer the prefix with most names under it.
    let mut best: BTreeMap<&str, (&str, usize)> = BTreeMap::new();
    for ((root, prefix), count) in &prefixes {
        let known = best.entry(root).or_insert((prefix, *count));
        if known.1 < *count {
            *known = (prefix, *count);
        }
    }
    let states = keys.iter().filter_map(|(index, split)| {
        let (prefix, _) = best.get(split.root)?;
        let name = plain(split.of);
        let of = name.strip_prefix(prefix).filter(|of| names.contains(of))?;
        Some(StateKey { index: *index, of: of.to_owned(), state: split.state.to_owned() })
    });
    let states = states.collect();
    let prefix = best.values().next().map_or("", |(prefix, _)| *prefix).to_owned();
    Optimizers { roots: best.keys().map(|root| (*root).to_owned()).collect(), prefix, states }
}

/// Which setting of an optimizer's groups a key is: `0.lr` of `optim.param_groups.0.lr`; nothing where it is all of them.
pub(super) fn setting<'k>(key: &'k str, roots: &[String]) -> Option<&'k str> {
    roots.iter().find_map(|root| {
        let of_root = match root.as_str() {
            "" => key,
            root => key.strip_prefix(root)?.strip_prefix('.')?,
        };
        let rest = of_root.strip_prefix(PARAM_GROUPS)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
    })
}

/// A key of a state, taken apart.
struct Split<'k> {
    root: &'k str,
    of: &'k str,
    state: &'k str,
}

impl<'k> Split<'k> {
    fn of(key: &'k str) -> Option<Self> {
        // An optimizer that was saved alone has no root.
        let alone = STATE.strip_prefix('.').and_then(|state| key.strip_prefix(state)).map(|rest| ("", rest));
        let (root, rest) = alone.or_else(|| key.split_once(STATE))?;
        let (of, state) = rest.rsplit_once('.')?;
        Some(Self { root, of, state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["model.norm.weight", "lm_head.weight"];

    fn found(keys: &[&str]) -> Optimizers {
        find(keys.iter().copied().enumerate(), &NAMES.into_iter().collect())
    }

    #[test]
    fn states_are_found_by_the_names_of_the_model() {
        for (keys, root) in [
            (["optim.state.model.norm.weight.exp_avg", "optim.state.lm_head.weight.step"], "optim"),
            (["optimizer_0.state.model.model.norm.weight.exp_avg", "optimizer_0.state.model.lm_head.weight.step"], "optimizer_0"),
            (["a.b.state._orig_mod.model.norm.weight.exp_avg", "a.b.state.lm_head._fsdp_wrapped_module.weight.step"], "a.b"),
        ] {
            let found = found(&keys);
            assert_eq!(found.roots, [root]);
            let states: Vec<_> = found.states.iter().map(|state| (&*state.of, &*state.state)).collect();
            assert_eq!(states, [("model.norm.weight", "exp_avg"), ("lm_head.weight", "step")], "{root}");
        }
    }

    #[test]
    fn what_is_of_nothing_known_is_no_state() {
        assert_eq!(found(&["optim.state.0.exp_avg", "model.norm.weight", "optim.param_groups.0.lr"]), Optimizers::default());
    }

    #[test]
    fn settings_are_those_of_its_groups() {
        let roots = ["optim".to_owned()];
        assert_eq!(setting("optim.param_groups.0.lr", &roots), Some("0.lr"));
        assert_eq!(setting("optim.param_groups.model.norm.weight.lr", &roots), Some("model.norm.weight.lr"));
        assert_eq!(setting("optim.param_groups", &roots), Some(""));
        assert_eq!(setting("other.param_groups.0.lr", &roots), None);
        assert_eq!(setting("param_groups.0.lr", &[String::new()]), Some("0.lr"));
    }
}
