//! The list of modules that torch keeps beside a state dict (`_metadata`), for the layers and stage of another rank.
//!
//! Loading does not need it, but a list that names layers the file does not hold would be stale.

#![expect(
    clippy::disallowed_methods,
    reason = "notes of modules: of those that are not there nothing is noted"
)]

use std::collections::BTreeSet;
use std::ops::Range;

use crate::family::{LAYER, layer_templates, templates};
use crate::layout::Stages;
use crate::value::Value;

/// Modules of one container: name and what torch notes about it.
pub(super) type Modules = [(Value, Value)];

/// The list in a container's state.
pub(super) fn of(container: &Value) -> Option<&Modules> {
    container.attribute("_metadata")?.items()
}

/// Modules for a rank that holds `layers` and the leaves `tensors`.
///
/// `sources` are the lists of the source's ranks with their stages, `entries` the names (with `{layer}`) of everything that a model of
/// this family may save: a module that could hold some of them is listed exactly where it does. A layer's experts are listed as often as
/// the rank has `experts`.
pub(super) fn rewrite(
    sources: &[(u32, &Modules)],
    source_stages: &Stages,
    layers: Range<u32>,
    tensors: &BTreeSet<String>,
    entries: &BTreeSet<String>,
    experts: u32,
) -> Vec<(Value, Value)> {
    let holds = |leaves: &BTreeSet<String>, module: &str| leaves.iter().any(|leaf| is_within(leaf, module));
    // What layers stand in is on every stage, also on one without layers.
    let layered: BTreeSet<String> =
        entries.iter().filter(|entry| entry.contains("{layer}")).cloned().collect();
    let is_here = |module: &str| holds(tensors, module) || holds(&layered, module) || !holds(entries, module);
    // A module without parameters goes where the module around it goes.
    let is_wanted = |name: &str| with_ancestors(name).all(is_here);
    let known = Layers::of(entries);
    let mut list: Vec<(Value, Value)> = Vec::new();
    let first = sources.first().map_or(&[][..], |(_, modules)| modules);
    let last = sources.last().map_or(&[][..], |(_, modules)| modules);
    list.extend(first.iter().take_while(|(name, _)| known.layer_of(name).is_none()).cloned());
    for (local, layer) in layers.enumerate() {
        let stage = (0..source_stages.count()).find(|pp| source_stages.layers_of(*pp).contains(&layer));
        let Some(stage) = stage else { continue };
        let source_local = layer - source_stages.layers_of(stage).start;
        let modules = sources.iter().find(|(pp, _)| *pp == stage).map_or(&[][..], |(_, modules)| modules);
        let of_layer = modules.iter().filter_map(|(name, note)| {
            let (template, _) = known.layer_of(name).filter(|(_, number)| *number == source_local)?;
            Some((template.replace("{layer}", &local.to_string()), note))
        });
        let of_layer: Vec<_> = of_layer.collect();
        list.extend(with_experts(&of_layer, experts));
    }
    // Behind the layers; in a list without layers, what does not stand before them either.
    let after = last.iter().rposition(|(name, _)| known.layer_of(name).is_some());
    let is_new =
        |name: &Value| after.is_some() || !list.iter().any(|(other, _)| other.as_str() == name.as_str());
    let tail: Vec<_> = last
        .iter()
        .skip(after.map_or(0, |after| after + 1))
        .filter(|(name, _)| is_new(name))
        .cloned()
        .collect();
    let tail: Vec<_> =
        tail.iter().filter_map(|(name, note)| Some((name.as_str()?.to_owned(), note))).collect();
    list.extend(with_experts(&tail, experts));
    list.retain(|(name, _)| known.layer_of(name).is_some() || name.as_str().is_none_or(is_wanted));
    list
}

/// The modules of a layer, with those of its first expert once for each of `count` experts.
fn with_experts(modules: &[(String, &Value)], count: u32) -> Vec<(Value, Value)> {
    let mut list = Vec::new();
    for run in modules.chunk_by(|(a, _), (b, _)| expert_of(a).is_some() == expert_of(b).is_some()) {
        let firsts = run.iter().filter_map(|(name, note)| {
            let (template, expert) = expert_of(name)?;
            (expert == 0).then_some((template, *note))
        });
        let firsts: Vec<_> = firsts.collect();
        if firsts.is_empty() || count == 0 {
            list.extend(run.iter().map(|(name, note)| (Value::str(name), (*note).clone())));
        }
        for expert in 0..count {
            let named = |(template, note): &(String, &Value)| {
                (Value::str(&template.replace("{expert}", &expert.to_string())), (*note).clone())
            };
            list.extend(firsts.iter().map(named));
        }
    }
    list
}

/// A layer's module that is one expert's, or in it: its name with `{expert}`, and the expert's number.
fn expert_of(name: &str) -> Option<(String, u32)> {
    let (template, numbers) = templates(name).find(|(_, numbers)| numbers.expert.is_some())?;
    let layer = numbers.layer?;
    Some((template.replace("{layer}", &layer.to_string()), numbers.expert?))
}

/// Finds the layers that modules are of: those that stand where the family has layers. Predictions are numbered too, and no layers.
struct Layers {
    /// What stands before the number of a layer.
    prefixes: BTreeSet<String>,
}

impl Layers {
    fn of(entries: &BTreeSet<String>) -> Self {
        let before = |entry: &String| entry.split_once(LAYER).map(|(before, _)| before.to_owned());
        Self { prefixes: entries.iter().filter_map(before).collect() }
    }

    fn layer_of(&self, name: &Value) -> Option<(String, u32)> {
        layer_templates(name.as_str()?).find(|(template, _)| {
            template.split_once(LAYER).is_some_and(|(before, _)| self.prefixes.contains(before))
        })
    }
}

/// The module and the modules around it: `a.b.c`, `a.b`, `a`.
fn with_ancestors(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |inner| inner.rsplit_once('.').map(|(outer, _)| outer))
}

/// Whether the leaf belongs to the module or one inside it. The root module has the empty name.
fn is_within(leaf: &str, module: &str) -> bool {
    module.is_empty() || leaf.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'))
}
