//! Opens a distributed checkpoint of Megatron-core (`torch_dist`): one rank that saved everything, with the names of rank files.
//!
//! A tensor of such a checkpoint is what a rank file of one tensor-parallel rank would hold, with layers and experts stacked. It is taken
//! apart into those tensors, each in the pieces that ranks saved. Not here: the directory and its pieces (`dcp`), keys (`format`).

mod args;
mod buffers;
mod common;
mod flattened;
mod names;
mod objects;
mod optimizer;
mod rng;
mod run_ranks;
mod storages;
mod tensors;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::contents;
use super::locate::Sizes;
use super::{Options, Source, SourceError, dcp, experts};
use crate::catalog::Iteration;
use crate::family::{ArgRole, Families, Family, Model};
use crate::format::dcp::names::{METADATA, METADATA_JSON};
use crate::format::megatron::dist_keys::{COMMON_FILE, Spec};
use crate::format::megatron::run_config::RUN_CONFIG;
use crate::layout::Format;
use crate::store::FileStore;
use common::Common;
use names::Named;
use objects::Objects;

/// Directories of a NeMo 2 checkpoint: how objects of the run were called, and its weights.
const NEMO_CONTEXT: &str = "context";
const NEMO_WEIGHTS: &str = "weights";

/// Whether a directory with these names in it is such a checkpoint.
pub(super) fn is_checkpoint(names: &[String]) -> bool {
    dcp::is_checkpoint(names) && names.iter().any(|name| name == METADATA_JSON)
}

/// Opens the checkpoint in `path`, a directory with these names in it, which is of this iteration.
pub(super) fn open(
    path: &Path,
    names: &[String],
    iteration: Iteration,
    options: &Options,
    store: &FileStore,
) -> Result<Source, SourceError> {
    let opened = dcp::open(path, names, store)?;
    let common = Common::read(path, names, &opened, options, store)?;
    let spec = args::spec(&common.args, options.megatron_spec.as_deref());
    let named = Named::of(opened.metadata(), spec);
    let family = family(&options.families, &common, &named, spec)?;
    let model = model(&family, &common, &named, spec)?;
    let rng = rng::read(&opened, &named, store)?;
    let objects = Objects::read(&opened, &named, &model, spec, rng.is_some(), store)?;
    let weights = tensors::read(&opened, &named.weights, &model, spec, store)?;
    let mut file = common.rank_file(args::undivided(&common.args, &model), rng.as_ref(), opened.names());
    tensors::put(&mut file, &model, weights, objects.states);
    file.left_out.extend(objects.left_out);
    file.left_out.extend(beside(names, &opened));
    let files = vec![file];
    let sizes = Sizes { tp: 1, pp: 1, ep: 1 };
    let shared_out = experts::shared_out(&model, sizes, &files)?;
    let state = optimizer::State { opened: &opened, named: &named, common: &common, spec };
    let with_optimizer = !options.without_optimizer;
    let mut catalog = contents::catalog_with(
        &model,
        (sizes, shared_out),
        iteration,
        files,
        (&[], options.tied_head),
        store,
        |builder, known| if with_optimizer { state.read(builder, known, store) } else { state.leave_out(builder) },
    )?;
    catalog.rng_states = rng.map(|rng| rng.states);
    catalog.vocabulary_tp = args::size(&common.args, &model, ArgRole::Tp);
    let files: Vec<PathBuf> = opened.paths().chain(common.file.iter().cloned()).collect();
    Ok(Source {
        catalog: Arc::new(catalog),
        model: Arc::new(model),
        format: Format::TorchDist,
        config: None,
        by_template: common.described_by.is_some(),
        inexpressible: Vec::new(),
        aux_files: Vec::new(),
        escaping_links: Vec::new(),
        unfetched: Vec::new(),
        other_weights: Vec::new(),
        directories: Vec::new(),
        directory: path.to_owned(),
        files,
        missing: Vec::new(),
    })
}

/// The directory of the weights in one that NeMo 2 saved, which has these names in it.
pub(super) fn of_nemo(path: &Path, names: &[String]) -> Option<PathBuf> {
    let has = |name: &str| names.iter().any(|n| n == name);
    (has(NEMO_CONTEXT) && has(NEMO_WEIGHTS)).then(|| path.join(NEMO_WEIGHTS))
}

/// What else is in the directory: the state of a data loader, a tokenizer, weights in another format.
fn beside(names: &[String], opened: &dcp::Opened) -> Vec<String> {
    let known = [METADATA, METADATA_JSON, RUN_CONFIG, COMMON_FILE];
    let files = &opened.metadata().files;
    let is_known = |name: &&String| {
        known.contains(&name.as_str()) || files.iter().any(|file| file.split('/').next() == Some(name.as_str()))
    };
    names.iter().filter(|name| !is_known(name)).cloned().collect()
}

/// The first family that describes a run with these args and names.
fn family(
    families: &Families,
    common: &Common,
    named: &Named<'_>,
    spec: Spec,
) -> Result<Arc<Family>, SourceError> {
    let templates: HashSet<String> =
        named.weights.iter().flat_map(|weight| weight.templates(spec)).collect();
    let has = |name: &str| templates.contains(name);
    let found = families.of(Format::Megatron).find(|family| family.matches(&common.args, &has));
    found.cloned().ok_or_else(|| {
        let known: Vec<&str> = families.of(Format::Megatron).map(|family| family.name.as_str()).collect();
        let example = named.weights.first().map_or_else(String::new, |weight| weight.tensor.key.to_string());
        SourceError::UnknownFamily { file: common.args_name.clone(), example, known: known.join(", ") }
    })
}

/// The family applied to the args. Whether ranks hold parts of a tensor or copies is seen by its pieces where args leave it open.
fn model(
    family: &Arc<Family>,
    common: &Common,
    named: &Named<'_>,
    spec: Spec,
) -> Result<Model, SourceError> {
    let explain = |source| SourceError::Model { file: common.args_name.clone(), source };
    let mut model = family.model(&common.args, common.version).map_err(explain)?;
    if let Some(published) = &common.described_by {
        model.is_described_by(&published.model(&common.args, 0.0).map_err(explain)?);
    }
    let tp = args::size(&common.args, &model, ArgRole::Tp);
    let rows: HashMap<String, u64> = named.weights.iter().flat_map(|weight| weight.rows_on_ranks(spec)).collect();
    model.settle(tp, &common.args, &rows);
    Ok(model)
}
