//! State that is saved by the names of the model's tensors: that of distributed checkpoints.

use std::collections::HashMap;

use super::super::SourceError;
use super::super::build::{Builder, Bytes, Stored};
use super::super::known::Known;
use super::{elements, select, wrong};
use crate::catalog::{Encoding, MASTER, NamedState, Optimizer, RankFile, StateOf};
use crate::layout::Place;
use crate::tensor::Dtype;
use crate::value::{TensorRef, Value};

/// Adds the state of all files. Weights of 32 bits that no masters are saved for are their own, as in rank files.
pub(super) fn add(
    builder: &mut Builder<'_>,
    files: &[RankFile],
    known: &[Known<'_>],
) -> Result<(), SourceError> {
    builder.catalog.optimizer = Some(Optimizer {
        encoding: Encoding::Named,
        states: Vec::new(),
        step: None,
        wrappers: HashMap::new(),
        keeps_empty_groups: false,
    });
    // First in every source: what the order of states is has nothing to do with how they are saved.
    _ = select(builder, MASTER, elements);
    for (index, file) in files.iter().enumerate() {
        let of_file = known.iter().filter(|known| known.file == index);
        let weights: HashMap<&str, &Known<'_>> =
            of_file.map(|known| (known.leaf.path.as_str(), known)).collect();
        let mut trained: HashMap<&str, bool> = HashMap::new();
        for named in &file.named_states {
            let Some(weight) = weights.get(&*named.of) else {
                let what = format!("its {} is of {}, which the model does not have", named.state, named.of);
                return Err(wrong(&file.name, what));
            };
            if weight.entry.is_copy() {
                builder.catalog.left_out.insert(format!("{} of {} (the state of a copy)", named.state, named.of));
                continue;
            }
            state(builder, file, weight, named)?;
            *trained.entry(&named.of).or_default() |= *named.state == *MASTER;
        }
        for known in known.iter().filter(|known| known.file == index) {
            let weight = known.leaf.value.tensor();
            let has_own = trained.get(known.leaf.path.as_str());
            if let (Some(weight), Some(false)) = (weight.filter(|weight| !is_half(weight)), has_own) {
                _ = select(builder, MASTER, elements);
                tensor(builder, file, known, weight)?;
            }
        }
    }
    if let Some(optimizer) = &mut builder.catalog.optimizer {
        // Where weights have 16 bits and no masters.
        optimizer.states.retain(|state| !matches!(&state.of, StateOf::Elements(params) if params.all().is_empty()));
    }
    Ok(())
}

fn is_half(weight: &TensorRef) -> bool {
    matches!(weight.dtype, Dtype::Float16 | Dtype::Bfloat16)
}

/// Adds one state of one tensor.
fn state(
    builder: &mut Builder<'_>,
    file: &RankFile,
    weight: &Known<'_>,
    named: &NamedState,
) -> Result<(), SourceError> {
    let NamedState { state, of, value } = named;
    let selected = match value.tensor() {
        Some(tensor) if is_scalar(tensor, weight) => {
            select(builder, state, || StateOf::Scalar(Default::default()))
        }
        Some(_) => select(builder, state, elements),
        None => select(builder, state, || StateOf::Same(value.clone())),
    };
    if selected.is_none() {
        let what = format!("the {state} of {of} is a {}, and not what it is of others", value.kind());
        return Err(wrong(&file.name, what));
    }
    match value.tensor() {
        Some(value) => tensor(builder, file, weight, value),
        None if is_same(builder, value) => Ok(()),
        None => Err(wrong(&file.name, format!("the {state} of {of} is not what it is of others"))),
    }
}

/// Whether the state that was just selected has this value for all tensors.
fn is_same(builder: &Builder<'_>, value: &Value) -> bool {
    let selected = builder.state.zip(builder.catalog.optimizer.as_ref());
    match selected.and_then(|(index, optimizer)| optimizer.states.get(index)).map(|state| &state.of) {
        Some(StateOf::Same(known)) => known.same_scalar(value) == Some(true),
        _ => false,
    }
}

/// Whether it is one number, and not the state of a weight that is one number itself.
fn is_scalar(tensor: &TensorRef, weight: &Known<'_>) -> bool {
    tensor.shape.rank() == 0 && weight.leaf.value.tensor().is_some_and(|weight| weight.shape.rank() != 0)
}

/// Adds a tensor to the state that is selected.
fn tensor(
    builder: &mut Builder<'_>,
    file: &RankFile,
    weight: &Known<'_>,
    tensor: &TensorRef,
) -> Result<(), SourceError> {
    let path = &weight.leaf.path;
    let shape = weight.leaf.value.tensor().map(|weight| &weight.shape);
    let scalar = is_scalar(tensor, weight);
    if !scalar && shape != Some(&tensor.shape) {
        let of = shape.map(ToString::to_string).unwrap_or_default();
        let what = format!("a state of {path} is {}, but the tensor is {of}", tensor.shape);
        return Err(wrong(&file.name, what));
    }
    let Some(bytes) = Bytes::of(tensor, file) else {
        return Err(wrong(&file.name, format!("a state of {path} is not in its files")));
    };
    let stored = Stored { rank: file.rank, file: &file.name, path, tensor, bytes };
    let numbers = builder.in_model(weight.numbers, Place { rank: file.rank, chunk: weight.chunk });
    let added = if scalar {
        builder.scalar(&stored, weight.entry, numbers)
    } else {
        builder.tensor(&stored, weight.entry, numbers)
    };
    added.map_err(|error| SourceError::State(Box::new(error)))
}
