//! Reads the files of every rank: the model with what belongs to it, and the buffers of a distributed optimizer.

use super::SourceError;
use super::locate::{Located, RankPath};
use super::torch_file::{self, TorchFile};
use super::workers::in_parallel;
use crate::extent::ObjectId;
use crate::format::megatron::{OPTIMIZER_ENTRIES, RANK_STATE_ENTRIES, RankDir, parse_model_entry};
use crate::store::FileStore;
use crate::value::Value;

/// The files of one rank as read, before it is known which rank it is.
#[derive(Debug)]
pub(super) struct ReadFile {
    pub(super) dir: RankDir,
    pub(super) object: ObjectId,
    /// The model and what belongs to it.
    pub(super) model: TorchFile,
    /// The buffers of a distributed optimizer.
    pub(super) buffers: Option<(ObjectId, TorchFile)>,
}

/// Files of one rank in the store.
struct Objects<'a> {
    file: &'a RankPath,
    model: ObjectId,
    buffers: Option<ObjectId>,
}

/// Reads the files of every rank, with the optimizer's state or without.
pub(super) fn read_all(
    located: &Located,
    store: &FileStore,
    with_optimizer: bool,
) -> Result<Vec<ReadFile>, SourceError> {
    // Objects are numbered in the order of the files, whatever order the reads end in.
    let mut ranks = Vec::with_capacity(located.files.len());
    for file in &located.files {
        ranks.push(Objects { file, model: store.add(&file.path)?, buffers: None });
    }
    for rank in ranks.iter_mut().filter(|_| with_optimizer) {
        let added = rank.file.buffers.as_ref().map(|path| store.add(path)).transpose();
        rank.buffers = added.map_err(|error| state(error.into()))?;
    }
    in_parallel(&ranks, |rank| read(rank, store, with_optimizer))
}

fn read(rank: &Objects<'_>, store: &FileStore, with_optimizer: bool) -> Result<ReadFile, SourceError> {
    let model = |with| torch_file::read(rank.model, store, |tree| without_foreign(tree, with));
    // Where the file can be read without the optimizer, that is what is wrong with it.
    let model = model(with_optimizer)
        .map_err(|error| if with_optimizer && model(false).is_ok() { state(error) } else { error })?;
    let whole = |tree: &Value| (tree.clone(), Vec::new());
    let buffers =
        |object| Ok::<_, SourceError>((object, torch_file::read(object, store, whole).map_err(state)?));
    let buffers = rank.buffers.map(buffers).transpose()?;
    Ok(ReadFile { dir: rank.file.dir, object: rank.model, model, buffers })
}

/// An error about state that one can do without.
fn state(error: SourceError) -> SourceError {
    SourceError::State(Box::new(error))
}

/// The tree without tensors that nobody can cut, and the names of what was left out; without the optimizer too where it is not wanted.
fn without_foreign(tree: &Value, with_optimizer: bool) -> (Value, Vec<String>) {
    let Some(items) = tree.items() else { return (tree.clone(), Vec::new()) };
    let is_optimizer = |name: &str| OPTIMIZER_ENTRIES.contains(&name);
    let is_known = |name: &str| {
        name == "args" || parse_model_entry(name).is_some() || RANK_STATE_ENTRIES.contains(&name)
    };
    let is_foreign = |(key, value): &(Value, Value)| match key.as_str() {
        Some(name) if is_optimizer(name) => !with_optimizer,
        Some(name) => !is_known(name) && value.holds_tensor(),
        None => value.holds_tensor(),
    };
    let (left_out, kept): (Vec<_>, Vec<_>) = items.iter().cloned().partition(is_foreign);
    let names = left_out
        .iter()
        .map(|(key, _)| key.as_str().unwrap_or("an entry without a name").to_owned())
        .collect();
    (Value::Dict(kept.into()), names)
}
