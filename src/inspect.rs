//! What a source is and what it can become, as data for tables and JSON.
//!
//! Not here: printing (`cli`).

mod globals;
mod known;
mod listing;
mod map;

use std::collections::BTreeMap;

use serde::Serialize;

pub use globals::{Globals, NamedGlobal, Unread, globals};
pub use listing::{FileListing, Listing, Loop, Piece, TensorListing};
pub use map::{Cell, Map, Portion, Section, Side, Tensor, Unit};

use crate::catalog::{AuxKind, Encoding, EntryKind, Optimizer, SavedEntry};
use crate::layout::{Format, Layout};
use crate::source::{Source, some_of};
use crate::tensor::Region;
use crate::view::megatron::{distributed_run, training_run};
use crate::view::{keeps_parameter_groups, Conversions, Basis, ViewError};

/// What a source is.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The directory that holds the rank directories.
    pub directory: String,
    /// Its format.
    pub format: &'static str,
    /// Its format for people.
    pub format_title: &'static str,
    /// Formats of views.
    pub formats: Vec<FormatSummary>,
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
    /// Virtual stages on each pipeline rank.
    pub vpp: u32,
    /// Expert-parallel size; `None` for a model without experts.
    pub ep: Option<u32>,
    /// Expert-tensor-parallel size; `None` for a model without experts.
    pub etp: Option<u32>,
    /// Layers of each stage.
    pub layers_per_stage: Vec<u32>,
    /// Layers of the model.
    pub layers: u64,
    /// Attention heads, where args say.
    pub heads: Option<u64>,
    /// Query groups, where args say.
    pub query_groups: Option<u64>,
    /// Experts of each layer that has any; `None` for a model without experts.
    pub experts: Option<u64>,
    /// Rows of the embedding and how many of them are real.
    pub vocabulary: Option<VocabularySummary>,
    /// Parameters (elements) of the model, tied copies counted once.
    pub elements: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes by element type.
    pub dtypes: BTreeMap<String, u64>,
    /// Rank files found, or files with weights of a model directory.
    pub rank_files: usize,
    /// Rank files that are missing (every parameter is covered without them).
    pub missing: Vec<String>,
    /// What the source saved and views leave out.
    pub left_out: Vec<String>,
    /// The optimizer's state, where the source has some that is not left out.
    pub optimizer: Option<OptimizerSummary>,
    /// Whether the source has random-number state, and views take it over.
    pub has_rng_state: bool,
    /// Tensor-parallel sizes that the model allows.
    pub possible_tp: Vec<u64>,
    /// Expert-parallel sizes that the model allows.
    pub possible_ep: Vec<u64>,
    /// Pipeline sizes with even stages; uneven ones are possible up to the number of layers.
    pub even_pp: Vec<u64>,
    /// The format that was asked for.
    pub view_format: &'static str,
    /// Name of the layout that was asked for, in that format.
    pub view_layout: String,
    /// The layout that the flags below are for, or the format that runs of any layout load.
    pub training_layout: String,
    /// Flags that a training run needs with a view in that layout.
    pub training_flags: Vec<String>,
    /// What to know of them.
    pub cautions: Vec<String>,
}

/// A format that a source can be shown in, or not.
#[derive(Debug, Clone, Serialize)]
pub struct FormatSummary {
    /// Its name.
    pub format: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// Why the source cannot be shown so; `None` where it can.
    pub refused: Option<String>,
    /// Tensor-parallel sizes that the model allows.
    pub possible_tp: Vec<u64>,
}

/// The vocabulary of a source.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct VocabularySummary {
    /// Rows stored.
    pub padded: u64,
    /// Rows that are real, where known.
    pub true_size: Option<u64>,
}

