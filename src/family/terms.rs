//! The words that a family file chooses among, each a plain enum. Not here: what follows from them for one checkpoint.

use crate::layout::{Layout, Rank};

/// What the files of a family are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Rank files of Megatron.
    #[default]
    Megatron,
    /// A Hugging Face model directory.
    Hf,
    /// What each process of vLLM loads.
    Vllm,
    /// What each process of SGLang loads.
    Sglang,
}

/// What a field of `args` says about the layout, and so what it is rewritten to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArgRole {
    /// Tensor-parallel size.
    Tp,
    /// Pipeline-parallel size.
    Pp,
    /// Expert-parallel size.
    Ep,
    /// Expert-tensor-parallel size.
    Etp,
    /// Data-parallel size: more where the expert ranks need more replicas to be shared out among.
    DataParallel,
    /// Pipeline stages that hold layers: one less where the embedding has a stage of its own.
    PpWithLayers,
    /// Number of the process that would have saved the file.
    Rank,
    /// Number of processes.
    WorldSize,
    /// Virtual stages on each pipeline rank, or `None`.
    Vpp,
    /// The same where a flag said it, `None` where another flag did.
    VirtualStages,
    /// Layers of each virtual stage where that flag said it, else `None`.
    LayersPerVirtualStage,
    /// Micro-batches that pass a virtual stage in a row: follows the pipeline size where it was that, else as it was.
    MicrobatchGroup,
    /// `False` without virtual stages, else as it was.
    FalseWithoutVpp,
    /// Layers per stage as a list.
    StagesList,
    /// Layers per stage as text, `2,4`; a `None` stays where stages are even.
    StagesText,
    /// `uniform` where stages are even and the source said so, else `block`.
    StagesMethod,
    /// Layers per stage in Megatron's layout text; a `None` stays where other fields can say it.
    StagesLayout,
    /// Layers of the first stage where it differs from the middle ones, else `None`.
    FirstStage,
    /// Layers of the last stage where it differs from the middle ones, else `None`.
    LastStage,
    /// Rows of the padded vocabulary.
    PaddedVocabulary,
    /// `None`.
    None,
    /// `False` at tensor-parallel size 1, else as it was.
    FalseWithoutTp,
    /// `False` where the stages are not the source's, else as it was.
    FalseIfRecut,
    /// Whether the optimizer's state is in flat buffers, where it is shown at all.
    DistributedOptimizer,
}

/// The pipeline stage a tensor is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The first.
    First,
    /// The last.
    Last,
    /// That of its layer.
    #[serde(skip)]
    Layer,
}

/// The layers that have a tensor. In a model without experts every layer is dense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerKind {
    /// Whatever the layer is.
    #[default]
    Any,
    /// Layers without experts.
    Dense,
    /// Layers with experts.
    Expert,
}

/// What cuts a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CutBy {
    /// Tensor parallelism.
    #[default]
    Tp,
    /// Expert tensor parallelism.
    Etp,
}

impl CutBy {
    /// In how many parts `layout` cuts, and which of them is that of `rank`.
    #[must_use]
    pub fn part(self, layout: &Layout, rank: Rank) -> (u64, u64) {
        match self {
            Self::Tp => (layout.tp.into(), rank.tp.into()),
            Self::Etp => (layout.etp().into(), layout.etp_rank(rank).into()),
        }
    }
}

/// How the family pads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// To a size that does not depend on the layout.
    Fixed,
    /// To a multiple of `multiple` x TP.
    PerTp,
    /// Not at all.
    Exact,
}

/// How a distributed optimizer keeps its flat buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DistributedBuffers {
    /// Megatron-core's way since February 2024: by number, with lengths, parameters at aligned starts.
    Coalesced,
    /// One for each part of the model, without gaps.
    Dense,
}
