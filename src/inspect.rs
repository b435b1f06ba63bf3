//! What a source is and what it can become, as data for tables and JSON.
//!
//! Not here: printing (`cli`).

mod listing;

use std::collections::BTreeMap;

use serde::Serialize;

pub use listing::{FileListing, Listing, Piece, TensorListing};

use crate::layout::Layout;
use crate::source::Source;
use crate::view::Stock;
use crate::view::megatron::training_flags;

/// What a source is.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The directory that holds the rank directories.
    pub directory: String,
    /// Its format.
    pub format: &'static str,
    /// Name of the model family.
    pub family: String,
    /// The family for people.
    pub family_title: String,
    /// Iteration, or `release`.
    pub iteration: String,
    /// Name of its layout.
    pub layout: String,
    /// Tensor-parallel size.
    pub tp: u32,
    /// Pipeline stages.
    pub pp: u32,
    /// Layers of each stage.
    pub layers_per_stage: Vec<u32>,
    /// Layers of the model.
    pub layers: u64,
    /// Attention heads, where args say.
    pub heads: Option<u64>,
    /// Query groups, where args say.
    pub query_groups: Option<u64>,
    /// Rows of the embedding and how many of them are real.
    pub vocabulary: Option<VocabularySummary>,
    /// Parameters (elements) of the model, tied copies counted once.
    pub elements: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes by element type.
    pub dtypes: BTreeMap<String, u64>,
    /// Rank files found.
    pub rank_files: usize,
    /// Rank files that are missing (every parameter is covered without them).
    pub missing: Vec<String>,
    /// What the source saved and views leave out.
    pub left_out: Vec<String>,
    /// Whether the source has random-number state.
    pub has_rng_state: bool,
    /// Tensor-parallel sizes that the model allows.
    pub possible_tp: Vec<u64>,
    /// Pipeline sizes with even stages; uneven ones are possible up to the number of layers.
    pub even_pp: Vec<u64>,
    /// The layout that the flags below are for.
    pub training_layout: String,
    /// Flags that a training run needs with a view in that layout.
    pub training_flags: Vec<String>,
}

/// The vocabulary of a source.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct VocabularySummary {
    /// Rows stored.
    pub padded: u64,
    /// Rows that are real, where known.
    pub true_size: Option<u64>,
}

/// A parameter of the model, for `--tensors`.
#[derive(Debug, Clone, Serialize)]
pub struct ParameterSummary {
    /// Canonical name.
    pub name: String,
    /// Element type.
    pub dtype: &'static str,
    /// Global shape.
    pub shape: Vec<u64>,
    /// Axis along which the source's ranks hold different parts; `None` where each holds all of it.
    pub cut: Option<usize>,
    /// Bytes.
    pub bytes: u64,
    /// Stored pieces, replicas included.
    pub pieces: usize,
}

/// What `source` is and can become; `target` is the layout that training flags are wanted for.
#[must_use]
pub fn summary(source: &Source, stock: &Stock, target: &Layout) -> Summary {
    let catalog = &source.catalog;
    let layout = &catalog.layout;
    let layers = layout.stages.total();
    let mut dtypes: BTreeMap<String, u64> = BTreeMap::new();
    let (mut elements, mut bytes) = (0, 0);
    for param in catalog.params() {
        // Every parameter lies in files, so its size fits.
        let size = param.shape.bytes(param.dtype).unwrap_or(0);
        *dtypes.entry(param.dtype.to_string()).or_default() += size;
        elements += param.shape.elements().unwrap_or(0);
        bytes += size;
    }
    Summary {
        directory: source.directory.display().to_string(),
        format: "legacy Megatron directory (torch .pt)",
        family: source.model.family().name.clone(),
        family_title: source.model.family().title.clone(),
        iteration: catalog.iteration.to_string(),
        layout: layout.to_string(),
        tp: layout.tp,
        pp: layout.pp(),
        layers_per_stage: layout.stages.layers().to_vec(),
        layers,
        heads: source.model.size("heads"),
        query_groups: source.model.size("groups"),
        vocabulary: stock.vocabulary().map(|vocabulary| VocabularySummary {
            padded: vocabulary.stored,
            true_size: vocabulary.true_size,
        }),
        elements,
        bytes,
        dtypes,
        rank_files: catalog.ranks.len(),
        missing: source.missing.clone(),
        left_out: left_out(source),
        has_rng_state: has_rng_state(source),
        possible_tp: stock.possible_tp(),
        even_pp: (1..=layers).filter(|pp| layers.is_multiple_of(*pp)).collect(),
        training_layout: target.to_string(),
        training_flags: training_flags(stock, target),
    }
}

/// Whether the source saved random-number state.
#[must_use]
pub fn has_rng_state(source: &Source) -> bool {
    source.catalog.ranks.iter().any(|file| file.tree.get("rng_state").is_some())
}

/// What the source saved and views leave out, in words.
#[must_use]
pub fn left_out(source: &Source) -> Vec<String> {
    let words = |entry: &String| match entry.as_str() {
        "optimizer" => "optimizer state".to_owned(),
        "opt_param_scheduler" => "learning-rate schedule (opt_param_scheduler)".to_owned(),
        "_extra_state" => "extra state of modules (fp8 scales)".to_owned(),
        other => other.to_owned(),
    };
    source.catalog.left_out.iter().map(words).collect()
}

/// The parameters of `source`.
#[must_use]
pub fn parameters(source: &Source) -> Vec<ParameterSummary> {
    let tp = source.catalog.layout.tp;
    let params = source.catalog.params().iter().map(|param| {
        let whole = param.chunks().iter().all(|chunk| chunk.span == (0..param.size()));
        ParameterSummary {
            name: param.name.to_string(),
            dtype: param.dtype.name(),
            shape: param.shape.0.clone(),
            cut: (tp > 1 && !whole).then_some(param.axis),
            bytes: param.shape.bytes(param.dtype).unwrap_or(0),
            pieces: param.chunks().len(),
        }
    });
    params.collect()
}
