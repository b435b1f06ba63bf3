//! The entries of a rank file, each taken for what its key says: the state of the run and the parts of the model are read out of them once.
//!
//! Not here: what the keys are (`format`), tensors in a part of the model (`state_dict`).


use super::torch_file::TorchFile;
use super::{SourceError, some_of};
use crate::catalog::{BufferFile, EntryKind, RankFile, RunState, SavedEntry, one_or_more};
use crate::extent::ObjectId;
use crate::format::megatron::keys::{
    ARGS, CHECKPOINT_VERSION, ITERATION, OPERATIONS, OPTIMIZER, RERUN_STATE, RNG_STATE, SCHEDULES,
    model_entry, parse_model_entry,
};
use crate::value::Value;

/// What the entry under this key is.
fn kind_of(key: &Value) -> EntryKind {
    match key.as_str() {
        Some(ARGS) => EntryKind::Args,
        Some(CHECKPOINT_VERSION | ITERATION | OPERATIONS) => EntryKind::Progress,
        Some(OPTIMIZER) => EntryKind::Optimizer,
        Some(RNG_STATE) => EntryKind::Rng,
        Some(RERUN_STATE) => EntryKind::RankState,
        Some(name) if SCHEDULES.contains(&name) => EntryKind::Schedule,
        Some(name) => parse_model_entry(name).map_or(EntryKind::Other, EntryKind::Model),
        None => EntryKind::Other,
    }
}

/// The tree without tensors that nobody can cut, and what was left out, in words; without the optimizer too where it is not wanted.
pub(super) fn without_foreign(tree: &Value, with_optimizer: bool) -> (Value, Vec<String>) {
    let Some(items) = tree.items() else { return (tree.clone(), Vec::new()) };
    let is_foreign = |(key, value): &(Value, Value)| match kind_of(key) {
        EntryKind::Optimizer | EntryKind::Schedule => !with_optimizer,
        // Tensors of these are the rank's own and taken over as they are. Those of others might be parts of something that is cut.
        EntryKind::Args | EntryKind::Model(_) | EntryKind::Rng | EntryKind::RankState => false,
        EntryKind::Progress | EntryKind::Other => value.holds_tensor(),
    };
    let (left_out, kept): (Vec<_>, Vec<_>) = items.iter().cloned().partition(is_foreign);
    let words = left_out.iter().map(|(key, _)| {
        let kind = kind_of(key);
        let words = kind.words(key.as_str().unwrap_or("an entry without a name"));
        if kind == EntryKind::Optimizer { format!("{words} (--optimizer none)") } else { words }
    });
    (Value::Dict(kept.into()), words.collect())
}

/// What a rank saved in this file; which rank it is shows later.
pub(super) fn rank_file(
    object: ObjectId,
    file: TorchFile,
    buffers: Option<BufferFile>,
) -> Result<RankFile, SourceError> {
    let TorchFile { name, tree, storages, left_out } = file;
    let (mut entries, mut parts) = (Vec::new(), Vec::new());
    for (key, value) in tree.items().unwrap_or_default() {
        let kind = kind_of(key);
        if let (EntryKind::Model(_), Some(name)) = (kind, key.as_str()) {
            parts.push((name, value.clone()));
        }
        entries.push(SavedEntry { key: key.clone(), kind, value: value.clone() });
    }
    let (run, models) = (run_state(&tree, &name)?, models(parts, &name)?);
    Ok(RankFile { models, entries, storages, left_out, buffers, ..RankFile::of_run(object, name, run) })
}

/// What a rank saved in its file with the buffers of a distributed optimizer.
pub(super) fn buffer_file(object: ObjectId, file: TorchFile) -> BufferFile {
    let TorchFile { name, tree, storages, .. } = file;
    BufferFile { object, name, sets: one_or_more(&tree).to_vec(), storages, pieces: Default::default() }
}

/// The state of the run in the tree of a rank file. What is `None` is not there.
fn run_state(tree: &Value, file: &str) -> Result<RunState, SourceError> {
    let get = |key: &str| tree.get(key).filter(|value| !matches!(value, Value::None));
    let wrong = |key: &str, value: &Value, expected: &str| SourceError::Contents {
        file: file.to_owned(),
        what: format!("its '{key}' is a {}, not {expected}", value.kind()),
    };
    let version = get(CHECKPOINT_VERSION).map(|value| {
        value.as_number().ok_or_else(|| wrong(CHECKPOINT_VERSION, value, "a number"))
    });
    let iteration = get(ITERATION).map(|value| {
        let steps = value.as_int().and_then(|number| u64::try_from(number).ok());
        steps.ok_or_else(|| wrong(ITERATION, value, "a number of steps"))
    });
    Ok(RunState {
        args: args(tree.get(ARGS), file)?,
        checkpoint_version: version.transpose()?,
        iteration: iteration.transpose()?,
        optimizer: get(OPTIMIZER).cloned(),
        rng: get(RNG_STATE).cloned(),
    })
}

