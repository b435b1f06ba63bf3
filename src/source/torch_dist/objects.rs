//! Objects beside the tensors: extra states of modules, random-number states, what else ranks saved as they liked.
//!
//! Extra state that holds nothing is noted like that of a rank file. Random-number states are another's matter (`rng`). Anything else belongs to a module or a rank as one layout has it, and is
//! said to be left out.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{Named, without_module};
use super::rng;
use crate::family::{LayerKind, Model, Numbers};
use crate::format::dcp::metadata::Object;
use crate::format::megatron::dist_keys::{COMMON_STATE, DistKey, ObjectKey, Of, Spec};
use crate::source::dcp::Opened;
use crate::source::workers::in_parallel;
use crate::source::{SourceError, some_of};
use crate::store::Store;
use crate::value::Value;

/// What objects there are.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// Names in rank files of extra states that hold nothing.
    pub(super) states: Vec<String>,
    /// What goes into no view, in words.
    pub(super) left_out: Vec<String>,
}

/// An extra state that is there for each layer or expert.
#[derive(Debug)]
struct State<'a> {
    object: &'a Object,
    key: &'a ObjectKey<'a>,
    name: DistKey,
}

/// The extra state of the head.
const HEAD_STATE: &str = "output_layer._extra_state";

impl Objects {
    /// Looks at them. Of extra states that are saved under one key and are as long one is read: none that holds something is as long as one
    /// that does not.
    pub(super) fn read(
        opened: &Opened,
        named: &Named<'_>,
        model: &Model,
        spec: Spec,
        has_rng: bool,
        store: &dyn Store,
    ) -> Result<Self, SourceError> {
        let mut kinds: BTreeMap<(&str, u64), Vec<State<'_>>> = BTreeMap::new();
        let mut others: BTreeSet<&str> = named.foreign.iter().map(|object| &*object.key).collect();
        for (object, key) in &named.objects {
            let name = DistKey::parse(without_module(key.key));
            if name.name.is_extra_state() {
                kinds.entry((key.key, object.place.len)).or_default().push(State { object, key, name });
            // Read as [`super::common::Common`], and as [`super::rng::Rng`].
            } else if key.key != COMMON_STATE && !(has_rng && rng::is_state(key)) {
                others.insert(key.key);
            }
        }
        let examples: Vec<&Object> = kinds.values().filter_map(|states| Some(states.first()?.object)).collect();
        let is_empty = in_parallel(&examples, |object| Ok(holds_nothing(&opened.object(object, store)?.tree)))?;
        let mut found = Self::default();
        let mut full: BTreeSet<String> = BTreeSet::new();
        for (((key, _), states), is_empty) in kinds.into_iter().zip(is_empty) {
            if is_empty {
                // Views have those that any version asks for. Of these rank files of Megatron's own layers have only the linear layers'.
                let states = states.iter().filter(|state| spec.transformer_engine || state.name.name.is_state_of_linear());
                found.states.extend(states.flat_map(|state| state.names(spec, model)));
            } else {
                full.insert(key.to_owned());
            }
        }
        // That of the head is in no key, and rank files with extra states have it.
        if !found.states.is_empty() && model.find(HEAD_STATE).is_some() {
            found.states.push(HEAD_STATE.to_owned());
        }
        found.states.sort();
        found.states.dedup();
        found.say(&full, &others);
        Ok(found)
    }

    fn say(&mut self, full: &BTreeSet<String>, others: &BTreeSet<&str>) {
        if !full.is_empty() {
            let names: Vec<String> = full.iter().cloned().collect();
            self.left_out.push(format!("extra state of modules ({})", some_of(&names)));
        }
        self.left_out.extend(others.iter().map(|key| (*key).to_owned()));
    }
}

/// Whether the object is a list of nothing: what a module without extra state saves. Some save an empty tensor or no bytes.
fn holds_nothing(saved: &Value) -> bool {
    let Some([only]) = saved.elements() else { return false };
    match only {
        Value::None => true,
        Value::Tensor(tensor) => tensor.shape.elements() == Some(0),
        Value::Bytes(bytes) => bytes.is_empty(),
        _ => false,
    }
}

impl State<'_> {
    /// What rank files call it.
    fn names(&self, spec: Spec, model: &Model) -> Vec<String> {
        let number = |at: usize| self.key.offsets.get(at).copied();
        let is_layered = self.name.name.of == Of::Layers;
        // A layer that is not in the key is the first part of the object.
        let (layer, next) = match self.name.layer {
            Some(layer) => (Some(layer), 0),
            None if is_layered => (number(0), 1),
            None => (None, 0),
        };
        let expert = match self.name.expert {
            Some(expert) => Some(expert),
            None if self.name.name.of_experts => number(next),
            None => None,
        };
        let numbers = Numbers {
            layer: layer.filter(|_| is_layered),
            depth: layer.filter(|_| self.name.name.of == Of::Predictions),
            expert,
        };
        let kind = numbers.layer.map(|layer| model.kind_of(layer));
        let has_experts = kind.is_none_or(|kind| kind == LayerKind::Expert);
        vec![numbers.fill(&self.name.name.rank_template(spec, has_experts))]
    }
}
