//! What all ranks of the run have in common: `common.pt`, or an object among the others in later versions. Of Megatron-Bridge and NeMo 2, whose
//! runs have no args, what `run_config.yaml` or the config of a template says of the model.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::names::main_dtype;
use super::rng::Rng;
use crate::catalog::{EntryKind, RankFile, Record, RunState, SavedEntry};
use crate::extent::ObjectId;
use crate::family::Family;
use crate::family::config::explain;
use crate::format::hf::CONFIG;
use crate::format::megatron::dist_keys::{COMMON_FILE, COMMON_STATE, CONTENT_METADATA, object_key};
use crate::format::megatron::keys::{ARGS, RNG_STATE, model_entry};
use crate::format::megatron::run_config::{self, RUN_CONFIG};
use crate::source::aux_files::read_small;
use crate::source::dcp::Opened;
use crate::source::entries::{self, without_foreign};
use crate::source::torch_file::{self, TorchFile};
use crate::source::hf::{args_of, family_of};
use crate::source::{Options, SourceError, TemplateConfig};
use crate::store::{FileStore, OpenFile};
use crate::value::Value;

/// What all ranks have in common.
pub(super) struct Common {
    /// The file, where it is one of its own.
    pub(super) file: Option<PathBuf>,
    /// Its name for messages.
    pub(super) name: String,
    /// Name of the file that says what model it is.
    pub(super) args_name: String,
    /// Arguments of training, or what says the same in their place.
    pub(super) args: Value,
    /// The family of a published model whose config says what args would.
    pub(super) described_by: Option<Arc<Family>>,
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
        options: &Options,
        store: &FileStore,
    ) -> Result<Self, SourceError> {
        let has_file = names.iter().any(|name| name == COMMON_FILE);
        let (object, found) = if has_file { from_file(path, store)? } else { from_object(path, opened, store)? };
        let (tree, left_out) = without_foreign(&found.tree, true);
        let name = found.name.clone();
        let mut described_by = None;
        let (args_name, args, objects) = match tree.get(ARGS) {
            None if names.iter().any(|name| name == RUN_CONFIG) => from_run_config(path)?,
            None => match &options.template {
                Some(template) => {
                    let (file, args, family) = from_template(template, opened, options)?;
                    described_by = Some(family);
                    (file, args, Vec::new())
                }
                None => return Err(SourceError::Contents { file: name, what: without_args() }),
            },
            found => (name.clone(), entries::args(found, &name)?, Vec::new()),
        };
        // Rank files have args, and what loads those looks for them.
        let tree = if tree.get(ARGS).is_some() { tree } else { with_args(&tree, &args) };
        let storages = found.storages.clone();
        let kept = TorchFile { tree, left_out, ..found };
        let mut read = entries::rank_file(object, kept, None)?;
        read.left_out.extend(objects.iter().map(|field| format!("model.{field} of {RUN_CONFIG} (an object)")));
        Ok(Self {
            file: has_file.then(|| path.join(COMMON_FILE)),
            name,
            args_name,
            args,
            described_by,
            version: read.run.checkpoint_version.map_or(VERSION, |version| version),
            optimizer: read.run.optimizer.clone(),
            storages,
            read,
        })
    }

    /// The rank that saved everything, with these args and random-number states and none of the model yet.
    pub(super) fn rank_file(&self, args: Value, rng: Option<&Rng>, files: HashMap<ObjectId, String>) -> RankFile {
        let first = rng.and_then(|rng| rng.states.of.first()).map(|(_, state)| state.clone());
        let run = RunState {
            args: args.clone(),
            checkpoint_version: Some(self.version),
            optimizer: None,
            rng: first.clone(),
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
        let key = || Value::str(RNG_STATE);
        entries.extend(first.map(|value| SavedEntry { key: key(), kind: EntryKind::Rng, value }));
        let mut storages = self.read.storages.clone();
        storages.extend(rng.iter().flat_map(|rng| rng.storages.clone()));
        RankFile { run, entries, files, storages, ..self.read.clone() }
    }
}

fn without_args() -> String {
    format!(
        "it has no '{ARGS}', which say what model it is of, and there is no {RUN_CONFIG} beside it, in which Megatron-Bridge says that; \
         --template DIR takes the {CONFIG} of the same model as published, or a {RUN_CONFIG} with a section 'model' (num_layers, \
         hidden_size, ..) can be written by hand"
    )
}

fn with_args(tree: &Value, args: &Value) -> Value {
    let own = tree.items().into_iter().flatten().cloned();
    Value::Dict(std::iter::once((Value::str(ARGS), args.clone())).chain(own).collect())
}

/// What the config of the same model as published says: NeMo 2 saves no sizes, only calls of classes whose defaults have them.
fn from_template(
    template: &TemplateConfig,
    opened: &Opened,
    options: &Options,
) -> Result<(String, Value, Arc<Family>), SourceError> {
    let file = template.directory.join(CONFIG).display().to_string();
    let family = family_of(&file, &template.config, options, &|| Ok(Vec::new()))?;
    let dtype = main_dtype(opened.metadata());
    let (args, inexpressible) = args_of(&file, &family, &template.config, dtype, options.divisible_by)?;
    if inexpressible.is_empty() {
        return Ok((file, args, family));
    }
    let what = format!("it cannot be that of a run of Megatron: {}", explain(&inexpressible));
    Err(SourceError::Contents { file, what })
}

/// What Megatron-Bridge says in the place of args: the file, that, and which fields of it are left out.
fn from_run_config(path: &Path) -> Result<(String, Value, Vec<String>), SourceError> {
    let file = path.join(RUN_CONFIG);
    let name = file.display().to_string();
    let wrong = |what: String| SourceError::Contents { file: name.clone(), what };
    let bytes = read_small(&file, run_config::MAX_LEN)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| wrong(error.to_string()))?;
    let found = run_config::decode(text).map_err(|error| wrong(error.to_string()))?;
    Ok((name, found.args, found.objects))
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
