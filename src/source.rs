//! Opens a checkpoint: finds its files, reads their metadata, and builds the catalog.
//!
//! Reads names, headers and pickles only. A tensor's bytes are touched in one case: a tied head that stands beside the embedding is compared
//! with it (`build/copies`). Not here: what is made of a source (`view`).

mod buffered;
mod below;
mod aux_files;
mod build;
mod coverage;
mod contents;
mod dcp;
mod dcp_model;
mod detect;
mod entries;
mod error;
mod experts;
mod hf;
mod known;
mod kinds;
mod state_dict;
mod locate;
mod nowhere;
mod optimizer;
mod pickles;
mod amplification;
mod rank_file;
mod rank_tensor;
mod ranks;
mod run;
mod stages;
mod torch_dist;
#[cfg(test)]
mod tests;
mod torch_file;
mod undescribed;
mod workers;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::SourceError;
pub(crate) use error::some_of;
pub use locate::IterationChoice;
pub use pickles::{PickleFile, pickles};
pub use run::{Iteration, Run, Saved};

use workers::in_parallel;

use crate::catalog::{AuxFile, AuxKind, Catalog};
use crate::family::config::{Config, ConfigError};
use crate::family::{Families, Model};
use crate::format::hf::CONFIG;
use crate::layout::Format;
use crate::store::FileStore;

/// How to open a source.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which iteration, where the user says it.
    pub iteration: Option<IterationChoice>,
    /// Families to try, in this order.
    pub families: Families,
    /// Leave out the optimizer's state, whatever it is.
    pub without_optimizer: bool,
    /// The architecture of a Hugging Face model, where its config is not to be believed.
    pub model_type: Option<String>,
    /// What rows of the vocabulary are to be a multiple of where ranks share out those of a Hugging Face model.
    pub divisible_by: Option<u64>,
    /// What becomes of a head that stands beside the embedding it should be a copy of.
    pub tied_head: TiedHead,
    /// The layers that a model of Megatron is built of, where its args do not say it: `te` or `local`.
    pub megatron_spec: Option<String>,
    /// The config of a model directory, for a source that has none of its own.
    pub template: Option<TemplateConfig>,
    /// Under which key of a distributed checkpoint the model is, where there are several.
    pub root: Option<String>,
}

/// The config of a template.
#[derive(Debug, Clone)]
pub struct TemplateConfig {
    /// The directory that it is in.
    pub directory: PathBuf,
    /// What it says.
    pub config: Config,
}

/// What becomes of a tensor that stands beside the one it should be a copy of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TiedHead {
    /// The two are read and compared; a copy that differs is refused.
    #[default]
    Compare,
    /// It is not looked at.
    Ignore,
}

/// An opened source.
#[derive(Debug, Clone)]
pub struct Source {
    /// What it holds.
    pub catalog: Arc<Catalog>,
    /// What its tensors are.
    pub model: Arc<Model>,
    /// What it was found to be.
    pub format: Format,
    /// Its `config.json`, where it has one.
    pub config: Option<Config>,
    /// Whether the config of a template says what it is, for it has none of its own, or is not to be believed.
    pub by_template: bool,
    /// What its config says and args cannot.
    pub inexpressible: Vec<ConfigError>,
    /// What lies beside its weights.
    pub aux_files: Vec<AuxFile>,
    /// Names of files beside its weights that are links out of its directory: views do not show them.
    pub escaping_links: Vec<String>,
    /// Names of files beside its weights in whose place a git-lfs pointer or a web page stands: views do not show them.
    pub unfetched: Vec<String>,
    /// Names of files beside its weights that hold weights of the model once more: views do not show them.
    pub other_weights: Vec<String>,
    /// Names of directories beside its weights, which views do not show.
    pub directories: Vec<String>,
    /// The directory that holds the rank directories.
    pub directory: PathBuf,
    /// The rank files that are there.
    pub files: Vec<PathBuf>,
    /// Rank files that are missing, without which every parameter is still covered.
    pub missing: Vec<String>,
}

impl Source {
    /// Its files that lie beside the weights and are of this kind.
    #[must_use]
    pub fn aux_files_of(&self, kind: AuxKind) -> Vec<String> {
        self.aux_files.iter().filter(|file| file.kind == kind).map(|file| file.name.clone()).collect()
    }

    /// Names of what belongs to the weights and no view shows: of a link out of the directory, or never fetched.
    #[must_use]
    pub fn lost_with_weights(&self) -> Vec<String> {
        let lost = self.escaping_links.iter().chain(&self.unfetched);
        lost.filter(|name| aux_files::kind_of(name) != AuxKind::Description).cloned().collect()
    }

    /// Files of a template are shown in the place of those that say how its model is used: what becomes of its own matters no more.
    pub fn give_way_to_template(&mut self) {
        for names in [&mut self.escaping_links, &mut self.unfetched] {
            names.retain(|name| aux_files::kind_of(name) != AuxKind::Description);
        }
        self.directories.clear();
    }

    /// Every directory and file that holds something of it, where links lead: a rank directory or file may be a link to anywhere.
    #[must_use]
    pub fn places(&self) -> Vec<PathBuf> {
        let ranks = self.files.iter().filter_map(|file| file.parent().map(Path::to_owned));
        let named = std::iter::once(self.directory.clone()).chain(ranks).chain(self.files.iter().cloned());
        let named: Vec<PathBuf> = named.collect::<BTreeSet<_>>().into_iter().collect();
        // They were all opened a moment ago.
        let resolved =
            in_parallel(&named, |place| Ok(place.canonicalize().unwrap_or_else(|_| place.clone())));
        resolved.unwrap_or(named)
    }
}

