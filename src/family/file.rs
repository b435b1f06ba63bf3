//! The form of a family file: what serde reads, nothing more.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ArgRole, Padding, Stage};

/// `families/parameters.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParameterFile {
    pub(super) required: Vec<String>,
    pub(super) dimensions: BTreeMap<String, DimensionFile>,
    pub(super) parameters: BTreeMap<String, Vec<String>>,
}

/// A dimension that tensor parallelism may cut.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DimensionFile {
    pub(super) cut: String,
}

/// One family.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FamilyFile {
    pub(super) name: String,
    pub(super) title: String,
    #[serde(default)]
    pub(super) checkpoint_version_at_least: Option<f64>,
    /// Fields that `args` must have, because their absence could mean either thing.
    #[serde(default)]
    pub(super) required_args: Vec<String>,
    /// Whether TP may be a multiple of the query groups.
    #[serde(default)]
    pub(super) groups_may_be_shared: bool,
    #[serde(default)]
    pub(super) detect: Detect,
    #[serde(default)]
    pub(super) sizes: BTreeMap<String, Vec<SizeFile>>,
    pub(super) vocabulary: VocabularyFile,
    #[serde(default)]
    pub(super) refuse: Vec<RefuseFile>,
    #[serde(default)]
    pub(super) args: BTreeMap<String, ArgRole>,
    #[serde(default)]
    pub(super) dimensions: BTreeMap<String, DimensionFile>,
    #[serde(default)]
    pub(super) parameters: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub(super) tensor: Vec<TensorFile>,
}

/// How a checkpoint of the family is recognised: all of these hold.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Detect {
    /// `args` has these fields, whatever their values.
    #[serde(default)]
    pub(super) args: Vec<String>,
    /// `args` has none of these fields.
    #[serde(default)]
    pub(super) without_args: Vec<String>,
    /// A rank saves one of these tensors.
    #[serde(default)]
    pub(super) tensors: Vec<String>,
}

/// One way to know a size: field `arg`, if field `when` is true or not named.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SizeFile {
    pub(super) arg: String,
    #[serde(default)]
    pub(super) when: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VocabularyFile {
    pub(super) padding: Padding,
    pub(super) multiple: String,
    #[serde(default)]
    pub(super) true_size: Option<String>,
    #[serde(default)]
    pub(super) unpadded_if_false: Option<String>,
}

/// Checkpoints with this field true (or above a number) cannot be resharded.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RefuseFile {
    pub(super) arg: String,
    #[serde(default)]
    pub(super) above: Option<i64>,
    pub(super) reason: String,
}

/// One tensor of a rank file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TensorFile {
    /// Its name; `/` separates nested dicts, `{layer}` is the number of the layer on its stage.
    pub(super) name: String,
    /// Parameters it holds.
    #[serde(default)]
    pub(super) holds: Vec<String>,
    /// How its rows are shared out among them; equal where left out.
    #[serde(default)]
    pub(super) shares: Vec<String>,
    /// The number of groups in which the parameters' rows alternate; one after the other where left out.
    #[serde(default)]
    pub(super) interleave: Option<String>,
    #[serde(default)]
    pub(super) stage: Option<Stage>,
    /// Used where one of these args is true.
    #[serde(default)]
    pub(super) when: Vec<String>,
    /// Used where none of these args is true.
    #[serde(default)]
    pub(super) unless: Vec<String>,
    /// Saved only where there is more than one pipeline stage.
    #[serde(default)]
    pub(super) only_if_pipelined: bool,
    /// Not a tensor of the model but a module's extra state.
    #[serde(default)]
    pub(super) extra_state: bool,
    /// Where its dict must be made anew: the dict it is like.
    #[serde(default)]
    pub(super) container_like: Option<String>,
}
