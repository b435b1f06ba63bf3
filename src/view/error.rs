//! Why a view cannot be made.

use crate::family::config::ConfigError;
use crate::family::{ArrangeError, LimitError, ModelError, VocabularyError};
use crate::format::dcp::write::WriteError;
use crate::format::safetensors::SafetensorsError;
use crate::format::{torch::TorchError, zip::ZipError};
use crate::layout::Format;
use crate::layout::{Layout, LayoutError, Stages};
use crate::plan::GatherError;
use crate::tensor::{Dtype, Shape};

/// Why a view cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The stages do not fit the model.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Virtual stages that the family's training code has no word for.
    #[error(
        "{vpp} virtual stages on each rank must all hold as many layers in this model family, but {stages} do not"
    )]
    VirtualStages {
        /// Virtual stages on each rank.
        vpp: u32,
        /// The stages asked for.
        stages: Stages,
    },
    /// A stage without layers that the family's training code has no word for.
    #[error("every stage must hold a layer in this model family, but the stages are {stages}")]
    EmptyStage {
        /// The stages asked for.
        stages: Stages,
    },
    /// Megatron's text for the stages has another number of multi-token-prediction layers than the model.
    #[error("the pipeline layout has {said} multi-token-prediction layers (m), the model has {known}")]
    Predictions {
        /// Layers that the text has.
        said: u32,
        /// Layers that the model has.
        known: u32,
    },
    /// A tensor of which nothing says whether ranks hold parts or copies.
    #[error(
        "tensor {tensor}: this checkpoint does not say whether {tp} tensor-parallel ranks hold parts of it or copies; describe it in a family \
         file without copied_rows and pass --family FILE"
    )]
    Copies {
        /// The tensor.
        tensor: String,
        /// Tensor-parallel size asked for.
        tp: u32,
    },
    /// The tensor-parallel size does not fit the model.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The padded size of the vocabulary is not known.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// A tensor does not divide.
    #[error("tensor {tensor}: {source}")]
    Arrange {
        /// The tensor.
        tensor: String,
        /// What does not divide.
        source: ArrangeError,
    },
    /// A tensor cannot be made of what the source has.
    #[error("tensor {tensor}: {source}")]
    Gather {
        /// The tensor.
        tensor: String,
        /// What is missing.
        source: GatherError,
    },
    /// What the source saved beside the weights cannot be written again.
    #[error("{file}: {source}")]
    Pickle {
        /// The source file whose values are carried over.
        file: String,
        /// What cannot be written.
        source: TorchError,
    },
    /// A value that is carried over refers to bytes in a way that is not understood.
    #[error("{file}: storage data/{key} is referred to in a way that cannot be carried over to a view")]
    Storage {
        /// The source file.
        file: String,
        /// Key of the storage.
        key: String,
    },
    /// A record would not have the size that the file says.
    #[error("record {record} would have {planned} bytes instead of {wanted}; this is a bug")]
    RecordSize {
        /// The record.
        record: String,
        /// Bytes it must have.
        wanted: u64,
        /// Bytes it would have.
        planned: u64,
    },
    /// The file cannot be laid out as a zip archive.
    #[error(transparent)]
    Zip(#[from] ZipError),
    /// An encoding of the optimizer's state asked for where there is none.
    #[error("the source has no optimizer state that could be shown in another form; leave out --optimizer")]
    NoOptimizer,
    /// A state that flat buffers cannot hold.
    #[error(
        "the optimizer's '{state}' is not a 32-bit number for each element, so it cannot be shown as a distributed optimizer"
    )]
    NotForBuffers {
        /// The state.
        state: String,
    },
    /// State that cannot be shown in flat buffers as it is.
    #[error("{why}, so the optimizer's state cannot be shown as that of a distributed optimizer")]
    NoBuffers {
        /// What is in the way.
        why: &'static str,
    },
    /// A family that does not say how its distributed optimizer keeps buffers.
    #[error(
        "the family {family} does not say how its distributed optimizer keeps its buffers; say it under [optimizer] in a family file"
    )]
    UnknownBuffers {
        /// Its name.
        family: String,
    },
    /// Tensors that the family lists in another order than the source has them.
    #[error(
        "{file}: {tensor} stands where the family lists {other}; optimizers count parameters in that order, so their state cannot be \
         resharded; --optimizer none leaves it out"
    )]
    Order {
        /// The source file.
        file: String,
        /// The tensor in it.
        tensor: String,
        /// The one that the family lists.
        other: String,
    },
    /// A parameter for which the source has no parameter group.
    #[error(
        "{file}: its optimizer has no parameter group for {tensor}; --optimizer none leaves the optimizer's state out"
    )]
    NoGroup {
        /// The tensor of the view.
        tensor: String,
        /// The source file.
        file: String,
    },
    /// Tensors that a safetensors file cannot hold.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// A source that no family of another format describes.
    #[error("a {title} checkpoint cannot be shown as {format}: no family describes such files of it")]
    NoFamily {
        /// The source's family for people.
        title: String,
        /// The format asked for.
        format: Format,
    },
    /// A source of which nothing is known but names of tensors.
    #[error("cannot be shown as {format}: nothing says what its tensors are; pass a model directory with a config.json of an architecture that is known with --template, or --as hf")]
    Undescribed {
        /// The format asked for.
        format: Format,
    },
    /// An architecture that is not one of the source's.
    #[error("--hf-model-type {wanted}: a {title} checkpoint can be shown as: {}", .known.join(", "))]
    NoModelType {
        /// The architecture asked for.
        wanted: String,
        /// The source's family for people.
        title: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A spelling of names that the family does not have.
    #[error("--megatron-spec {dialect}: possible: {}", .known.join(", "))]
    Dialect {
        /// The spelling asked for.
        dialect: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A version of an engine whose names are not known.
    #[error("what {format} {version} calls the tensors of this model is not known; known: {known}")]
    EngineVersion {
        /// The engine.
        format: Format,
        /// The version asked for.
        version: String,
        /// Those that are known.
        known: String,
    },
    /// A tensor that torch_dist has no key for.
    #[error("a {title} checkpoint cannot be shown as torch_dist: its {tensor} has no key there")]
    NoKey {
        /// The source's family for people.
        title: String,
        /// The tensor, with `{layer}`.
        tensor: String,
    },
    /// A tensor of one layer or expert that is not like those of the others.
    #[error(
        "torch_dist has {key} of all layers and experts as one tensor, but {tensor} is {dtype} {shape}, others {} {}", .others.0, .others.1
    )]
    Unlike {
        /// The key.
        key: String,
        /// The tensor of a rank file.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Shape,
        /// Type and shape of the first.
        others: (Dtype, Shape),
    },
    /// Layers or experts that lack a tensor which others have.
    #[error(
        "torch_dist has {key} of all layers and experts as one tensor of {stack} of them; the one at {at:?} has none. Where layers differ, args must say \
         so (a list as moe_layer_freq): keys then have numbers of layers"
    )]
    NotStacked {
        /// The key.
        key: String,
        /// The layer, the expert or both.
        at: Vec<u64>,
        /// How many there are.
        stack: Shape,
    },
    /// An architecture that torchtitan's names are not known of.
    #[error("--dcp-names torchtitan: its names of {title} are not known here")]
    NoTorchtitan {
        /// The family's title.
        title: String,
    },
    /// A state of the optimizer that is no tensor like the weights.
    #[error("the optimizer's '{state}' is not a number for each element, which is all that torch_dist has; --optimizer none leaves the optimizer out")]
    NotForTorchDist {
        /// The state.
        state: String,
    },
    /// A checkpoint that torch DCP cannot hold.
    #[error(transparent)]
    Dcp(#[from] WriteError),
    /// A layout that the format does not have.
    #[error("{format} files have no layout {layout}{}", advice(*.format))]
    NoSuchLayout {
        /// The format.
        format: Format,
        /// The layout asked for.
        layout: Layout,
    },
    /// A model that the other family cannot describe.
    #[error("as {title}: {source}")]
    Model {
        /// The family for people.
        title: String,
        /// Why not.
        source: ModelError,
    },
    /// A parameter that the other family has no tensor for.
    #[error("{title} files have no place for {param}")]
    NoPlace {
        /// The family for people.
        title: String,
        /// The parameter.
        param: String,
    },
    /// A parameter that the other family's models cannot be without.
    #[error("{title} files need {param}, which this checkpoint does not have")]
    Lacks {
        /// The family for people.
        title: String,
        /// The parameter.
        param: String,
    },
    /// Args that a `config.json` cannot say.
    #[error("{source}")]
    NotExpressible {
        /// What.
        source: Box<ConfigError>,
    },
    /// An architecture that cannot say what the checkpoint is, and those that can.
    #[error("{why}; {}", instead(.others))]
    OtherArchitecture {
        /// What it cannot say.
        why: Box<ViewError>,
        /// `model_type` of those that can.
        others: Vec<String>,
    },
    /// A `config.json` that args cannot say.
    #[error("config.json cannot be said in Megatron's args: {source}")]
    Inexpressible {
        /// What.
        source: Box<ConfigError>,
    },
    /// A template of another model.
    #[error(
        "{template}/config.json is of another model: {field} is {template_says} by it, {args_say} by the checkpoint"
    )]
    Template {
        /// The template.
        template: String,
        /// What differs.
        field: String,
        /// By the template.
        template_says: String,
        /// By the source.
        args_say: String,
    },
    /// A template of an architecture that is not one of the source's.
    #[error(
        "{template}/config.json is of another model: its model_type is {wanted}; a {title} checkpoint can be shown as: {}. If it is one of \
         these under another name, say which with --hf-model-type",
        .known.join(", ")
    )]
    TemplateModelType {
        /// The template.
        template: String,
        /// What it says.
        wanted: String,
        /// The source's family for people.
        title: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A `config.json` that only some versions of its readers understand.
    #[error("config.json cannot be spelled for every version of transformers: {source}")]
    Spelling {
        /// What stands in the way.
        source: Box<ConfigError>,
    },
    /// A template whose config cannot be read.
    #[error("{template}/config.json: {source}")]
    TemplateConfig {
        /// The template.
        template: String,
        /// What is wrong with it.
        source: Box<ConfigError>,
    },
    /// A number that no file of the view has: a mistake in what asked.
    #[error("the view has no file number {0}; this is a bug")]
    NoFile(usize),
    /// Something that the source had to have when it was opened.
    #[error("{file}: {what} is not there; this is a bug")]
    Lost {
        /// The source file.
        file: String,
        /// What it should have.
        what: String,
    },
    /// The source has no file to take `args` from.
    #[error("the source has no rank file")]
    NoRank,
}

/// What can be asked for instead.
fn advice(format: Format) -> &'static str {
    match format {
        Format::Hf => ": a model directory is whole; --as megatron, safetensors or vllm is cut for ranks",
        Format::Sglang => ": its loader knows tensor parallelism alone (--tp N)",
        Format::Vllm => {
            ": its loader knows --tp alone, and for dense models --pp from version 0.32 on; experts are cut like the rest"
        }
        Format::TorchDist | Format::Dcp => ": a distributed checkpoint has no layout; loaders of any read it",
        Format::Megatron | Format::Safetensors => "",
    }
}

/// The way on where an architecture does not fit: only one that does is named.
fn instead(others: &[String]) -> String {
    match others {
        [] => "and no other architecture that is known fits".to_owned(),
        others => format!("an architecture that fits is {} (--hf-model-type)", others.join(" or ")),
    }
}
