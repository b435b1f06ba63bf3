//! What all ranks of the run have in common: `common.pt`, or an object among the others in later versions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::{EntryKind, RankFile, Record, RunState, SavedEntry};
use crate::extent::ObjectId;
use crate::format::megatron::dist_keys::{COMMON_FILE, COMMON_STATE, CONTENT_METADATA, object_key};
use crate::format::megatron::keys::{ARGS, model_entry};
use crate::source::dcp::Opened;
use crate::source::entries::{self, without_foreign};
use crate::source::torch_file::{self, TorchFile};
use crate::source::SourceError;
use crate::store::{FileStore, OpenFile};
use crate::value::Value;

/// What all ranks have in common.
pub(super) struct Common {
    /// The file, where it is one of its own.
    pub(super) file: Option<PathBuf>,
    /// Its name for messages.
    pub(super) name: String,
    /// Arguments of training.
    pub(super) args: Value,
    /// Version of the order of rows in fused tensors: that of every version that saves so, where it is not said.
    pub(super) version: f64,
    /// The optimizer's part.
    pub(super) optimizer: Option<Value>,
    /// Storages of tensors in it.
    pub(super) storages: HashMap<Arc<str>, Record>,
    read: RankFile,
}

/// Rows of the fused QKV are in this order since years before there were distributed checkpoints.
const VERSION: f64 = 3.0;

impl Common {
    /// Reads it.
    pub(super) fn read(
        path: &Path,
        names: &[String],
        opened: &Opened,
        store: &FileStore,
    ) -> Result<Self, SourceError> {
        let has_file = names.iter().any(|name| name == COMMON_FILE);
        let (object, found) = if has_file { from_file(path, store)? } else { from_object(path, opened, store)? };
        let (tree, left_out) = without_foreign(&found.tree, true);
        let name = found.name.clone();
        let args = entries::args(tree.get(ARGS), &name)?;
        let storages = found.storages.clone();
        let kept = TorchFile { tree, left_out, ..found };
        let read = entries::rank_file(object, kept, None)?;
        Ok(Self {
            file: has_file.then(|| path.join(COMMON_FILE)),
            name,
            args,
            version: read.run.checkpoint_version.map_or(VERSION, |version| version),
            optimizer: read.run.optimizer.clone(),
            storages,
            read,
        })
    }

    /// The rank that saved everything, with these args and none of the model yet.
    pub(super) fn rank_file(&self, args: Value, files: HashMap<ObjectId, String>) -> RankFile {
        let run = RunState {
            args: args.clone(),
            checkpoint_version: Some(self.version),
            optimizer: None,
            ..self.read.run.clone()
        };
        let mut entries = self.read.entries.clone();
        for entry in entries.iter_mut().filter(|entry| entry.kind == EntryKind::Args) {
            entry.value = args.clone();
        }
        // How the run saved its model and its optimizer is not what it saved.
        entries.retain(|entry| entry.key.as_str() != Some(CONTENT_METADATA));
        // A rank saves its model before its optimizer.
        let after = [EntryKind::Optimizer, EntryKind::Schedule, EntryKind::Rng, EntryKind::RankState];
        let place = entries.iter().position(|entry| after.contains(&entry.kind));
        let (key, kind) = (Value::str(&model_entry(0, 1)), EntryKind::Model(0));
        let place = place.map_or(entries.len(), |place| place);
        entries.insert(place, SavedEntry { key, kind, value: Value::None });
        RankFile { run, entries, files, ..self.read.clone() }
    }
}

fn from_file(path: &Path, store: &FileStore) -> Result<(ObjectId, TorchFile), SourceError> {
    let object = store.take(OpenFile::open(&path.join(COMMON_FILE))?)?;
    let found = torch_file::read(object, store, |tree| (tree.clone(), Vec::new()))?;
    Ok((object, found))
}

fn from_object(
    path: &Path,
    opened: &Opened,
    store: &FileStore,
) -> Result<(ObjectId, TorchFile), SourceError> {
    let objects = &opened.metadata().objects;
    let key = object_key(COMMON_STATE, &[], &[]);
    let Some(object) = objects.iter().find(|object| *object.key == *key) else {
        let what = format!("there is neither {COMMON_FILE} nor, in its .metadata, {key}, which say what model it is of");
        return Err(SourceError::NotACheckpoint { path: path.into(), what });
    };
    let mut found = opened.object(object, store)?;
    let wrong = |what: String| SourceError::Contents { file: found.name.clone(), what };
    let state = match found.tree.elements() {
        Some([state]) if state.items().is_some() => state.clone(),
        _ => return Err(wrong("expected a list of one dict here".to_owned())),
    };
    found.tree = state;
    let file = opened.object_file(object)?;
    Ok((file, found))
}
