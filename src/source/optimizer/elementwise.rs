//! State that is kept parameter by parameter: `state` by number, and masters in a list for each parameter group.

use std::collections::{HashMap, HashSet};

use super::super::build::Bytes;
use super::super::SourceError;
use super::super::build::Builder;
use super::chain::{Chain, StateForm, Group};
use super::slots::Slot;
use super::{RankOptimizer, elements, select, wrong};
use crate::catalog::{MASTER, RankFile, StateOf};
use crate::format::megatron::keys::{PARAMS, STATE};
use crate::value::{TensorRef, Value};

/// Adds the state of one rank.
pub(super) fn add(builder: &mut Builder<'_>, rank: &RankOptimizer<'_>) -> Result<(), SourceError> {
    for chain in &rank.chains {
        let states = numbered(chain, rank.file)?;
        let mut used = HashSet::with_capacity(states.len());
        for (index, group) in chain.groups.iter().enumerate() {
            let members: Vec<&Slot<'_>> = rank.slots.iter().filter(|slot| slot.kind == group.kind).collect();
            let numbers = numbers(group, index, members.len(), rank.file)?;
            masters(builder, rank.file, chain, index, &members)?;
            for (slot, number) in members.iter().zip(numbers) {
                // Before its first step, or where all steps were skipped, an optimizer has masters and nothing else.
                if states.is_empty() {
                    break;
                }
                let Some(state) = states.get(&number) else {
                    let what =
                        format!("there is no state {number}, which is that of {}", slot.known.leaf.path);
                    return Err(wrong(&rank.file.name, what));
                };
                if !used.insert(number) {
                    return Err(wrong(
                        &rank.file.name,
                        format!("its parameter groups count state {number} twice"),
                    ));
                }
                state_of(builder, rank.file, slot, number, state)?;
            }
        }
        if used.len() != states.len() {
            let what = format!(
                "it has {} numbered states, but its parameter groups have {} parameters",
                states.len(),
                used.len()
            );
            return Err(wrong(&rank.file.name, what));
        }
    }
    Ok(())
}

/// States by their number.
fn numbered<'a>(chain: &Chain<'a>, file: &RankFile) -> Result<HashMap<i64, &'a Value>, SourceError> {
    let items = chain.inner.get(STATE).and_then(Value::items);
    let Some(items) = items else {
        return Err(wrong(&file.name, "expected a dict of states by number".into()));
    };
    let mut states = HashMap::with_capacity(items.len());
    for (key, value) in items {
        let number = key.as_int().filter(|_| value.items().is_some());
        let Some(number) = number else {
            return Err(wrong(&file.name, "expected a dict of states by number".into()));
        };
        states.insert(number, value);
    }
    Ok(states)
}

/// The numbers of a group's parameters, of which there must be as many as the model has.
fn numbers(
    group: &Group<'_>,
    index: usize,
    members: usize,
    file: &RankFile,
) -> Result<Vec<i64>, SourceError> {
    let numbers = group.fields.get(PARAMS).and_then(Value::elements).unwrap_or_default();
    if numbers.len() != members {
        let decays = if group.kind.decays { "with" } else { "without" };
        let what = format!(
            "its parameter group {index} ({decays} weight decay) has {} parameters, the model has {members} such",
            numbers.len()
        );
        return Err(wrong(&file.name, what));
    }
    let numbers: Option<Vec<i64>> = numbers.iter().map(Value::as_int).collect();
    numbers.ok_or_else(|| wrong(&file.name, format!("params of its parameter group {index} are not numbers")))
}

