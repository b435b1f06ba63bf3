//! State in the flat buffers of a distributed optimizer, `distrib_optim.pt`.
//!
//! Nothing in the file says where a parameter is in a buffer. Its place follows from the order and the sizes of the parameters, so the
//! length of every buffer is checked against them, and the places too where the model's own tensors lie in such a buffer.

use super::super::SourceError;
use super::super::build::Builder;
use super::super::build::Bytes;
use super::slots::{Slot, part_of, pieces_of_part};
use super::{RankOptimizer, canonical, elements, select, wrong};
use crate::catalog::{BufferFile, Buffers, RankFile};
use crate::format::megatron::{DISTRIBUTED_FILE, Flat, FlatItem, FlatRule, bucket_size};
use crate::format::megatron::keys::{BUFFER_MASTERS, COALESCED, ROW_LENGTH as LENGTH};
use crate::layout::Place;
use crate::tensor::Dtype;
use crate::value::{TensorRef, Value};

/// How the buffers of these ranks are kept: the first way in which all their lengths are right.
pub(super) fn buffers(ranks: &[RankOptimizer<'_>], builder: &Builder<'_>) -> Result<Buffers, SourceError> {
    let mut coalesced = None;
    for rank in ranks {
        let file = buffer_file(rank)?;
        // One that keeps no buffers says nothing of how they are kept.
        if file.sets.iter().all(|part| matches!(part, Value::None)) {
            continue;
        }
        let this = file.sets.iter().any(|part| part.get(COALESCED).is_some());
        if *coalesced.get_or_insert(this) != this {
            return Err(wrong(
                &file.name,
                "its buffers are kept in another way than those of other ranks".into(),
            ));
        }
    }
    let coalesced = coalesced.unwrap_or(false);
    let check = |aligned: bool| -> Result<(), SourceError> {
        ranks.iter().try_for_each(|rank| each(rank, builder, Buffers { coalesced, aligned }, |_| Ok(())))
    };
    match check(coalesced) {
        Ok(()) => Ok(Buffers { coalesced, aligned: coalesced }),
        // Megatron-core did not align parameters in its first versions.
        Err(_) if coalesced && check(false).is_ok() => Ok(Buffers { coalesced, aligned: false }),
        Err(error) => Err(error),
    }
}

/// Adds the state of one rank.
pub(super) fn add(
    builder: &mut Builder<'_>,
    rank: &RankOptimizer<'_>,
    buffers: Buffers,
) -> Result<(), SourceError> {
    let file = buffer_file(rank)?;
    let mut parts: Vec<(String, usize, TensorRef)> = Vec::new();
    each(rank, builder, buffers, |found| {
        let part = part_of(found.buffer, found.start, &found.slot.weight.shape);
        let part = part.ok_or_else(|| wrong(&file.name, "its size is beyond reason".into()))?;
        parts.push((found.state.to_owned(), found.index, part));
        Ok(())
    })?;
    for (state, index, part) in parts {
        let Some(slot) = rank.slots.get(index) else { continue };
        let lost = || wrong(&file.name, format!("its buffer '{state}' is not in the file"));
        select(builder, canonical(&state), elements).ok_or_else(lost)?;
        let key = &part.storage.key;
        if let Some(record) = file.storages.get(key) {
            slot.add(builder, rank.file, (&file.name, &part, Bytes::Storage(record.extent)))?;
            continue;
        }
        let buffer = file.pieces.get(key).ok_or_else(lost)?;
        let pieces = pieces_of_part(buffer, part.dtype.size(), part.offset, &part.shape).ok_or_else(lost)?;
        slot.add(builder, rank.file, (&file.name, &part, Bytes::Pieces(&pieces)))?;
    }
    Ok(())
}

/// A parameter in a buffer.
struct FoundBuffer<'a> {
    /// The file's name of the state.
    state: &'a str,
    /// The parameter, and which of the rank's it is.
    slot: &'a Slot<'a>,
    index: usize,
    buffer: &'a TensorRef,
    /// First element in the buffer.
    start: u64,
}

