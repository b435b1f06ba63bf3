//! Opens a checkpoint: finds its files, reads their metadata, and builds the catalog.
//!
//! Reads names, headers and pickles only; a tensor's bytes are never touched here. Not here: what is made of a source (`view`).

mod at_hand;
mod below;
mod beside;
mod build;
mod complete;
mod detect;
mod error;
mod experts;
mod hf;
mod kinds;
mod leaves;
mod locate;
mod nowhere;
mod optimizer;
mod pickles;
mod proportion;
mod rank_file;
mod ranks;
mod stages;
#[cfg(test)]
mod tests;
mod torch_file;
mod workers;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::SourceError;
pub(crate) use error::some_of;
pub use locate::IterationChoice;
pub use pickles::{PickleFile, pickles};

use workers::in_parallel;

use crate::catalog::{Beside, Catalog};
use crate::family::config::{Config, ConfigError};
use crate::family::{Family, Model};
use crate::format::hf::CONFIG;
use crate::store::FileStore;

/// How to open a source.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which iteration, where the user says it.
    pub iteration: Option<IterationChoice>,
    /// Families to try, in this order.
    pub families: Vec<Arc<Family>>,
    /// Leave out the optimizer's state, whatever it is.
    pub without_optimizer: bool,
    /// The architecture of a Hugging Face model, where its config is not to be believed.
    pub model_type: Option<String>,
    /// What rows of the vocabulary are to be a multiple of where ranks share out those of a Hugging Face model.
    pub divisible_by: Option<u64>,
}

/// What a source was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A legacy Megatron directory.
    Megatron,
    /// A Hugging Face model directory.
    HuggingFace,
    /// Safetensors files of this tool, one for each rank.
    Ranks,
}

/// An opened source.
#[derive(Debug, Clone)]
pub struct Source {
    /// What it holds.
    pub catalog: Arc<Catalog>,
    /// What its tensors are.
    pub model: Arc<Model>,
    /// What it was found to be.
    pub format: Found,
    /// Its `config.json`, where it has one.
    pub config: Option<Config>,
    /// What its config says and args cannot.
    pub inexpressible: Vec<ConfigError>,
    /// What lies beside its weights.
    pub beside: Vec<Beside>,
    /// Names of files beside its weights that are links out of its directory: views do not show them.
    pub led_out: Vec<String>,
    /// The directory that holds the rank directories.
    pub directory: PathBuf,
    /// The rank files that are there.
    pub files: Vec<PathBuf>,
    /// Rank files that are missing, without which every parameter is still covered.
    pub missing: Vec<String>,
}

impl Source {
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
    pub beside: Vec<Beside>,
    /// Names of those that are links out of its directory, which are left out.
    pub led_out: Vec<String>,
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
        let Some(file) = beside::open_inside(path, CONFIG)? else {
            // Much of it would be shown as it is, whatever it is of.
            let file = path.join(CONFIG).display().to_string();
            let what =
                "it is a link out of the directory of the template; name the directory that it leads to";
            return Err(SourceError::Contents { file, what: what.into() });
        };
        hf::read_config_file(file, path)
    });
    let config = config.transpose()?;
    let beside::Found { files, led_out } = beside::read(path, &names, store)?;
    Ok(Template { config, beside: files, led_out })
}

/// Opens the checkpoint at `path`; its files are added to `store`.
///
/// # Errors
/// [`SourceError`] naming the file, and the tensor where there is one.
pub fn open(path: &Path, options: &Options, store: &FileStore) -> Result<Source, SourceError> {
    let source = open_any(path, options, store)?;
    proportion::check(&source.catalog, store)?;
    Ok(source)
}

fn open_any(path: &Path, options: &Options, store: &FileStore) -> Result<Source, SourceError> {
    let names = nowhere::names(path)?;
    if !locate::is_run(&names) {
        if ranks::is_checkpoint(&names) {
            return ranks::open(path, &names, options, store);
        }
        if hf::has_weights(&names) {
            return hf::open(path, &names, options, store);
        }
        return Err(below::explain(path, &names));
    }
    let located = locate::locate(path, &names, options.iteration)?;
    let ranks = rank_file::read_all(&located, store, !options.without_optimizer)?;
    let (layout_sizes, ranks) = detect::sizes(&located, ranks)?;
    let model = Arc::new(detect::model(&options.families, layout_sizes.tp, &ranks)?);
    let experts = experts::shared_out(&model, layout_sizes, &ranks)?;
    let missing = located.missing(layout_sizes);
    let missing = experts::really_missing(missing, &model, layout_sizes, experts, &ranks, &located.ending);
    let sizes = (layout_sizes, experts);
    let catalog = build::catalog(&model, sizes, located.iteration, ranks, &missing, store)?;
    let files =
        located.files.into_iter().flat_map(|file| [Some(file.path), file.buffers]).flatten().collect();
    Ok(Source {
        catalog: Arc::new(catalog),
        model,
        format: Found::Megatron,
        config: None,
        inexpressible: Vec::new(),
        beside: Vec::new(),
        led_out: Vec::new(),
        directory: located.directory,
        files,
        missing,
    })
}
