//! Model families: what a model's tensors are called, which parameters they hold, how they are cut, and which `args` encode the layout.
//!
//! A family is a data file (`families/*.toml`, embedded; `--family FILE` adds one). This module reads such files and answers questions
//! about them for one checkpoint's `args`. Not here: files, bytes, catalogs.

mod arrange;
pub mod config;
mod engine;
mod error;
mod experts;
mod file;
mod fresh;
mod limits;
mod merge;
mod model;
mod names;
mod optimizer;
mod predictions;
mod required;
mod settle;
mod vocabulary;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use arrange::{ArrangeError, Arrangement, part_sizes};
pub use error::ModelError;
pub use experts::{CutBy, LayerKind};
pub use fresh::RunFlags;
pub use limits::{Limit, LimitError, check as check_limits, possible as possible_sizes};
pub use model::{Entry, Holding, Model, Stage, VOCABULARY};
pub use names::{DEPTH, EXPERT, LAYER, Numbers, layer_templates, templates};
pub use settle::Copies;
pub use vocabulary::{Padding, Vocabulary, VocabularyError};

/// A family as its file states it.
#[derive(Debug, Clone)]
pub struct Family {
    /// Name used in messages and output, e.g. `megatron-core`.
    pub name: String,
    /// Name for people.
    pub title: String,
    file: file::FamilyFile,
    parameters: Arc<Parameters>,
}

/// The canonical parameters and their dimensions, shared by all families.
#[derive(Debug, Clone, Default)]
struct Parameters {
    /// Dimension names of each parameter, by its name with `{layer}`.
    dimensions: HashMap<String, Vec<String>>,
    /// For dimensions that may be cut: the size that the ways of cutting it must divide, and what cuts it.
    cut: HashMap<String, (String, CutBy)>,
    /// Parameters without which there is no model, where the family describes them.
    required: Vec<String>,
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

/// How a distributed optimizer keeps its flat buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DistributedBuffers {
    /// Megatron-core's way since February 2024: by number, with lengths, parameters at aligned starts.
    Coalesced,
    /// One for each part of the model, without gaps.
    Dense,
}

/// A family file that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FamilyError {
    /// Not TOML, or not of the form a family has.
    #[error("{0}")]
    Syntax(String),
    /// A tensor holds a parameter nobody has described.
    #[error(
        "tensor '{tensor}' holds '{param}', which is not a canonical parameter; add it under [parameters] with its dimensions"
    )]
    UnknownParameter {
        /// The tensor.
        tensor: String,
        /// The parameter.
        param: String,
    },
    /// A statement that contradicts another.
    #[error("tensor '{tensor}': {what}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        what: String,
    },
}

const PARAMETERS: &str = include_str!("../families/parameters.toml");
const EMBEDDED: &[&str] = &[
    include_str!("../families/yuan.toml"),
    include_str!("../families/megatron-core.toml"),
    include_str!("../families/megatron-legacy.toml"),
    include_str!("../families/hf/llama.toml"),
    include_str!("../families/hf/mistral.toml"),
    include_str!("../families/hf/qwen2.toml"),
    include_str!("../families/hf/qwen3.toml"),
    include_str!("../families/hf/mixtral.toml"),
    include_str!("../families/hf/qwen2_moe.toml"),
    include_str!("../families/hf/qwen3_moe.toml"),
    include_str!("../families/hf/yuan.toml"),
    include_str!("../families/engines/sglang.toml"),
    include_str!("../families/engines/sglang-mixtral.toml"),
    include_str!("../families/engines/sglang-qwen2_moe.toml"),
    include_str!("../families/engines/sglang-qwen3_moe.toml"),
    include_str!("../families/engines/vllm.toml"),
    include_str!("../families/engines/vllm-mixtral.toml"),
    include_str!("../families/engines/vllm-qwen2_moe.toml"),
    include_str!("../families/engines/vllm-qwen3_moe.toml"),
];

impl Family {
    /// What its files are.
    #[must_use]
    pub fn format(&self) -> Format {
        self.file.format
    }

    /// The families that are built in.
    ///
    /// # Errors
    /// [`FamilyError`]: never for the files of this repository (tested).
    pub fn embedded() -> Result<Vec<Self>, FamilyError> {
        EMBEDDED.iter().map(|text| Self::parse(text)).collect()
    }

    /// Reads a family file.
    ///
    /// # Errors
    /// [`FamilyError`] saying which line or tensor is wrong.
    pub fn parse(text: &str) -> Result<Self, FamilyError> {
        let file = merge::file(text, EMBEDDED)?;
        let mut parameters = Parameters::default();
        let shared: file::ParameterFile =
            toml::from_str(PARAMETERS).map_err(|e| FamilyError::Syntax(e.to_string()))?;
        parameters.required = shared.required;
        parameters.extend(shared.dimensions, shared.parameters);
        parameters.extend(file.dimensions.clone(), file.parameters.clone());
        let family = Self {
            name: file.name.clone(),
            title: file.title.clone(),
            file,
            parameters: Arc::new(parameters),
        };
        family.check()?;
        Ok(family)
    }