/// Calls `with` for every parameter in every buffer of the rank, after checking the length of each buffer.
fn each(
    rank: &RankOptimizer<'_>,
    builder: &Builder<'_>,
    buffers: Buffers,
    mut with: impl FnMut(FoundBuffer<'_>) -> Result<(), SourceError>,
) -> Result<(), SourceError> {
    let file = buffer_file(rank)?;
    if file.sets.len() != rank.chains.len() {
        let what = format!(
            "it has {} sets of buffers, but its rank has {} optimizers",
            file.sets.len(),
            rank.chains.len()
        );
        return Err(wrong(&file.name, what));
    }
    for (chain, part) in rank.chains.iter().zip(&file.sets) {
        // Of several optimizers, a rank saves those whose first replica it is.
        if matches!(part, Value::None) {
            continue;
        }
        let slots: Vec<(usize, &Slot<'_>)> = rank
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| chain.groups.iter().any(|group| group.kind == slot.kind))
            .collect();
        let expected = expected(&slots, buffers.coalesced);
        let saved = saved(part, buffers.coalesced, file)?;
        if saved.len() != expected.len() {
            let what =
                format!("it has {} buffers, the model has parameters for {}", saved.len(), expected.len());
            return Err(wrong(&file.name, what));
        }
        for (members, (types, buffer)) in expected.iter().zip(saved) {
            check_types(members, types, &file.name)?;
            let (rule, flat) = lay_out(rank, builder, members, buffers, &file.name)?;
            check_offsets(members, &flat, rule, rank.file)?;
            for (state, tensor) in buffer_states(buffer, &flat, rank, file)? {
                for ((index, slot), start) in members.iter().zip(&flat.starts) {
                    with(FoundBuffer { state, slot, index: *index, buffer: tensor, start: *start })?;
                }
            }
        }
    }
    Ok(())
}

/// A buffer and the element types that it is saved under.
type Typed<'a> = (&'a Value, &'a Value);

type Members<'a> = Vec<(usize, &'a Slot<'a>)>;

/// The parameters of each buffer: one for each part of the model, and in megatron-core's way one for each element type.
fn expected<'a>(slots: &[(usize, &'a Slot<'a>)], by_dtype: bool) -> Vec<Members<'a>> {
    let mut buffers: Vec<((u32, Option<Dtype>), Members<'a>)> = Vec::new();
    for (index, slot) in slots {
        let key = (slot.known.chunk, by_dtype.then_some(slot.weight.dtype));
        match buffers.iter_mut().find(|(known, _)| *known == key) {
            Some((_, members)) => members.push((*index, slot)),
            None => buffers.push((key, vec![(*index, slot)])),
        }
    }
    buffers.into_iter().map(|(_, members)| members).collect()
}

/// The buffers of an optimizer in their order, each a dict of states.
fn saved<'a>(part: &'a Value, coalesced: bool, file: &BufferFile) -> Result<Vec<Typed<'a>>, SourceError> {
    let mut numbered: Vec<(i64, Typed<'a>)> = Vec::new();
    for (key, value) in part.items().unwrap_or_default() {
        if key.as_str() == Some(COALESCED) {
            continue;
        }
        let types = value.items().unwrap_or_default();
        match (key.as_int(), types) {
            (Some(number), [(types, buffer)]) if buffer.items().is_some() => {
                numbered.push((number, (types, buffer)));
            }
            _ => {
                let what = "expected dicts of buffers, by number and element type, of one element type each";
                return Err(wrong(&file.name, what.into()));
            }
        }
    }
    numbered.sort_by_key(|(number, _)| *number);
    if !coalesced
        && numbered.iter().any(|(_, (_, buffer))| buffer.get(BUFFER_MASTERS).is_some_and(|v| v.tensor().is_none()))
    {
        let what = "its buffers are in pieces, as Megatron-LM wrote them for a while before February 2024, which is not read";
        return Err(wrong(&file.name, what.into()));
    }
    Ok(numbered.into_iter().map(|(_, buffer)| buffer).collect())
}

/// Holds the element types that a buffer is saved under against those of its parameters. Weights of 8 bits are saved under a type that
/// stands for them.
fn check_types(members: &Members<'_>, types: &Value, file: &str) -> Result<(), SourceError> {
    let Some((_, slot)) = members.first().filter(|(_, slot)| slot.weight.dtype.size() > 1) else {
        return Ok(());
    };
    match types.elements().and_then(<[_]>::first) {
        Some(Value::Global(global)) if &*global.name != slot.weight.dtype.name() => {
            let what = format!(
                "a buffer is for weights of torch.{}, but {} is {}",
                global.name, slot.known.leaf.path, slot.weight.dtype
            );
            Err(wrong(file, what))
        }
        _ => Ok(()),
    }
}

fn lay_out(
    rank: &RankOptimizer<'_>,
    builder: &Builder<'_>,
    members: &Members<'_>,
    buffers: Buffers,
    file: &str,
) -> Result<(FlatRule, Flat), SourceError> {
    let chunk = members.first().map_or(0, |(_, slot)| slot.known.chunk);
    let place = Place { rank: rank.file.rank, chunk };
    let total = rank.slots.iter().map(Slot::elements).fold(0, u64::saturating_add);
    let bucket =
        builder.catalog.ranks.first().and_then(|first| bucket_size(&first.run.args, place, total));
    let rule = if buffers.aligned { FlatRule::Aligned { bucket } } else { FlatRule::Dense };
    let items: Vec<FlatItem> = members
        .iter()
        .map(|(_, slot)| FlatItem { elements: slot.elements(), shared_embedding: slot.shared_embedding })
        .collect();
    let flat = rule.lay_out(&items).ok_or_else(|| wrong(file, "its size is beyond reason".into()))?;
    Ok((rule, flat))
}

/// The states in a buffer, each one flat tensor of the right length.
fn buffer_states<'a>(
    buffer: &'a Value,
    flat: &Flat,
    rank: &RankOptimizer<'_>,
    file: &BufferFile,
) -> Result<Vec<(&'a str, &'a TensorRef)>, SourceError> {
    let mut states = Vec::new();
    for (key, value) in buffer.items().unwrap_or_default() {
        let name = key.as_str().unwrap_or("?");
        if name == LENGTH {
            check_length(value.as_int().and_then(|n| u64::try_from(n).ok()), flat, name, file)?;
            continue;
        }
        let tensor = value.tensor().filter(|tensor| tensor.shape.rank() == 1 && tensor.strides == [1]);
        let Some(tensor) = tensor.filter(|tensor| tensor.dtype == Dtype::Float32) else {
            return Err(wrong(&file.name, format!("its buffer '{name}' is not one row of 32-bit numbers")));
        };
        let found = tensor.shape.elements().unwrap_or(u64::MAX);
        if buffer.get(LENGTH).is_none() {
            check_length(Some(found).map(|len| unpadded(len, flat.len, rank)), flat, name, file)?;
        } else {
            check_length(Some(found), flat, name, file)?;
        }
        states.push((name, &**tensor));
    }
    if !states.iter().any(|(name, _)| *name == BUFFER_MASTERS) {
        return Err(wrong(&file.name, format!("one of its buffers has no '{BUFFER_MASTERS}'")));
    }
    Ok(states)
}

