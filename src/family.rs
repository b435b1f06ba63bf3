//! Model families: what a model's tensors are called, which parameters they hold, how they are cut, and which `args` encode the layout.
//!
//! A family is a data file (`families/*.toml`, embedded; `--family FILE` adds one). This module reads such files and answers questions
//! about them for one checkpoint's `args`. Not here: files, bytes, catalogs.

mod apply;
mod arrange;
pub mod config;
mod engine;
mod entry;
mod error;
mod experts;
mod file;
mod defaults;
mod library;
mod limits;
mod merge;
mod model;
mod names;
mod of_names;
mod optimizer;
mod mtp;
mod required;
mod replication;
mod saved;
mod terms;
mod undescribed;
mod vocabulary;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use crate::layout::Format;

pub use arrange::{ArrangeError, Arrangement, part_sizes};
pub use entry::{Copies, Entry, Holding, VOCABULARY};
pub use error::ModelError;
pub use defaults::RunFlags;
pub use library::Families;
pub use limits::{Limit, LimitError, check as check_limits, possible as possible_sizes};
pub use model::Model;
pub use names::{DEPTH, EXPERT, LAYER, Numbers, layer_templates, templates};
pub use saved::Saved;
pub use terms::{ArgRole, CutBy, DistributedBuffers, LayerKind, Padding, Stage};
pub use undescribed::undescribed;
pub use vocabulary::{Vocabulary, VocabularyError};

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

/// What every family has of them, read once.
#[expect(clippy::expect_used, reason = "it is part of the program, and every test of a family reads it")]
static SHARED: LazyLock<Arc<Parameters>> = LazyLock::new(|| {
    let file: file::ParameterFile =
        toml::from_str(PARAMETERS).expect("the canonical parameters are well formed");
    let mut parameters = Parameters { required: file.required, ..Parameters::default() };
    parameters.extend(file.dimensions, file.parameters);
    Arc::new(parameters)
});

impl Family {
    /// What its files are.
    #[must_use]
    pub fn format(&self) -> Format {
        self.file.format
    }

    /// Reads a family file, which may extend a built-in family.
    ///
    /// # Errors
    /// [`FamilyError`] saying which line or tensor is wrong.
    pub fn parse(text: &str) -> Result<Self, FamilyError> {
        Self::of_file(merge::file(text, &library::built_in_table)?)
    }

    /// The family that a table describes which lacks nothing.
    fn of_table(table: toml::Table) -> Result<Self, FamilyError> {
        Self::of_file(merge::of_table(table)?)
    }

    fn of_file(file: file::FamilyFile) -> Result<Self, FamilyError> {
        let mut parameters = SHARED.clone();
        if !(file.dimensions.is_empty() && file.parameters.is_empty()) {
            Arc::make_mut(&mut parameters).extend(file.dimensions.clone(), file.parameters.clone());
        }
        let family = Self { name: file.name.clone(), title: file.title.clone(), file, parameters };
        family.check()?;
        Ok(family)
    }

    fn check(&self) -> Result<(), FamilyError> {
        if self.file.format == Format::Safetensors {
            let what = "format = \"safetensors\" is no family's: such files have the names of whatever family their model is of";
            return Err(FamilyError::Syntax(what.into()));
        }
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
            if tensor.pairs.is_some() && (tensor.interleave.is_some() || tensor.holds.len() != 1) {
                return Err(wrong("pairs are of one parameter, which is not interleaved with others"));
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
    fn mistakes_in_a_family_file_are_named() {
        let head = "name = 'x'\ntitle = 'X'\n[vocabulary]\npadding = 'fixed'\nmultiple = 'm'\n";
        let error = |body: &str| Family::parse(&format!("{head}{body}")).unwrap_err().to_string();
        assert!(error("[[tensor]]\nname = 'a'\nstage = 'first'\nholds = ['nope']").contains("'nope'"));
        assert!(error("[[tensor]]\nname = 'a'\nholds = ['embedding.weight']").contains("needs a stage"));
        assert!(error("[[tensor]]\nname = 'a'\nstage = 'first'").contains("must either hold"));
        assert!(error("[[tensor]]\nnam = 'a'").contains("nam"));
        let of_ranks = Family::parse(&format!("format = 'safetensors'\n{head}")).unwrap_err().to_string();
        assert!(of_ranks.contains("no family's"), "{of_ranks}");
        let norm = |name: &str| {
            format!("[[tensor]]\nname = '{name}'\nholds = ['layers.{{layer}}.mlp_norm.weight']\n")
        };
        let between = "[[tensor]]\nname = 'x'\nstage = 'last'\nholds = ['final_norm.weight']\n";
        let apart = [norm("{layer}.a"), between.into(), norm("{layer}.b")].concat();
        assert!(error(&apart).contains("stand together"));
    }
}
