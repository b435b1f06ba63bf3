//! State that is saved under the names of the weights that it is of, parameter by parameter, whole: that of distributed checkpoints.
//!
//! Not here: how names are found in keys (`torch_dist`), state by number (`elementwise`) and in flat buffers (`flat`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::SourceError;
use super::super::build::{Builder, Bytes, Stored};
use super::super::known::Known;
use super::super::rank_tensor::RankTensor;
use super::{check_coverage, elements, note_step_of, select, wrong};
use crate::catalog::{Buffers, Encoding, MASTER, Optimizer, Param, Record, StateOf};
use crate::family::{Entry, Numbers};
use crate::format::megatron::dist_keys::{COMMON_STEP, MASTERS, PARAM_STATE_SHARDING};
use crate::format::megatron::keys::{OPTIMIZER, PARAM_GROUPS, STATE, STEP};
use crate::layout::{Place, Rank};
use crate::store::Store;
use crate::tensor::Dtype;
use crate::value::Value;

/// A state of the weights.
#[derive(Debug)]
pub(in crate::source) struct KeyedState<'a> {
    /// What the checkpoint calls it.
    pub(in crate::source) name: &'a str,
    /// Its tensors, under the names of the weights.
    pub(in crate::source) tensors: Vec<RankTensor>,
}

/// What a checkpoint has of the optimizer.
pub(in crate::source) struct Keyed<'a> {
    /// The file that has what all ranks have in common, for messages.
    pub(in crate::source) file: &'a str,
    /// What that file has of it: settings and parameter groups.
    pub(in crate::source) saved: Option<&'a Value>,
    /// The storages of tensors in that.
    pub(in crate::source) storages: &'a HashMap<Arc<str>, Record>,
    pub(in crate::source) states: Vec<KeyedState<'a>>,
}

/// Everything was on one rank.
const WHOLE: Place = Place { rank: Rank { pp: 0, tp: 0, ep: 0 }, chunk: 0 };

/// Adds it to the catalog.
pub(in crate::source) fn read(
    builder: &mut Builder<'_>,
    known: &[Known<'_>],
    named: Keyed<'_>,
    store: &dyn Store,
) -> Result<(), SourceError> {
    let Some(saved) = named.saved.filter(|_| !named.states.is_empty()) else {
        if let Some(state) = named.states.first() {
            let what = format!("there is state of it ('{}'), but nothing that says its parameter groups", state.name);
            return Err(wrong(named.file, what));
        }
        return Ok(());
    };
    let (all, is_distributed) = parts(saved, named.file)?;
    let is_half = known.iter().filter_map(|known| known.leaf.value.tensor()).any(|weight| is_half(weight.dtype));
    builder.catalog.optimizer = Some(Optimizer {
        encoding: match (is_distributed, is_half) {
            (true, _) => Encoding::Distributed(Buffers { coalesced: true, aligned: true }),
            (false, true) => Encoding::Mixed,
            (false, false) => Encoding::Single,
        },
        states: Vec::new(),
        step: None,
        wrappers: HashMap::new(),
        keeps_empty_groups: groups(&all).any(|group| group.get("default_config").is_some()),
    });
    // The masters come first.
    let is_master = |state: &&KeyedState<'_>| MASTERS.contains(&state.name);
    select(builder, MASTER, elements);
    for state in named.states.iter().filter(is_master) {
        add(builder, MASTER, state, named.file)?;
    }
    own_masters(builder, known);
    // Steps come before moments, as torch's own Adam has them.
    steps(builder, known, &all, &named)?;
    for state in named.states.iter().filter(|state| !is_master(state)) {
        add(builder, state.name, state, named.file)?;
    }
    builder.state = None;
    check_coverage(builder)?;
    let step = groups(&all).find_map(|group| group.get(STEP)?.as_number());
    put(builder, all);
    note_step_of(builder, named.file, step, store)
}

/// The optimizers, each without what says how it was saved, and whether their state was in flat buffers before.
fn parts(saved: &Value, file: &str) -> Result<(Vec<Value>, bool), SourceError> {
    let numbered = saved.items().filter(|items| !items.is_empty() && items.iter().all(|(key, _)| key.as_int().is_some()));
    let all: Vec<&Value> = match (numbered, saved.elements()) {
        (Some(numbered), _) => numbered.iter().map(|(_, value)| value).collect(),
        (None, Some(list)) => list.iter().collect(),
        (None, None) => vec![saved],
    };
    let mut is_distributed = false;
    let stripped = all.into_iter().map(|value| {
        let items = value.items().ok_or_else(|| wrong(file, "it is of a kind that is not known: expected dicts".into()))?;
        is_distributed |= value.get(PARAM_STATE_SHARDING).is_some();
        let kept = items.iter().filter(|(key, _)| !matches!(key.as_str(), Some(PARAM_STATE_SHARDING | "param_state")));
        Ok(Value::Dict(kept.cloned().collect()))
    });
    let stripped: Vec<Value> = stripped.collect::<Result<_, SourceError>>()?;
    Ok((stripped, is_distributed))
}

/// Every parameter group.
fn groups(all: &[Value]) -> impl Iterator<Item = &Value> {
    all.iter().filter_map(|value| inner(value).get(PARAM_GROUPS)?.elements()).flatten()
}

fn inner(value: &Value) -> &Value {
    match value.get(OPTIMIZER) {
        Some(inner) => inner,
        None => value,
    }
}

/// Adds the tensors of a state.
fn add(builder: &mut Builder<'_>, name: &str, state: &KeyedState<'_>, file: &str) -> Result<(), SourceError> {
    if select(builder, name, elements).is_none() {
        return Err(wrong(file, format!("'{name}' is not a number for each element")));
    }
    let model = builder.model;
    for tensor in &state.tensors {
        let Some((entry, numbers)) = model.find(&tensor.name) else {
            return Err(wrong(file, format!("there is '{name}' of {}, which the model does not have", tensor.name)));
        };
        let key: Arc<str> = tensor.name.as_str().into();
        let reference = tensor.reference(&key);
        let stored = Stored {
            rank: WHOLE.rank,
            file,
            path: &tensor.name,
            tensor: &reference,
            bytes: Bytes::Pieces(&tensor.pieces),
        };
        let added = builder.tensor(&stored, entry, builder.in_model(numbers, WHOLE));
        added.map_err(|error| SourceError::State(Box::new(error)))?;
    }
    Ok(())
}

/// Weights of 32 bits that have no masters are their own.
fn own_masters(builder: &mut Builder<'_>, known: &[Known<'_>]) {
    let trained = trained(builder, known);
    let weights = builder.catalog.weights.clone();
    let Some(optimizer) = builder.catalog.optimizer.as_mut() else { return };
    let Some(StateOf::Elements(masters)) = optimizer.states.first_mut().map(|state| &mut state.of) else { return };
    let is_own = |param: &&Param| param.dtype == Dtype::Float32 && trained.contains(&param.name);
    for weight in weights.all().iter().filter(is_own) {
        masters.get_or_insert(weight.clone());
    }
}

