//! Opens a Hugging Face model directory: `config.json`, the headers of its safetensors files, and what lies beside them.
//!
//! Not here: what a header looks like (`format`), which tensors a model has (`family`).

mod config;
mod shards;
pub(super) mod words;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::locate::Sizes;
use super::{Options, Source, SourceError, aux_files, contents, experts};
use crate::catalog::{Catalog, Iteration, Param, RankFile, Record, RunState};
use crate::extent::ObjectId;
use crate::family::Family;
use crate::family::config::{Config, ConfigError, FromConfig, VOCAB_SIZE, dtype_args};
use crate::format::hf::{CONFIG, INDEX, SINGLE};
use crate::layout::Format;
use crate::store::FileStore;
use crate::tensor::Dtype;
use crate::value::{TensorRef, Value};

pub(super) use config::{family_of, read as read_config, read_file as read_config_file};
pub(super) use shards::header;

/// Whether a directory with these names in it has the weights of a model that can be read.
pub(super) fn has_weights(names: &[String]) -> bool {
    names.iter().any(|name| name == SINGLE || name == INDEX)
}

/// What to say of a model directory without them.
pub(super) fn without_weights() -> String {
    format!("it has a config, but neither {SINGLE} nor {INDEX}")
}

/// Opens the model in `path`, a directory with these names in it.
pub(super) fn open(
    path: &Path,
    names: &[String],
    options: &Options,
    store: &FileStore,
) -> Result<Source, SourceError> {
    let (config_file, config) = config::find(path, names, options)?;
    // Only asked where the config alone does not say which family it is.
    let tensors = || Ok(shards::read(&shards::files(path, names)?, store)?.into_iter().map(|tensor| tensor.name).collect());
    let family = family_of(&config_file, &config, options, &tensors)?;
    let files = shards::files(path, names)?;
    let tensors = shards::read(&files, store)?;
    let dtype = shards::main_dtype(&tensors);
    let divisible_by = Some(options.divisible_by.unwrap_or(DIVISIBLE_BY));
    let (args, inexpressible) = args_of(&config_file, &family, &config, dtype, divisible_by)?;
    let explain =
        |error| SourceError::Model { file: config_file.clone(), source: words::of_config(error, &family) };
    let model = Arc::new(family.model(&args, 0.0).map_err(explain)?);
    let file = rank_file(path, &tensors, args);
    let sizes = Sizes { tp: 1, pp: 1, ep: 1 };
    let ranks = vec![file];
    let shared_out = experts::shared_out(&model, sizes, &ranks)?;
    let built = contents::catalog(
        &model,
        (sizes, shared_out),
        Iteration::Release,
        ranks,
        &[],
        options.tied_head,
        store,
    );
    let mut catalog = built.map_err(|error| words::of_model(error, path, &config, &model))?;
    check_vocabulary(&config_file, &config, &catalog)?;
    // Everything that is wanted of it is in the catalog now.
    for file in &mut catalog.ranks {
        file.models = Vec::new();
        file.storages = HashMap::new();
    }
    let own: Vec<&str> = files.paths.iter().map(|(name, _)| name.as_str()).chain([INDEX]).collect();
    let aux_files::AuxFiles { files: aux_files, escaping_links, other_weights, directories, unfetched } =
        aux_files::read(path, names, &own, store)?;
    let own_config = names.iter().any(|name| name == CONFIG).then(|| path.join(CONFIG));
    let by_template = own_config.is_none();
    let files = files.paths.iter().map(|(_, path)| path.clone()).chain(own_config).collect();
    Ok(Source {
        catalog: Arc::new(catalog),
        model,
        format: Format::Hf,
        directory: path.to_owned(),
        files,
        missing: Vec::new(),
        config: Some(config),
        by_template,
        inexpressible,
        aux_files,
        escaping_links,
        other_weights,
        directories,
        unfetched,
    })
}

/// What runs of Megatron pad the vocabulary to a multiple of where nobody says otherwise.
pub(super) const DIVISIBLE_BY: u64 = 128;

/// What the config in `file` says, as a run of Megatron would say it. `divisible_by` is what that pads the vocabulary to a multiple of, where
/// it is known.
pub(super) fn args_of(
    file: &str,
    family: &Family,
    config: &Config,
    dtype: Dtype,
    divisible_by: Option<u64>,
) -> Result<(Value, Vec<ConfigError>), SourceError> {
    let explain = |source| SourceError::Config { file: file.to_owned(), source: Box::new(source) };
    let FromConfig { args: mut fields, inexpressible } = family.args_of(config).map_err(explain)?;
    let stated = config.get(VOCAB_SIZE);
    let Some(rows) = stated.and_then(serde_json::Value::as_i64).filter(|rows| *rows > 0) else {
        let what = match stated {
            None => format!("it does not say {VOCAB_SIZE}"),
            Some(other) => format!("its {VOCAB_SIZE} is {other}; expected a whole number above 0"),
        };
        return Err(SourceError::Contents { file: file.to_owned(), what });
    };
    fields.push((VOCAB_SIZE.to_owned(), Value::Int(rows)));
    fields.extend(divisible_by.map(|by| {
        let by = i64::try_from(by).unwrap_or(i64::MAX);
        ("make_vocab_size_divisible_by".to_owned(), Value::Int(by))
    }));
    fields.extend(dtype_args(dtype));
    Ok((Value::namespace(fields), inexpressible))
}

/// The table has the rows that the config in `file` says: loaders fail otherwise.
pub(super) fn check_vocabulary(file: &str, config: &Config, catalog: &Catalog) -> Result<(), SourceError> {
    let stated = config.get(VOCAB_SIZE).and_then(serde_json::Value::as_u64);
    match catalog.param("embedding.weight").map(Param::size) {
        Some(rows) if Some(rows) != stated => Err(SourceError::Contents {
            file: file.to_owned(),
            what: format!("its {VOCAB_SIZE} is {}, but the embedding has {rows} rows", stated.unwrap_or(0)),
        }),
        _ => Ok(()),
    }
}

/// The files as one rank that saved everything.
fn rank_file(path: &Path, tensors: &[shards::Tensor], args: Value) -> RankFile {
    let mut storages = HashMap::new();
    let mut files = HashMap::new();
    let model = tensors.iter().map(|tensor| {
        let extent = tensor.extent;
        storages.insert(tensor.name.clone(), Record { extent, crc: None });
        files.entry(extent.object).or_insert_with(|| tensor.file.to_string());
        let reference = TensorRef::whole(tensor.name.clone(), tensor.dtype, tensor.shape.clone());
        (Value::Str(tensor.name.clone()), Value::Tensor(Arc::new(reference)))
    });
    let model = Value::Dict(model.collect());
    // Of no tensor nothing is read.
    let object = tensors.first().map_or(ObjectId(0), |tensor| tensor.extent.object);
    let empty = RankFile::of_run(object, path.display().to_string(), RunState::of_args(args));
    RankFile { models: vec![model], storages, files, ..empty }
}
