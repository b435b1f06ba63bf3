//! The list of modules that torch keeps beside a state dict (`_metadata`), for the layers and stage of another rank.
//!
//! Loading does not need it, but a list that names layers the file does not hold would be stale.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::family::layer_templates;
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
/// this family may save: a module that could hold some of them is listed exactly where it does.
pub(super) fn rewrite(
    sources: &[(u32, &Modules)],
    source_stages: &Stages,
    layers: Range<u32>,
    tensors: &BTreeSet<String>,
    entries: &BTreeSet<String>,
) -> Vec<(Value, Value)> {
    let holds = |leaves: &BTreeSet<String>, module: &str| leaves.iter().any(|leaf| is_within(leaf, module));
    // A module without parameters goes where the module around it goes.
    let is_wanted =
        |name: &str| with_ancestors(name).all(|module| holds(tensors, module) || !holds(entries, module));
    let mut list: Vec<(Value, Value)> = Vec::new();
    let first = sources.first().map_or(&[][..], |(_, modules)| modules);
    let last = sources.last().map_or(&[][..], |(_, modules)| modules);
    list.extend(first.iter().take_while(|(name, _)| layer_of(name).is_none()).cloned());
    for (local, layer) in layers.enumerate() {
        let stage = (0..source_stages.count()).find(|pp| source_stages.layers_of(*pp).contains(&layer));
        let Some(stage) = stage else { continue };
        let source_local = layer - source_stages.layers_of(stage).start;
        let modules = sources.iter().find(|(pp, _)| *pp == stage).map_or(&[][..], |(_, modules)| modules);
        for (name, note) in modules {
            if let Some((template, _)) = layer_of(name).filter(|(_, number)| *number == source_local) {
                list.push((Value::str(&template.replace("{layer}", &local.to_string())), note.clone()));
            }
        }
    }
    if let Some(after) = last.iter().rposition(|(name, _)| layer_of(name).is_some()) {
        list.extend(last.iter().skip(after + 1).cloned());
    }
    list.retain(|(name, _)| {
        name.as_str().is_none_or(|name| layer_of_text(name).is_some() || is_wanted(name))
    });
    list
}

fn layer_of(name: &Value) -> Option<(String, u32)> {
    layer_of_text(name.as_str()?)
}

fn layer_of_text(name: &str) -> Option<(String, u32)> {
    layer_templates(name).next()
}

/// The module and the modules around it: `a.b.c`, `a.b`, `a`.
fn with_ancestors(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |inner| inner.rsplit_once('.').map(|(outer, _)| outer))
}

/// Whether the leaf belongs to the module or one inside it. The root module has the empty name.
fn is_within(leaf: &str, module: &str) -> bool {
    module.is_empty() || leaf.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'))
}
