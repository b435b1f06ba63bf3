//! Opens a distributed checkpoint of a model that has a `config.json`: what FSDP, HSDP, accelerate, the Trainer and torchtitan save.
//!
//! The names of its tensors are those of Hugging Face, or those that a family of format `dcp` lists. So it is read as a model directory is:
//! one rank that saved everything, with tensors in pieces. What it is a model of says the config of a template. Without one, or with one of
//! an architecture that no family describes, tensors go by the names that they have (`undescribed`).
//!
//! Not here: the container (`dcp`), Megatron's keys (`torch_dist`).

mod config;
mod described;
mod groups;
mod keys;
mod members;
mod model;
mod optimizer;
mod parts;
mod shards;
mod states;
mod steps;
mod undescribed;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::locate::Sizes;
use super::{Options, Source, SourceError, aux_files, contents, experts, some_of};
use crate::catalog::Catalog;
use crate::family::Model;
use crate::family::config::ConfigError;
use crate::format::hf::CONFIG;
use crate::layout::Format;
use crate::store::FileStore;

use members::Contents;
use parts::Parts;
pub(super) use parts::is_checkpoint;
pub(super) use steps::newest;

/// Opens the checkpoint in `path`, a directory with these names in it.
pub(super) fn open(
    path: &Path,
    names: &[String],
    options: &Options,
    store: &FileStore,
) -> Result<Source, SourceError> {
    let iteration = steps::iteration(path, options.iteration)?;
    let parts = Parts::open(path, names, !options.without_optimizer, store)?;
    let found = config::find(path, names, options)?;
    let contents = Contents::of(path, &parts, options.without_optimizer);
    let describing = found.as_ref().filter(|found| found.is_described(options));
    let (opened, iteration) = (Opening { path, options, store }, iteration);
    let Opened { mut catalog, model, inexpressible } = match describing {
        Some(found) => described::open(&opened, &contents, found, iteration)?,
        None => undescribed::open(&opened, &contents, found.as_ref(), iteration)?,
    };
    // Everything that is wanted of it is in the catalog now.
    for file in &mut catalog.ranks {
        (file.models, file.storages, file.pieces) = (Vec::new(), HashMap::new(), HashMap::new());
        file.named_states = Vec::new();
    }
    let files = parts.paths();
    let aux_files = beside(path, names, &files, store)?;
    let own_config = found.as_ref().filter(|found| found.is_own).map(|_| path.join(CONFIG));
    Ok(Source {
        catalog: Arc::new(catalog),
        model: Arc::new(model),
        format: Format::Dcp,
        by_template: found.as_ref().is_some_and(|found| !found.is_own),
        config: found.map(|found| found.config),
        inexpressible,
        aux_files: aux_files.files,
        escaping_links: aux_files.escaping_links,
        unfetched: aux_files.unfetched,
        other_weights: aux_files.other_weights,
        directories: aux_files.directories,
        directory: path.to_owned(),
        files: files.into_iter().chain(own_config).collect(),
        missing: Vec::new(),
    })
}

/// A checkpoint on its way.
struct Opening<'a> {
    path: &'a Path,
    options: &'a Options,
    store: &'a FileStore,
}

/// What it is.
struct Opened {
    catalog: Catalog,
    model: Model,
    inexpressible: Vec<ConfigError>,
}

/// The sizes of a checkpoint that has no ranks.
const WHOLE: Sizes = Sizes { tp: 1, pp: 1, ep: 1 };

impl Opening<'_> {
    /// The catalog of this model, whose tensors are those of `file`.
    fn catalog(
        &self,
        model: &Model,
        file: crate::catalog::RankFile,
        iteration: crate::catalog::Iteration,
    ) -> Result<Catalog, SourceError> {
        let ranks = vec![file];
        let shared_out = experts::shared_out(model, WHOLE, &ranks)?;
        let (sizes, tied_head) = ((WHOLE, shared_out), self.options.tied_head);
        contents::catalog(model, sizes, iteration, ranks, &[], tied_head, self.store)
    }

    /// What to say of a checkpoint whose model may be under any of these prefixes.
    fn several(&self, prefixes: &[&str]) -> SourceError {
        let roots: Vec<String> = prefixes.iter().map(|prefix| shown(prefix)).collect();
        let what = format!(
            "its keys have a model under each of {}; choose one with --root KEY",
            some_of(&roots)
        );
        SourceError::NotACheckpoint { path: self.path.to_owned(), what }
    }
}

/// A prefix as `--root` takes it.
fn shown(prefix: &str) -> String {
    let root: String = prefix.trim_end_matches('.').chars().take(80).collect();
    if root.is_empty() { "'' (no prefix)".to_owned() } else { root }
}

/// What lies beside the data in `path`, a directory with these names in it.
fn beside(
    path: &Path,
    names: &[String],
    files: &[PathBuf],
    store: &FileStore,
) -> Result<aux_files::AuxFiles, SourceError> {
    let of_parts = parts::own(names);
    let names: Vec<String> = names.iter().filter(|name| !of_parts.contains(&name.as_str())).cloned().collect();
    let data = files.iter().filter_map(|file| file.strip_prefix(path).ok()?.iter().next()?.to_str());
    let own: Vec<&str> = data.collect();
    aux_files::read(path, &names, &own, store)
}