/// The config and the other files of a model directory whose weights do not matter; both are added to `store`.
#[derive(Debug)]
pub struct Template {
    /// Its `config.json`, where it has one.
    pub config: Option<Config>,
    /// Its other files.
    pub aux_files: Vec<AuxFile>,
    /// Names of those that are links out of its directory, which are left out.
    pub escaping_links: Vec<String>,
    /// Names of those that were never fetched, which are left out too.
    pub unfetched: Vec<String>,
    /// Names of files of an adapter, and of directories, which are left out too.
    pub left_out: Vec<String>,
}

/// Reads a [`Template`].
///
/// # Errors
/// [`SourceError`] where the directory or a file cannot be read.
pub fn template(path: &Path, store: &FileStore) -> Result<Template, SourceError> {
    let names = nowhere::names(path)?;
    let has_config = names.iter().any(|name| name == CONFIG);
    if let Some(what) = below::in_cache(path, &names).filter(|_| !has_config) {
        return Err(SourceError::NotACheckpoint { path: path.into(), what });
    }
    let config = has_config.then(|| {
        let Some(file) = aux_files::open_inside(path, CONFIG)? else {
            // Much of it would be shown as it is, whatever it is of.
            let file = path.join(CONFIG).display().to_string();
            let what =
                "it is a link out of the directory of the template; name the directory that it leads to";
            return Err(SourceError::Contents { file, what: what.into() });
        };
        hf::read_config_file(file, path)
    });
    let config = config.transpose()?;
    // Its weights do not matter, and neither does what is added to them.
    let is_description = |name: &String| aux_files::kind_of(name) == AuxKind::Description;
    let adapter = |name: &&String| aux_files::kind_of(name) == AuxKind::Adapter;
    let mut left_out: Vec<String> = names.iter().filter(adapter).cloned().collect();
    let names: Vec<String> = names.into_iter().filter(is_description).collect();
    let aux_files::AuxFiles { files, escaping_links, directories, unfetched, .. } =
        aux_files::read(path, &names, &[], store)?;
    left_out.extend(directories);
    Ok(Template { config, aux_files: files, escaping_links, unfetched, left_out })
}

/// Opens the checkpoint at `path`; its files are added to `store`.
///
/// # Errors
/// [`SourceError`] naming the file, and the tensor where there is one.
pub fn open(path: &Path, options: &Options, store: &FileStore) -> Result<Source, SourceError> {
    let source = open_any(path, options, store)?;
    amplification::check(&source.catalog, store)?;
    Ok(source)
}

fn open_any(path: &Path, options: &Options, store: &FileStore) -> Result<Source, SourceError> {
    let names = nowhere::names(path)?;
    if torch_dist::is_checkpoint(&names) {
        let iteration = locate::iteration_of(path, options.iteration)?;
        return torch_dist::open(path, &names, iteration, options, store);
    }
    if let Some(weights) = torch_dist::of_nemo(path, &names) {
        let inner = locate::list(&weights)?;
        if torch_dist::is_checkpoint(&inner) {
            let iteration = locate::iteration_of(path, options.iteration)?;
            return torch_dist::open(&weights, &inner, iteration, options, store);
        }
    }
    if !locate::is_run(&names) {
        if ranks::is_checkpoint(&names) {
            return ranks::open(path, &names, options, store);
        }
        if hf::has_weights(&names) && dcp::is_checkpoint(&names) {
            let what = "it has a model's weights (safetensors) and a distributed checkpoint (.metadata, *.distcp), which need not be the same model: \
                        move one of them to a directory of its own";
            return Err(SourceError::NotACheckpoint { path: path.to_owned(), what: what.into() });
        }
        if hf::has_weights(&names) {
            return hf::open(path, &names, options, store);
        }
        if dcp_model::is_checkpoint(&names) && !dcp::is_megatrons(&names) {
            return dcp_model::open(path, &names, options, store);
        }
        if let Some(step) = dcp_model::newest(path, &names, options.iteration)? {
            return open_any(&step, options, store);
        }
        return Err(below::explain(path, &names));
    }
    if let Some((directory, iteration)) = locate::iteration_below(path, &names, options.iteration)? {
        let inner = locate::list(&directory)?;
        if torch_dist::is_checkpoint(&inner) {
            return torch_dist::open(&directory, &inner, iteration, options, store);
        }
    }
    let located = locate::locate(path, &names, options.iteration)?;
    let ranks = rank_file::read_all(&located, store, !options.without_optimizer)?;
    let (layout_sizes, ranks) = detect::sizes(&located, ranks)?;
    let model = Arc::new(detect::model(&options.families, layout_sizes.tp, &ranks)?);
    let experts = experts::shared_out(&model, layout_sizes, &ranks)?;
    let missing = located.missing(layout_sizes);
    let missing = experts::really_missing(missing, &model, layout_sizes, experts, &ranks, &located.ending);
    let sizes = (layout_sizes, experts);
    let catalog =
        contents::catalog(&model, sizes, located.iteration, ranks, &missing, options.tied_head, store)?;
    let files =
        located.files.into_iter().flat_map(|file| [Some(file.path), file.buffers]).flatten().collect();
    Ok(Source {
        catalog: Arc::new(catalog),
        model,
        format: Format::Megatron,
        config: None,
        by_template: false,
        inexpressible: Vec::new(),
        aux_files: Vec::new(),
        escaping_links: Vec::new(),
        unfetched: Vec::new(),
        other_weights: Vec::new(),
        directories: Vec::new(),
        directory: located.directory,
        files,
        missing,
    })
}