    fn check(&self) -> Result<(), FamilyError> {
        self.check_order()?;
        for tensor in &self.file.tensor {
            let wrong = |what: &str| FamilyError::Tensor { tensor: tensor.name.clone(), what: what.into() };
            if tensor.like_layer.is_some() {
                if !tensor.name.contains(DEPTH) {
                    return Err(wrong("a tensor that is like a layer needs a {depth} in its name"));
                }
                continue;
            }
            let kinds =
                [tensor.extra_state, tensor.constant.is_some(), tensor.ignored, !tensor.holds.is_empty()];
            if kinds.iter().filter(|kind| **kind).count() != 1 {
                return Err(wrong(
                    "it must either hold parameters or be marked extra_state, constant or ignored",
                ));
            }
            if tensor.part.is_some_and(|(part, of)| part >= of) {
                return Err(wrong("part = [n, of] counts n from 0, so n must be below of"));
            }
            if tensor.name.contains("{layer}") == tensor.stage.is_some() {
                return Err(wrong("it needs a stage (first or last) or a {layer} in its name, and not both"));
            }
            let of_expert = tensor.name.contains(EXPERT);
            if of_expert && (tensor.layers != LayerKind::Expert || !tensor.name.contains(LAYER)) {
                return Err(wrong("an {expert} is in a {layer}, and needs layers = 'expert'"));
            }
            if tensor.interleave.is_some() && tensor.shares.is_empty() {
                return Err(wrong(
                    "interleave needs shares, which say how many rows of a group each parameter has",
                ));
            }
            if !tensor.shares.is_empty() && tensor.shares.len() != tensor.holds.len() {
                return Err(wrong("shares must be as many as the parameters it holds"));
            }
            for param in tensor.holds.iter().chain(&tensor.unused_like) {
                if !self.parameters.dimensions.contains_key(param) {
                    return Err(FamilyError::UnknownParameter {
                        tensor: tensor.name.clone(),
                        param: param.clone(),
                    });
                }
                for (place, what) in [
                    (LAYER, "tensor and parameter must both name a {layer} or neither"),
                    (EXPERT, "tensor and parameter must both name an {expert} or neither"),
                    (DEPTH, "tensor and parameter must both name a {depth} or neither"),
                ] {
                    let stacked = tensor.stacked && place == EXPERT;
                    if param.contains(place) != (tensor.name.contains(place) || stacked) {
                        return Err(wrong(what));
                    }
                }
            }
        }
        Ok(())
    }

    /// Tensors of layers stand together: ranks save what comes before them once, then every layer, then the rest.
    fn check_order(&self) -> Result<(), FamilyError> {
        let is_layered = |tensor: &&file::TensorFile| tensor.name.contains("{layer}");
        let within = self.file.tensor.iter().skip_while(|tensor| !is_layered(tensor));
        let mut after = within.skip_while(is_layered);
        match after.find(is_layered) {
            None => Ok(()),
            Some(tensor) => Err(FamilyError::Tensor {
                tensor: tensor.name.clone(),
                what: "tensors with {layer} must stand together, without others between them".into(),
            }),
        }
    }
}

impl Parameters {
    fn extend(
        &mut self,
        dimensions: BTreeMap<String, file::DimensionFile>,
        parameters: BTreeMap<String, Vec<String>>,
    ) {
        let cut = dimensions.into_iter().map(|(name, dimension)| (name, (dimension.cut, dimension.by)));
        self.cut.extend(cut);
        self.dimensions.extend(parameters);
    }

    /// The axis of a parameter that may be cut, and what cuts it.
    fn cut_of(&self, param: &str) -> Option<(usize, CutBy)> {
        let dimensions = self.dimensions.get(param)?;
        dimensions.iter().enumerate().find_map(|(axis, name)| Some((axis, self.cut.get(name)?.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_family_is_well_formed() {
        let names: Vec<_> = Family::embedded().unwrap().into_iter().map(|f| f.name).collect();
        assert_eq!(names[..3], ["yuan-2.0", "megatron-core", "megatron-legacy"]);
        assert!(names.iter().any(|name| name == "qwen3_moe"));
    }

    #[test]
    fn mistakes_in_a_family_file_are_named() {
        let head = "name = 'x'\ntitle = 'X'\n[vocabulary]\npadding = 'fixed'\nmultiple = 'm'\n";
        let error = |body: &str| Family::parse(&format!("{head}{body}")).unwrap_err().to_string();
        assert!(error("[[tensor]]\nname = 'a'\nstage = 'first'\nholds = ['nope']").contains("'nope'"));
        assert!(error("[[tensor]]\nname = 'a'\nholds = ['embedding.weight']").contains("needs a stage"));
        assert!(error("[[tensor]]\nname = 'a'\nstage = 'first'").contains("must either hold"));
        assert!(error("[[tensor]]\nnam = 'a'").contains("nam"));
        let norm = |name: &str| {
            format!("[[tensor]]\nname = '{name}'\nholds = ['layers.{{layer}}.mlp_norm.weight']\n")
        };
        let between = "[[tensor]]\nname = 'x'\nstage = 'last'\nholds = ['final_norm.weight']\n";
        let apart = [norm("{layer}.a"), between.into(), norm("{layer}.b")].concat();
        assert!(error(&apart).contains("stand together"));
    }
}