/// Adds the masters of a group. Weights of 32 bits are their own.
fn masters(
    builder: &mut Builder<'_>,
    file: &RankFile,
    chain: &Chain<'_>,
    index: usize,
    members: &[&Slot<'_>],
) -> Result<(), SourceError> {
    if select(builder, MASTER, elements).is_none() {
        return Err(wrong(&file.name, "its masters are not tensors".into()));
    }
    let has_masters = |slot: &&&Slot<'_>| chain.form == StateForm::Mixed && slot.is_half();
    for slot in members.iter().filter(|slot| !has_masters(slot)) {
        tensor(builder, file, slot, slot.weight, "weight")?;
    }
    let Some(lists) = chain.masters else { return Ok(()) };
    let list = lists.elements().and_then(|lists| lists.get(index)?.elements());
    let list = list.ok_or_else(|| {
        wrong(&file.name, format!("there is no list of masters for its parameter group {index}"))
    })?;
    let halves: Vec<&&Slot<'_>> = members.iter().filter(has_masters).collect();
    if list.len() != halves.len() {
        let what = format!(
            "its parameter group {index} has {} masters, the model has {} such weights of 16 bits",
            list.len(),
            halves.len()
        );
        return Err(wrong(&file.name, what));
    }
    for (slot, value) in halves.into_iter().zip(list) {
        let Some(master) = value.tensor() else {
            return Err(wrong(&file.name, format!("the master of {} is no tensor", slot.known.leaf.path)));
        };
        if let (Value::Object(_), Some(optimizer)) = (value, builder.catalog.optimizer.as_mut()) {
            let name = slot.known.entry.name.clone();
            optimizer.wrappers.entry(name).or_insert_with(|| value.clone());
        }
        tensor(builder, file, slot, master, "master")?;
    }
    Ok(())
}

/// Adds everything that state `number` keeps for a parameter. All parameters have the same entries.
fn state_of(
    builder: &mut Builder<'_>,
    file: &RankFile,
    slot: &Slot<'_>,
    number: i64,
    state: &Value,
) -> Result<(), SourceError> {
    let known = names(builder).count();
    for (key, value) in state.items().unwrap_or_default() {
        let Some(name) = key.as_str() else {
            return Err(wrong(&file.name, format!("state {number} has an entry without a name")));
        };
        let path = &slot.known.leaf.path;
        let selected = match value.tensor() {
            Some(tensor) if is_scalar(tensor, slot) => {
                select(builder, name, || StateOf::Scalar(Default::default()))
            }
            Some(_) => select(builder, name, elements),
            None if value.holds_tensor() => None,
            None => select(builder, name, || StateOf::Same(value.clone())),
        };
        if selected.is_none() || name == MASTER {
            let what = format!("'{name}' of state {number} ({path}) is of a kind that is not known");
            return Err(wrong(&file.name, what));
        }
        if let Some(tensor_ref) = value.tensor() {
            tensor(builder, file, slot, tensor_ref, name)?;
        } else if !is_same(builder, value) {
            let what = format!("'{name}' of state {number} ({path}) is not what it is in other states");
            return Err(wrong(&file.name, what));
        }
    }
    let (all, own) = (names(builder).count(), state.items().map_or(0, <[_]>::len));
    if own != all || (known != 0 && known != all) {
        let path = &slot.known.leaf.path;
        let others: Vec<&str> = names(builder).collect();
        let what = format!(
            "state {number} ({path}) has not the same entries as other states; all in all there are {}",
            others.join(", ")
        );
        return Err(wrong(&file.name, what));
    }
    Ok(())
}

/// The states known so far, masters apart: those have a place of their own.
fn names<'b>(builder: &'b Builder<'_>) -> impl Iterator<Item = &'b str> {
    let states = builder.catalog.optimizer.iter().flat_map(|optimizer| &optimizer.states);
    states.map(|state| &*state.name).filter(|name| *name != MASTER)
}

/// Whether the state that was just selected has this value for all parameters.
fn is_same(builder: &Builder<'_>, value: &Value) -> bool {
    let selected = builder.state.zip(builder.catalog.optimizer.as_ref());
    match selected.and_then(|(index, optimizer)| optimizer.states.get(index)).map(|state| &state.of) {
        Some(StateOf::Same(known)) => known.same_scalar(value) == Some(true),
        _ => true,
    }
}

/// Whether it is one number, and not the state of a weight that is one number itself.
fn is_scalar(tensor: &TensorRef, slot: &Slot<'_>) -> bool {
    tensor.shape.rank() == 0 && slot.weight.shape.rank() != 0
}

fn tensor(
    builder: &mut Builder<'_>,
    file: &RankFile,
    slot: &Slot<'_>,
    tensor: &TensorRef,
    what: &str,
) -> Result<(), SourceError> {
    let path = &slot.known.leaf.path;
    if !is_scalar(tensor, slot) && tensor.shape != slot.weight.shape {
        let what =
            format!("the {what} of {path} is {}, but the weight is {}", tensor.shape, slot.weight.shape);
        return Err(wrong(&file.name, what));
    }
    let Some(record) = file.storages.get(&tensor.storage.key) else {
        let what =
            format!("the {what} of {path}: its storage data/{} is not in the file", tensor.storage.key);
        return Err(wrong(&file.name, what));
    };
    slot.add(builder, file, (&file.name, tensor, Bytes::Storage(record.extent)))
}
