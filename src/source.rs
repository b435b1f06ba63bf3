//! Opens a checkpoint: finds its files, reads their metadata, and builds the catalog.
//!
//! Reads names, headers and pickles only; a tensor's bytes are never touched here. Not here: what is made of a source (`view`).

mod build;
mod complete;
mod detect;
mod error;
mod experts;
mod leaves;
mod locate;
mod optimizer;
mod rank_file;
mod stages;
mod torch_file;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::SourceError;
pub(crate) use error::some_of;
pub use locate::IterationChoice;

use crate::catalog::Catalog;
use crate::family::{Family, Model};
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
}

/// An opened source.
#[derive(Debug, Clone)]
pub struct Source {
    /// What it holds.
    pub catalog: Arc<Catalog>,
    /// What its tensors are.
    pub model: Arc<Model>,
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
        // They were all opened a moment ago.
        named.map(|place| place.canonicalize().unwrap_or(place)).collect()
    }
}

/// Opens the checkpoint at `path`; its files are added to `store`.
///
/// # Errors
/// [`SourceError`] naming the file, and the tensor where there is one.
pub fn open(path: &Path, options: &Options, store: &FileStore) -> Result<Source, SourceError> {
    let located = locate::locate(path, options.iteration)?;
    let ranks = rank_file::read_all(&located, store, !options.without_optimizer)?;
    let (layout_sizes, ranks) = detect::sizes(&located, ranks)?;
    let model = Arc::new(detect::model(&options.families, layout_sizes.tp, &ranks)?);
    let experts = experts::shared_out(&model, layout_sizes, &ranks)?;
    let missing = located.missing(layout_sizes);
    let missing = experts::really_missing(missing, &model, layout_sizes, experts, &ranks);
    let sizes = (layout_sizes, experts);
    let catalog = build::catalog(&model, sizes, located.iteration, ranks, &missing, store)?;
    let files =
        located.files.into_iter().flat_map(|file| [Some(file.path), file.buffers]).flatten().collect();
    Ok(Source { catalog: Arc::new(catalog), model, directory: located.directory, files, missing })
}
