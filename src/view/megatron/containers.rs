//! The dicts that a rank's tensors stand in, of the kinds that the source has at the same places.

use std::sync::Arc;

use super::modules;
use crate::catalog::RankFile;
use crate::layout::{Layout, Place};
use crate::value::{Object, Value};
use crate::view::{Basis, TargetTensor};

/// Makes the `model` of one rank.
pub(super) struct Containers<'a> {
    basis: &'a Basis,
    layout: &'a Layout,
    place: Place,
    tensors: &'a [TargetTensor<'a>],
    /// Source rank files, the best example for this rank first.
    examples: Vec<&'a RankFile>,
}

/// A leaf: the rest of its path, and what stands there.
type Leaf<'p> = (&'p str, Value);

impl<'a> Containers<'a> {
    pub(super) fn new(
        basis: &'a Basis,
        layout: &'a Layout,
        place: Place,
        tensors: &'a [TargetTensor<'a>],
    ) -> Self {
        let nearest = basis.catalog.nearest_rank(place.rank, layout);
        let examples = nearest.into_iter().chain(&basis.catalog.ranks).collect();
        Self { basis, layout, place, tensors, examples }
    }

    /// The model with these leaves, in this order.
    pub(super) fn fill(&self, leaves: Vec<(Arc<str>, Value)>) -> Value {
        let leaves = leaves.iter().map(|(path, value)| (&**path, value.clone())).collect();
        self.container("", leaves)
    }

    /// The container at `path` (empty for the model itself).
    fn container(&self, path: &str, leaves: Vec<Leaf<'_>>) -> Value {
        let mut items: Vec<(Value, Value)> = Vec::new();
        let mut rest = leaves.into_iter().peekable();
        while let Some((name, value)) = rest.next() {
            let Some((dict, inner)) = name.split_once('/') else {
                items.push((Value::str(name), value));
                continue;
            };
            // Leaves of one dict stand together, because the family lists them so.
            let mut within = vec![(inner, value)];
            let is_inner = |name: &str| name.split_once('/').is_some_and(|(other, _)| other == dict);
            while let Some((next, value)) = rest.next_if(|(next, _)| is_inner(next)) {
                within.extend(next.split_once('/').map(|(_, next)| (next, value)));
            }
            let inner_path = if path.is_empty() { dict.to_owned() } else { format!("{path}/{dict}") };
            items.push((Value::str(dict), self.container(&inner_path, within)));
        }
        self.like_the_source(path, items)
    }

    /// A dict of the kind the source has at `path`, holding `items`.
    fn like_the_source(&self, path: &str, items: Vec<(Value, Value)>) -> Value {
        let example =
            self.examples.iter().find_map(|file| in_any(file, path)).or_else(|| self.like_another(path));
        match example {
            Some(Value::Object(object)) => {
                let state = object.state.as_ref().map(|state| self.with_modules(path, state));
                Value::Object(Arc::new(Object { items, state, ..Object::clone(object) }))
            }
            _ => Value::Dict(items.into()),
        }
    }

    /// What the family says a dict that the source lacks is like.
    fn like_another(&self, path: &str) -> Option<&'a Value> {
        let entry = self
            .tensors
            .iter()
            .map(|tensor| tensor.entry)
            .find(|entry| entry.name.rsplit_once('/').is_some_and(|(dict, _)| dict == path))?;
        let other = entry.container_like.as_deref()?;
        self.examples.iter().find_map(|file| in_any(file, other))
    }

    /// The state of an `OrderedDict` with the list of modules that this rank has.
    fn with_modules(&self, path: &str, state: &Value) -> Value {
        let Some(fields) = state.items() else { return state.clone() };
        let fields = fields.iter().map(|(key, value)| {
            let is_modules = key.as_str() == Some("_metadata");
            (key.clone(), if is_modules { self.modules(path, value) } else { value.clone() })
        });
        Value::Dict(fields.collect())
    }

    fn modules(&self, path: &str, example: &Value) -> Value {
        let source_layout = &self.basis.catalog.layout;
        let mut sources: Vec<(u32, &modules::Modules)> = Vec::new();
        for file in &self.basis.catalog.ranks {
            let lists = source_layout.places(file.rank).filter_map(|place| {
                Some((source_layout.stage(place), modules::of(at(file, place.chunk, path)?)?))
            });
            sources.extend(lists);
        }
        sources.sort_by_key(|(stage, _)| *stage);
        if sources.is_empty() {
            return example.clone();
        }
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let names = |leaf: &str| leaf.strip_prefix(&prefix).map(ToOwned::to_owned);
        let tensors = self.tensors.iter().filter_map(|tensor| names(&tensor.name)).collect();
        let entries = self.basis.model.entries().iter().filter_map(|entry| names(&entry.name)).collect();
        let layers = self.layout.layers_at(self.place);
        let experts = self.basis.model.experts_per_rank(self.layout);
        let list = modules::rewrite(&sources, &source_layout.stages, layers, &tensors, &entries, experts);
        match example {
            Value::Object(object) => Value::Object(Arc::new(Object { items: list, ..Object::clone(object) })),
            _ => Value::Dict(list.into()),
        }
    }
}

/// The container at `path` in whichever part of the model in a source file has one.
fn in_any<'a>(file: &'a RankFile, path: &str) -> Option<&'a Value> {
    (0..file.chunks()).find_map(|chunk| at(file, chunk, path))
}

/// The container at `path` in a part of the model in a source file.
fn at<'a>(file: &'a RankFile, chunk: u32, path: &str) -> Option<&'a Value> {
    let model = file.model(chunk)?;
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    parts.try_fold(model, |value, part| value.get(part)).filter(|value| value.items().is_some())
}