/// The length without the padding that shares a buffer out among data-parallel ranks, where it is just that.
fn unpadded(found: u64, expected: u64, rank: &RankOptimizer<'_>) -> u64 {
    let size = |field: &str| rank.file.run.args.attribute(field)?.as_int().and_then(|n| u64::try_from(n).ok());
    let replicas = size("data_parallel_size").unwrap_or(1).max(1);
    if expected.checked_next_multiple_of(replicas) == Some(found) { expected } else { found }
}

fn check_length(found: Option<u64>, flat: &Flat, name: &str, file: &BufferFile) -> Result<(), SourceError> {
    if found == Some(flat.len) {
        return Ok(());
    }
    let found = found.map_or_else(|| "no number".to_owned(), |found| format!("{found} elements"));
    let what = format!("its buffer '{name}' has {found}, but the parameters of its rank make {}", flat.len);
    Err(wrong(&file.name, what))
}

/// With a distributed optimizer the model's tensors may lie in one storage, laid out like the buffers. Then they show where things are.
fn check_offsets(
    members: &Members<'_>,
    flat: &Flat,
    rule: FlatRule,
    file: &RankFile,
) -> Result<(), SourceError> {
    let Some((_, first)) = members.first() else { return Ok(()) };
    let in_one =
        members.len() > 1 && members.iter().all(|(_, slot)| slot.weight.storage == first.weight.storage);
    if !in_one {
        return Ok(());
    }
    // Padding between buckets is in the model's storage, but not in what is saved. Without buckets the places are the same.
    let one_bucket = match rule {
        FlatRule::Dense => true,
        FlatRule::Aligned { bucket } => {
            bucket.is_none() && !members.iter().any(|(_, slot)| slot.shared_embedding)
        }
    };
    for (at, ((_, slot), start)) in members.iter().zip(&flat.starts).enumerate() {
        let next = members.get(at + 1);
        let in_order = next.is_none_or(|(_, next)| {
            next.weight.offset.checked_add(next.elements()).is_some_and(|end| end <= slot.weight.offset)
        });
        if !in_order || (one_bucket && slot.weight.offset != *start) {
            let what = format!(
                "{} is at element {} of the buffer that it lies in, where {start} was expected; the buffers are laid out in a way that is not known",
                slot.known.leaf.path, slot.weight.offset
            );
            return Err(wrong(&file.name, what));
        }
    }
    Ok(())
}

fn buffer_file<'a>(rank: &RankOptimizer<'a>) -> Result<&'a BufferFile, SourceError> {
    rank.file.buffers.as_ref().ok_or_else(|| {
        let what = format!("its optimizer is distributed, but there is no {DISTRIBUTED_FILE} beside it");
        wrong(&rank.file.name, what)
    })
}
