//! Why a source cannot be opened.

use std::io;
use std::path::PathBuf;

use crate::catalog::ChunkError;
use crate::family::config::ConfigError;
use crate::family::{ArrangeError, ModelError};
use crate::format::dcp::error::DcpError;
use crate::format::safetensors::SafetensorsError;
use crate::format::torch::TorchError;
use crate::layout::Stages;
use crate::store::StoreError;

/// Why a source cannot be opened. Every variant names the file or directory, and the tensor where there is one.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A directory cannot be listed, or the tracker cannot be read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Bytes of a source file cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory is not a checkpoint this version reads.
    #[error("{}: {what}", .path.display())]
    NotACheckpoint {
        /// The directory.
        path: PathBuf,
        /// What was found and what to do.
        what: String,
    },
    /// A checkpoint of a kind that this version does not reshard.
    #[error("{path}: {what}")]
    Unsupported {
        /// The directory or file.
        path: String,
        /// What kind, and the way on.
        what: String,
    },
    /// A rank file that is not what torch writes, or is damaged.
    #[error("{file}: {source}")]
    File {
        /// The rank file.
        file: String,
        /// What is wrong.
        source: TorchError,
    },
    /// A safetensors file that is damaged, or none.
    #[error("{file}: {source}")]
    Safetensors {
        /// The file.
        file: String,
        /// What is wrong.
        source: SafetensorsError,
    },
    /// The metadata of a distributed checkpoint that is damaged, or none.
    #[error("{file}: {source}")]
    Dcp {
        /// The file.
        file: String,
        /// What is wrong.
        source: DcpError,
    },
    /// A `config.json` that cannot be said in `args`.
    #[error("{file}: {source}")]
    Config {
        /// The file.
        file: String,
        /// What is wrong.
        source: Box<ConfigError>,
    },
    /// A `config.json` of an architecture that no family describes.
    #[error("{file}: its model_type is {found:?}; known: {known}. {advice}")]
    ModelType {
        /// The file.
        file: String,
        /// What it says.
        found: String,
        /// Those that there are.
        known: String,
        /// The way out.
        advice: String,
    },
    /// A `config.json` of one architecture that is to be read as another, and says what that one does not have.
    #[error(
        "{file}: {}, so it is not read as {wanted}: {why}. Describe it in a family file and pass --family FILE",
        said(.found)
    )]
    Override {
        /// The file.
        file: String,
        /// The `model_type` that it says.
        found: Option<String>,
        /// The one that was asked for.
        wanted: String,
        /// What contradicts it.
        why: String,
    },
    /// A rank file whose contents are not a Megatron checkpoint's.
    #[error("{file}: {what}")]
    Contents {
        /// The rank file.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// Its args cannot be resharded.
    #[error("{file}: cannot reshard this checkpoint: {source}")]
    Model {
        /// The rank file.
        file: String,
        /// Why not.
        source: ModelError,
    },
    /// No family describes the model.
    #[error(
        "{file}: no known model family has its tensors (it saves '{example}'); known: {known}. Describe it in a family file and pass --family FILE"
    )]
    UnknownFamily {
        /// The rank file.
        file: String,
        /// One of its tensors.
        example: String,
        /// Families that were tried.
        known: String,
    },
    /// A tensor that the family does not have.
    #[error(
        "{file}: tensor {tensor} is unknown to the family {family}; describe it in a family file and pass --family FILE"
    )]
    UnknownTensor {
        /// The rank file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Name of the family.
        family: String,
    },
    /// A tensor of a kind that is known and that no family describes.
    #[error("{file}: tensor {tensor} is {what}")]
    Undescribed {
        /// The rank file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What it is, and that it is not resharded.
        what: String,
    },
    /// A tensor whose rows do not share out.
    #[error("{file}: tensor {tensor}: {source}")]
    Arrange {
        /// The rank file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What does not divide.
        source: ArrangeError,
    },
    /// Optimizer state that cannot be read for what it is.
    #[error("{file}: optimizer: {what}; --optimizer none leaves the optimizer's state out")]
    Optimizer {
        /// The file.
        file: String,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// A file or tensor that holds optimizer state and nothing else cannot be read.
    #[error("{0}; --optimizer none leaves the optimizer's state out")]
    State(Box<SourceError>),
    /// A tensor that contradicts another.
    #[error("{file}: tensor {tensor}: {what}")]
    Tensor {
        /// The rank file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        what: String,
    },
    /// A parameter that no file covers.
    #[error("parameter {param}: {source}{}{}", not_in(.lacking), missing_files(.missing))]
    Uncovered {
        /// Its canonical name.
        param: String,
        /// Which part is missing.
        source: Box<ChunkError>,
        /// Rank files that hold none of it, where others of their stage do.
        lacking: Vec<String>,
        /// Rank files that are missing.
        missing: Vec<String>,
    },
    /// A tensor that no file has and no model is without.
    #[error("no rank file has {}{}", .tensors.join(" or "), missing_files(.missing))]
    MissingTensor {
        /// Names that it could have.
        tensors: Vec<String>,
        /// Rank files that are missing.
        missing: Vec<String>,
    },
    /// A parameter that other layers have.
    #[error("layer {layer} has no {param}, which layer {other} has{}{}", not_in(.lacking), missing_files(.missing))]
    MissingParameter {
        /// Number of the layer in the model.
        layer: u32,
        /// Canonical name without the layer.
        param: String,
        /// Names of the tensors that would hold it, in numbers of the model.
        tensors: Vec<String>,
        /// A layer that has it.
        other: u32,
        /// Rank files of the layer.
        lacking: Vec<String>,
        /// Rank files that are missing.
        missing: Vec<String>,
    },
    /// A stage without one of its layers.
    #[error("{file}: stage {stage} has a layer {last} but no layer {gap}")]
    LayerGap {
        /// A file of the stage.
        file: String,
        /// Its number.
        stage: u32,
        /// The last layer that it has.
        last: u32,
        /// The one that it lacks.
        gap: u32,
    },
    /// Stages that are not the model's layers.
    #[error("{}: its stages hold {stages} layers, {sum} in all, but args.num_layers is {layers}{}", .path.display(), missing_files(.missing))]
    Layers {
        /// Directory of the rank files.
        path: PathBuf,
        /// Layers per stage.
        stages: Stages,
        /// Their sum.
        sum: u64,
        /// What args say.
        layers: u64,
        /// Rank files that are missing.
        missing: Vec<String>,
    },
}

fn said(model_type: &Option<String>) -> String {
    model_type.as_ref().map_or_else(
        || "it does not say model_type".to_owned(),
        |model_type| format!("its model_type is {model_type:?}"),
    )
}

fn missing_files(missing: &[String]) -> String {
    if missing.is_empty() { String::new() } else { format!(" (missing: {})", some_of(missing)) }
}

fn not_in(lacking: &[String]) -> String {
    if lacking.is_empty() { String::new() } else { format!("; it is not in {}", some_of(lacking)) }
}

/// Names of files as a message can hold them: damaged args may call for a million.
pub(crate) fn some_of(names: &[String]) -> String {
    const MOST: usize = 8;
    let shown = names.get(..MOST).unwrap_or(names).join(", ");
    if names.len() > MOST { format!("{shown} and {} more", names.len() - MOST) } else { shown }
}