/// The optimizer's state of a source.
#[derive(Debug, Clone, Serialize)]
pub struct OptimizerSummary {
    /// `mixed`, `single` (32-bit weights without masters), `distributed` or `named` (tensors by name, of a distributed checkpoint).
    pub encoding: &'static str,
    /// What it keeps for each element of a parameter.
    pub states: Vec<String>,
    /// Bytes of that, tied copies and replicas counted once.
    pub bytes: u64,
    /// Steps taken, where the source says so.
    pub step: Option<f64>,
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

/// What `source` is and can become; `format` and `target` are those that training flags are wanted for.
///
/// # Errors
/// [`ViewError`] where the source cannot be shown in that format.
pub fn summary(
    source: &Source,
    conversions: &Conversions,
    format: Format,
    target: &Layout,
) -> Result<Summary, ViewError> {
    let basis = conversions.basis(format)?;
    let run = match format {
        Format::Megatron => training_run(&basis, target),
        Format::TorchDist => distributed_run(&basis),
        _ => Default::default(),
    };
    let catalog = &source.catalog;
    let layout = &catalog.layout;
    let layers = layout.stages.total();
    let mut dtypes: BTreeMap<String, u64> = BTreeMap::new();
    let (mut elements, mut bytes) = (0, 0);
    for param in catalog.params().iter().filter(|param| !catalog.unused.contains(&param.name)) {
        // Every parameter lies in files, so its size fits.
        let size = param.shape.bytes(param.dtype).unwrap_or(0);
        *dtypes.entry(param.dtype.to_string()).or_default() += size;
        elements += param.shape.elements().unwrap_or(0);
        bytes += size;
    }
    Ok(Summary {
        directory: source.directory.display().to_string(),
        format: conversions.own_format().name(),
        format_title: conversions.own_format().title(),
        formats: formats(conversions),
        family: source.model.family().name.clone(),
        family_title: source.model.family().title.clone(),
        iteration: catalog.iteration.to_string(),
        layout: layout.to_string(),
        tp: layout.tp,
        pp: layout.pp(),
        vpp: layout.vpp,
        ep: layout.experts.map(|experts| experts.ep),
        etp: layout.experts.map(|experts| experts.etp),
        layers_per_stage: layout.stages.layers().to_vec(),
        layers,
        heads: source.model.size("heads"),
        query_groups: source.model.size("groups"),
        experts: source.model.size("experts"),
        vocabulary: basis.vocabulary().map(|vocabulary| VocabularySummary {
            padded: vocabulary.stored,
            true_size: vocabulary.true_size,
        }),
        elements,
        bytes,
        dtypes,
        // A model directory is one rank in several files.
        rank_files: catalog.ranks.iter().map(|file| file.files.len().max(1)).sum(),
        missing: source.missing.clone(),
        left_out: left_out(source, &basis, format, target),
        optimizer: catalog.optimizer.as_ref().map(optimizer),
        has_rng_state: basis.with_rng && has_rng_state(source),
        possible_tp: basis.possible_tp(),
        possible_ep: basis.possible_ep(),
        even_pp: (1..=layers).filter(|pp| layers.is_multiple_of(*pp)).collect(),
        view_format: format.name(),
        view_layout: format.layout_name(target),
        // A distributed checkpoint is for all of them.
        training_layout: if format == Format::TorchDist { format.name().to_owned() } else { target.to_string() },
        training_flags: run.flags,
        cautions: run.cautions,
    })
}

/// What the source can be shown as, and why not as the rest.
fn formats(conversions: &Conversions) -> Vec<FormatSummary> {
    let of = |format: Format| {
        let basis = conversions.basis(format);
        let possible_tp = basis.as_ref().map_or_else(|_| Vec::new(), |basis| basis.possible_tp());
        let possible_tp = if format.is_single() { Vec::new() } else { possible_tp };
        let refused = basis.err().map(|error| error.to_string());
        FormatSummary { format: format.name(), title: format.title(), refused, possible_tp }
    };
    Format::ALL.into_iter().map(of).collect()
}

fn optimizer(optimizer: &Optimizer) -> OptimizerSummary {
    let params = optimizer.elements().flat_map(|(_, params)| params.all());
    let bytes = params.filter_map(|param| param.shape.bytes(param.dtype)).fold(0, u64::saturating_add);
    OptimizerSummary {
        encoding: match optimizer.encoding {
            Encoding::Mixed => "mixed",
            Encoding::Single => "single",
            Encoding::Distributed(_) => "distributed",
            Encoding::Named => "named",
        },
        states: optimizer.elements().map(|(state, _)| state.to_string()).collect(),
        bytes,
        step: optimizer.step,
    }
}

/// Whether the source saved random-number state.
#[must_use]
pub fn has_rng_state(source: &Source) -> bool {
    source.catalog.ranks.iter().any(|file| file.run.rng.is_some())
}

/// Settings of the optimizer that a distributed checkpoint of its state does not have.
fn groups_left_out(source: &Source, basis: &Basis, format: Format) -> Option<String> {
    let is_without = format == Format::Dcp
        && basis.optimizer.is_some()
        && !keeps_parameter_groups(&source.catalog, &source.model, basis);
    let has_some = source.catalog.ranks.iter().any(|file| file.run.optimizer.is_some());
    let what = "settings of the optimizer's parameter groups (the source does not have them by the names of the view)";
    (is_without && has_some).then(|| what.to_owned())
}

/// What the source saved and a view in this format and `layout` leaves out, in words.
#[must_use]
pub fn left_out(source: &Source, basis: &Basis, format: Format, layout: &Layout) -> Vec<String> {
    let known = source.catalog.left_out.iter().cloned();
    let has_own_names = matches!(format, Format::Megatron | Format::Safetensors);
    let unused = source.catalog.unused.iter().filter(|_| layout.pp() == 1 || !has_own_names);
    let unused =
        unused.map(|name| format!("{name} (a head that the last of several stages saves and nobody uses)"));
    // A checkpoint with the names of a published model: its optimizer goes where those names go, and configs have no place for it.
    let of_names = source.model.family().model_type().is_some() || source.model.family().is_undescribed();
    let optimizer = source.catalog.optimizer.as_ref().filter(|_| of_names && format != Format::Dcp);
    let why = match format {
        Format::Megatron | Format::TorchDist => "it does not have the parameter groups that Megatron wants; --as dcp shows it",
        _ => "views of this format have none of it",
    };
    let optimizer = optimizer.map(|_| format!("optimizer state ({why})"));
    let known = known.chain(unused).chain(optimizer).chain(groups_left_out(source, basis, format));
    if format == Format::Megatron {
        let extra = basis.drops_extra_state(layout);
        let extra =
            extra.then(|| "extra state (fp8 scales) of modules that are cut in another way".to_owned());
        return known.chain(extra).chain(beside_left_out(source, format)).collect();
    }
    // All but what says what the weights are, and the weights; a distributed checkpoint has what all ranks have alike.
    let only_there = |entry: &SavedEntry| match entry.kind {
        EntryKind::Args | EntryKind::Model(_) | EntryKind::Progress => None,
        EntryKind::Optimizer | EntryKind::Schedule | EntryKind::Other if format == Format::TorchDist => None,
        EntryKind::Optimizer if format == Format::Dcp && basis.optimizer.is_some() => None,
        kind => Some(format!("{} (only Megatron views have it)", kind.words(entry.key.as_str()?))),
    };
    let extra = (format == Format::TorchDist && basis.drops_extra_state(&layout.undivided()))
        .then(|| "extra state (fp8 scales): torch_dist views have that of sources without tensor parallelism".to_owned());
    let saved = source.catalog.ranks.first().into_iter().flat_map(|file| &file.entries).filter_map(only_there);
    known.chain(extra).chain(saved).chain(beside_left_out(source, format)).collect()
}

/// What is said of files that belong to the weights and are not really there.
const LOST: &str = "what belongs to the weights, and is a link out of the model's directory or was never fetched";

/// What is said of files in whose place something else stands.
pub const UNFETCHED: &str =
    "git-lfs pointers or web pages in the place of files, and what belongs to them: fetch them (git lfs pull)";

/// What lies beside the weights of a Hugging Face model and may be added to them, in words: `verify` and `digest` do not look at it.
#[must_use]
pub fn added_to_weights(source: &Source) -> Vec<String> {
    let said = |kind, what: &str| {
        let names = source.aux_files_of(kind);
        (!names.is_empty()).then(|| format!("{} ({what})", some_of(&names)))
    };
    let adapter = "an adapter, which transformers adds to the weights where peft is installed; without it, something else is computed";
    let more = "none of the model's own weights: config.json and index do not speak of it";
    [said(AuxKind::Adapter, adapter), said(AuxKind::More, more)].into_iter().flatten().collect()
}

/// What lies beside the weights and a view in this format does not show.
fn beside_left_out(source: &Source, format: Format) -> Vec<String> {
    // Formats without a config have nothing of what lies beside the weights; what would be added to them is said all the same.
    let shows_files = matches!(format, Format::Hf | Format::Vllm | Format::Sglang);
    if !shows_files {
        let lost = source.lost_with_weights();
        let lost = (!lost.is_empty()).then(|| format!("{} ({LOST})", some_of(&lost)));
        return added_to_weights(source).into_iter().chain(lost).collect();
    }
    // A model directory is shown with everything that belongs to it.
    let added = if format == Format::Hf { Vec::new() } else { added_to_weights(source) };
    let said =
        |names: &[String], what: &str| (!names.is_empty()).then(|| format!("{} ({what})", some_of(names)));
    let rest = [
        said(&source.other_weights, "weights of the model in other files than those that are read"),
        said(&source.directories, "a directory beside the model"),
        said(
            &source.escaping_links,
            "links out of the model's directory, and what belongs to them: copy the files, or name the directory that has them with --template",
        ),
        said(&source.unfetched, UNFETCHED),
    ];
    added.into_iter().chain(rest.into_iter().flatten()).collect()
}

/// The parameters of `source`.
#[must_use]
pub fn parameters(source: &Source) -> Vec<ParameterSummary> {
    let ranks = source.catalog.layout.ranks().count();
    let params = source.catalog.params().iter().map(|param| {
        let stored = param.stored();
        let whole = stored.iter().all(|chunk| chunk.region == Region::whole(&param.shape));
        ParameterSummary {
            name: param.name.to_string(),
            dtype: param.dtype.name(),
            shape: param.shape.0.clone(),
            cut: (ranks > 1 && !whole).then_some(param.axis),
            bytes: param.shape.bytes(param.dtype).unwrap_or(0),
            pieces: stored.len(),
        }
    });
    params.collect()
}
