//! State in flat buffers: `distrib_optim.pt`.

use std::sync::Arc;

use super::slots::{Slot, SlotOf};
use super::{Chain, RankOptimizer};
use crate::catalog::{Buffers, MASTER};
use crate::format::megatron::keys::{BUFFER_MASTERS, COALESCED, ROW_LENGTH};
use crate::format::megatron::{Flat, FlatItem, FlatRule, bucket_size};
use crate::plan::Target;
use crate::tensor::Dtype;
use crate::value::{Global, Value};
use crate::view::ViewError;
use crate::view::megatron::contents::Contents;

/// The buffers of one optimizer: one for each part of the model, and in megatron-core's way one for each element type.
pub(super) fn part<'a>(
    rank: &'a RankOptimizer<'_>,
    chain: &Chain<'_>,
    kept: Buffers,
    contents: &mut Contents<'a>,
) -> Result<Value, ViewError> {
    let mut entries = Vec::new();
    if kept.coalesced {
        entries.push((Value::str(COALESCED), Value::Bool(true)));
    }
    let in_chain = |slot: &&Slot<'_>| chain.groups.iter().any(|group| group.kind == slot.kind);
    let members_of = members(rank.slots.iter().filter(in_chain), kept.coalesced);
    for (number, members) in (0i64..).zip(&members_of) {
        let Some(first) = members.first() else { continue };
        let key = if kept.coalesced { number } else { i64::from(first.chunk) };
        let expert = chain.groups.iter().any(|group| group.kind.expert);
        let label = format!("{}{number}", if expert { "expert " } else { "" });
        let types = types_key(rank, first, kept);
        let flat = lay_out(rank, members, first.chunk, kept).ok_or(TOO_LARGE)?;
        let buffer = buffer(rank, members, &flat, kept, &label, contents)?;
        entries.push((Value::Int(key), Value::Dict([(types, buffer)].into())));
    }
    Ok(Value::Dict(entries.into()))
}

/// Sizes of tensors in files of at most 2^63 bytes: their sum fits wherever the source's did.
const TOO_LARGE: ViewError = ViewError::NoBuffers { why: "its flat buffers would be too long to be counted" };

/// The parameters of each buffer, in the order of the buffers' first ones.
fn members<'a>(slots: impl Iterator<Item = &'a Slot<'a>>, by_dtype: bool) -> Vec<Vec<&'a Slot<'a>>> {
    let key = |slot: &Slot<'_>| (slot.chunk, by_dtype.then_some(slot.dtype));
    let mut buffers: Vec<Vec<&Slot<'_>>> = Vec::new();
    for slot in slots {
        match buffers.iter_mut().find(|members| members.first().is_some_and(|first| key(first) == key(slot)))
        {
            Some(members) => members.push(slot),
            None => buffers.push(vec![slot]),
        }
    }
    buffers
}

/// One buffer: a row for each state.
fn buffer<'a>(
    rank: &'a RankOptimizer<'_>,
    members: &[&'a Slot<'_>],
    flat: &Flat,
    kept: Buffers,
    label: &str,
    contents: &mut Contents<'a>,
) -> Result<Value, ViewError> {
    let mut entries = Vec::new();
    let states = rank.basis.catalog.optimizer.iter().flat_map(|optimizer| optimizer.elements());
    for (state, _) in states {
        // The first parameter is at the end: parts ascend in reverse.
        let parts = members.iter().zip(&flat.starts).rev().filter_map(|(slot, start)| {
            let target = slot.states.iter().find(|of| of.name == *state).map(|of| &of.of);
            let Some(SlotOf::Elements(target)) = target else { return None };
            let target: &'a Target<'_> = target;
            Some((*start, Arc::from(slot.label(state, rank.layout.vpp)), target))
        });
        let name = if **state == *MASTER { BUFFER_MASTERS } else { state };
        let row = contents.flat(&format!("{label} {name}"), Dtype::Float32, flat.len, parts.collect());
        entries.push((Value::str(name), row));
    }
    if kept.coalesced {
        let len = i64::try_from(flat.len).map_err(|_| TOO_LARGE)?;
        entries.push((Value::str(ROW_LENGTH), Value::Int(len)));
    }
    Ok(Value::Dict(entries.into()))
}

fn lay_out(rank: &RankOptimizer<'_>, members: &[&Slot<'_>], chunk: u32, kept: Buffers) -> Option<Flat> {
    let total = rank.slots.iter().map(|slot| slot.elements).fold(0, u64::saturating_add);
    let args = rank.basis.args();
    let bucket = args.and_then(|args| bucket_size(args, rank.place(chunk), total));
    let rule = if kept.aligned { FlatRule::Aligned { bucket } } else { FlatRule::Dense };
    let items: Vec<FlatItem> = members
        .iter()
        .map(|slot| FlatItem { elements: slot.elements, shared_embedding: slot.shared_embedding })
        .collect();
    rule.lay_out(&items)
}

/// The key that names a buffer's element types: those of parameters and gradients, or of gradients alone.
#[expect(clippy::disallowed_methods, reason = "what is no dict has no entries")]
fn types_key(rank: &RankOptimizer<'_>, first: &Slot<'_>, kept: Buffers) -> Value {
    let own = global(first.dtype);
    let saved = rank.source.buffers.as_ref().and_then(|file| {
        let buffers = file.sets.iter().flat_map(|part| part.items().unwrap_or_default());
        let mut keys = buffers.flat_map(|(_, types)| types.items().unwrap_or_default()).map(|(key, _)| key);
        keys.find(|key| {
            !kept.coalesced || key.elements().and_then(<[_]>::first).is_some_and(|first| same(first, &own))
        })
    });
    match saved {
        // Of its own for each buffer: what is one object is saved as one.
        Some(Value::Tuple(types)) => return Value::Tuple(types.iter().cloned().collect()),
        Some(key) => return key.clone(),
        None => {}
    }
    let is_set =
        |field: &str| rank.basis.args().and_then(|args| args.attribute(field)).is_some_and(Value::is_truthy);
    let gradients =
        if is_set("accumulate_allreduce_grads_in_fp32") { global(Dtype::Float32) } else { own.clone() };
    if kept.coalesced { Value::Tuple([own, gradients].into()) } else { gradients }
}

fn same(one: &Value, other: &Value) -> bool {
    matches!((one, other), (Value::Global(one), Value::Global(other)) if one == other)
}

/// `torch.bfloat16`
fn global(dtype: Dtype) -> Value {
    Value::Global(Arc::new(Global { module: "torch".into(), name: dtype.name().into() }))
}