/// Names of the parameters that an optimizer has state of.
fn trained(builder: &Builder<'_>, known: &[Known<'_>]) -> HashSet<Arc<str>> {
    let held = known.iter().filter(|known| known.entry.is_trained()).flat_map(|known| {
        let numbers = builder.in_model(known.numbers, WHOLE);
        known.entry.holds.iter().map(move |holding| numbers.fill(&holding.param).into())
    });
    held.collect()
}

/// The steps that each parameter took, where that is one tensor for all.
fn steps(
    builder: &mut Builder<'_>,
    known: &[Known<'_>],
    all: &[Value],
    named: &Keyed<'_>,
) -> Result<(), SourceError> {
    let common = all.iter().find_map(|value| inner(value).get(STATE)?.get(COMMON_STEP));
    let Some(common) = common else { return Ok(()) };
    let Some(tensor) = common.tensor() else {
        select(builder, STEP, || StateOf::Same(common.clone()));
        return Ok(());
    };
    let record = named.storages.get(&tensor.storage.key).filter(|_| tensor.shape.rank() == 0);
    let selected = select(builder, STEP, || StateOf::Scalar(Default::default()));
    let (Some(record), Some(())) = (record, selected) else {
        return Err(wrong(named.file, format!("its {COMMON_STEP} is not one number")));
    };
    let of_trained: Vec<(&Entry, Numbers, &str)> = known
        .iter()
        .filter(|known| known.entry.is_trained())
        .map(|known| (known.entry, known.numbers, known.leaf.path.as_str()))
        .collect();
    for (entry, numbers, path) in of_trained {
        let bytes = Bytes::Storage(record.extent);
        let stored = Stored { rank: WHOLE.rank, file: named.file, path, tensor, bytes };
        builder.scalar(&stored, entry, builder.in_model(numbers, WHOLE))?;
    }
    Ok(())
}

/// Notes with the rank what views take settings and groups from.
fn put(builder: &mut Builder<'_>, all: Vec<Value>) {
    let saved = match <[Value; 1]>::try_from(all) {
        Ok([only]) => only,
        Err(several) => Value::List(several.into()),
    };
    for file in &mut builder.catalog.ranks {
        for entry in &mut file.entries {
            if entry.key.as_str() == Some(OPTIMIZER) {
                entry.value = saved.clone();
            }
        }
        file.run.optimizer = Some(saved.clone());
    }
}

fn is_half(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Float16 | Dtype::Bfloat16)
}
