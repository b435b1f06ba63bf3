//! State parameter by parameter: masters in a list for each group, moments by number.

#![expect(
    clippy::disallowed_methods,
    reason = "attributes of Python objects: what they do not have is left out"
)]

use std::sync::Arc;

use super::groups::Steps;
use super::slots::{Slot, SlotOf};
use super::{Chain, RankOptimizer};
use crate::catalog::MASTER;
use crate::format::megatron::keys::STEP;
use crate::tensor::{Dtype, Shape};
use crate::value::{Object, Value};
use crate::view::megatron::contents::Contents;

/// `state`: moments by number. Numbers run through the groups.
pub(super) fn state<'a>(
    rank: &'a RankOptimizer<'_>,
    chain: &Chain<'_>,
    steps: &Steps<'_>,
    contents: &mut Contents<'a>,
) -> Value {
    let members = chain.groups.iter().flat_map(|group| rank.members(group));
    let states = members.zip(0i64..).map(|(slot, number)| {
        let mut entries = Vec::new();
        if let Some(step) = steps.with_parameters {
            // Torch keeps it in 32 bits, however large.
            let bytes = (step as f32).to_le_bytes().to_vec();
            let label = slot.label(STEP, rank.layout.vpp);
            entries.push((Value::str(STEP), contents.bytes(&label, Dtype::Float32, Shape(vec![]), bytes)));
        }
        for state in slot.states.iter().filter(|state| *state.name != *MASTER) {
            let value = match &state.of {
                SlotOf::Elements(target) | SlotOf::Scalar(target) => {
                    contents.tensor(&slot.label(&state.name, rank.layout.vpp), target)
                }
                SlotOf::Same(value) => (*value).clone(),
            };
            entries.push((Value::str(&state.name), value));
        }
        (Value::Int(number), Value::Dict(entries.into()))
    });
    // What has no state is not listed.
    let is_known = |(_, state): &(Value, Value)| state.items().is_some_and(|entries| !entries.is_empty());
    Value::Dict(states.filter(is_known).collect())
}

/// The masters of the weights that have some, a list for each group.
pub(super) fn masters<'a>(
    rank: &'a RankOptimizer<'_>,
    chain: &Chain<'_>,
    contents: &mut Contents<'a>,
) -> Value {
    let lists = chain.groups.iter().map(|group| {
        let halves = rank.members(group).filter(|slot| slot.is_half());
        let masters = halves.filter_map(|slot| {
            let state = slot.states.iter().find(|state| *state.name == *MASTER)?;
            let SlotOf::Elements(target) = &state.of else { return None };
            let tensor = contents.tensor(&slot.label(MASTER, rank.layout.vpp), target);
            Some(wrapped(rank, slot, tensor))
        });
        Value::List(masters.collect())
    });
    Value::List(lists.collect())
}

/// The tensor with the Python attributes that the source's has.
fn wrapped(rank: &RankOptimizer<'_>, slot: &Slot<'_>, tensor: Value) -> Value {
    let Some(optimizer) = &rank.basis.catalog.optimizer else { return tensor };
    let own = optimizer.wrappers.get(&slot.entry.name);
    let of_embedding = || {
        // A tied copy is like the embedding, and marked so that its gradients count once.
        let held = slot.entry.holds.first().map(|holding| &holding.param);
        let held = slot.entry.unused_like.as_ref().or(held)?;
        let entries = rank.basis.model.entries().iter();
        let mut embeddings =
            entries.filter(|entry| !entry.only_if_pipelined && entry.holds.iter().any(|h| h.param == *held));
        let wrapper = embeddings.find_map(|entry| optimizer.wrappers.get(&entry.name))?;
        // Newer versions note of every linear layer, which the copy is and the embedding is not, whose gradients are added up.
        let is_noted = slot.entry.only_if_pipelined
            && optimizer.wrappers.values().any(|other| has_attribute(other, ALLREDUCE));
        let noted = is_noted.then(|| with_attribute(wrapper, ALLREDUCE, true)).flatten();
        let wrapper = noted.as_ref().unwrap_or(wrapper);
        // What is never computed with has no gradients that could count twice.
        if slot.entry.unused_like.is_some() {
            return Some(wrapper.clone());
        }
        with_attribute(wrapper, "shared", true)
    };
    let wrapper = match own {
        Some(wrapper) if !slot.is_copy || slot.entry.only_if_pipelined => Some(wrapper.clone()),
        _ if slot.is_copy => of_embedding(),
        _ => None,
    };
    let wrapper = wrapper.map(|wrapper| {
        // Gradients of experts are added up among fewer ranks than others where they are shared out.
        let apart = rank.basis.has_expert_optimizer(rank.layout);
        let known = slot.entry.is_expert() && has_attribute(&wrapper, ALLREDUCE);
        if known { with_attribute(&wrapper, ALLREDUCE, !apart).unwrap_or(wrapper) } else { wrapper }
    });
    wrapper.and_then(|wrapper| wrapper.with_tensor(tensor.clone())).unwrap_or(tensor)
}

/// Whether gradients of a tensor are added up among all replicas of the dense part.
const ALLREDUCE: &str = "allreduce";

/// Whether a wrapped tensor has a Python attribute: they are the last argument of what rebuilds it.
fn has_attribute(wrapper: &Value, name: &str) -> bool {
    let Value::Object(object) = wrapper else { return false };
    let last = object.args.elements().and_then(<[_]>::last);
    last.is_some_and(|attributes| attributes.get(name).is_some())
}

/// The wrapper with an attribute set, or added.
fn with_attribute(wrapper: &Value, name: &str, value: bool) -> Option<Value> {
    let Value::Object(object) = wrapper else { return None };
    let Value::Tuple(args) = &object.args else { return None };
    let Value::Dict(fields) = args.last()? else { return None };
    let mut fields = fields.to_vec();
    match fields.iter_mut().find(|(key, _)| key.as_str() == Some(name)) {
        Some((_, old)) => *old = Value::Bool(value),
        None => fields.push((Value::str(name), Value::Bool(value))),
    }
    let mut args = args.to_vec();
    if let Some(last) = args.last_mut() {
        *last = Value::Dict(fields.into());
    }
    Some(Value::Object(Arc::new(Object { args: Value::Tuple(args.into()), ..Object::clone(object) })))
}