/// The arguments of training, which a file must say.
pub(super) fn args(found: Option<&Value>, file: &str) -> Result<Value, SourceError> {
    let wrong = |what: String| Err(SourceError::Contents { file: file.to_owned(), what });
    match found {
        Some(args) if args.fields().is_some() => Ok(args.clone()),
        Some(args) => wrong(format!("its '{ARGS}' are a {}, neither a namespace nor a dict", args.kind())),
        None => wrong(format!("it has no '{ARGS}', which say how its tensors are cut")),
    }
}

/// The parts of the model by the keys of their entries, in their order: `model` alone, or `model0`, `model1` and so on.
pub(super) fn models(mut parts: Vec<(&str, Value)>, file: &str) -> Result<Vec<Value>, SourceError> {
    parts.sort_by_key(|(key, _)| parse_model_entry(key));
    let is_single = matches!(parts.as_slice(), [(key, _)] if *key == model_entry(0, 1));
    let is_numbered = (0..).zip(&parts).all(|(chunk, (key, _))| *key == model_entry(chunk, 2));
    if is_single || is_numbered {
        return Ok(parts.into_iter().map(|(_, model)| model).collect());
    }
    let keys: Vec<String> = parts.iter().map(|(key, _)| (*key).to_owned()).collect();
    let what = format!(
        "its parts of the model are {}; expected {} alone, or parts numbered from 0 without gaps",
        some_of(&keys),
        model_entry(0, 1)
    );
    Err(SourceError::Contents { file: file.to_owned(), what })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn tree(entries: &[(&str, Value)]) -> Value {
        let args = (Value::str("args"), Value::namespace(vec![("tp".into(), Value::Int(1))]));
        let entries = entries.iter().map(|(key, value)| (Value::str(key), value.clone()));
        Value::Dict(std::iter::once(args).chain(entries).collect())
    }

    fn read(entries: &[(&str, Value)]) -> Result<RankFile, String> {
        let file = TorchFile {
            name: "f".into(),
            tree: tree(entries),
            storages: HashMap::new(),
            left_out: Vec::new(),
        };
        rank_file(ObjectId(0), file, None).map_err(|error| error.to_string())
    }

    fn part() -> Value {
        Value::Dict([].into())
    }

    #[test]
    fn what_belongs_to_the_run_is_typed() {
        let run = |entries: &[(&str, Value)]| read(entries).unwrap().run;
        let saved = run(&[("checkpoint_version", Value::Int(3)), ("iteration", Value::Int(7))]);
        assert_eq!((saved.checkpoint_version, saved.iteration), (Some(3.0), Some(7)));
        let none = run(&[("optimizer", Value::None), ("rng_state", Value::None), ("iteration", Value::None)]);
        assert!(none.optimizer.is_none() && none.rng.is_none() && none.iteration.is_none());
        let kinds = read(&[("model", part()), ("lr_scheduler", part()), ("model_ema", part())]).unwrap();
        let kinds: Vec<EntryKind> = kinds.entries.iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [EntryKind::Args, EntryKind::Model(0), EntryKind::Schedule, EntryKind::Other]);
    }

    #[test]
    fn entries_of_a_wrong_type_are_refused() {
        let refused = |key: &str, value: Value| read(&[(key, value)]).unwrap_err();
        assert!(refused("checkpoint_version", Value::str("3.0")).contains("is a str, not a number"));
        assert!(refused("iteration", Value::Float(1.5)).contains("is a float, not a number of steps"));
        assert!(refused("iteration", Value::Int(-1)).contains("not a number of steps"));
    }

    #[test]
    fn parts_of_the_model_are_all_there_and_in_order() {
        let parts = |keys: &[&str]| {
            let entries: Vec<(&str, Value)> = keys.iter().map(|key| (*key, part())).collect();
            read(&entries).map(|file| file.models.len())
        };
        assert_eq!(parts(&[]), Ok(0));
        assert_eq!((parts(&["model"]), parts(&["model0"])), (Ok(1), Ok(1)));
        assert_eq!(parts(&["model1", "model0"]), Ok(2));
        for bad in [&["model1"][..], &["model0", "model2"], &["model", "model1"], &["model", "model0"]] {
            assert!(parts(bad).unwrap_err().contains("numbered from 0"), "{bad:?}");
        }
    }
}
