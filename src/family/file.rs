//! The form of a family file: what serde reads, nothing more.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ArgRole, CutBy, DistributedBuffers, LayerKind, Padding, Stage};

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
    /// Which kind of tensor parallelism cuts it.
    #[serde(default)]
    pub(super) by: CutBy,
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
    /// Whether its training code has virtual stages of equal length only.
    #[serde(default)]
    pub(super) even_virtual_stages: bool,
    /// Whether TP may be a multiple of the query groups.
    #[serde(default)]
    pub(super) groups_may_be_shared: bool,
    #[serde(default)]
    pub(super) detect: Detect,
    #[serde(default)]
    pub(super) sizes: BTreeMap<String, Vec<SizeFile>>,
    #[serde(default)]
    pub(super) experts: Option<ExpertsFile>,
    #[serde(default)]
    pub(super) predictions: Option<PredictionsFile>,
    #[serde(default)]
    pub(super) copies: Option<CopiesFile>,
    pub(super) vocabulary: VocabularyFile,
    #[serde(default)]
    pub(super) optimizer: Option<OptimizerFile>,
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

/// Where args say how many experts a layer has, and which layers have them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpertsFile {
    pub(super) count: String,
    /// Rows of an expert before it is cut, where args say them.
    pub(super) ffn: String,
    /// N: every Nth layer, from the first; or a list with 1 for every layer with experts. All layers where args do not say.
    pub(super) layers: String,
}

/// Where args say how many layers predict tokens beyond the next one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PredictionsFile {
    pub(super) count: String,
    /// True where one layer serves for all of them.
    pub(super) one_if: String,
}

/// How args say whether tensors with `copied_rows` are cut or copied, where their shape does not: at tensor-parallel size 1.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CopiesFile {
    /// The field that says it.
    pub(super) arg: String,
    /// Its value where they are copied.
    pub(super) copied: String,
    /// Its value where they are cut.
    pub(super) cut: String,
    /// A field that only versions have in which those values mean that.
    pub(super) known_with: String,
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

/// How the family's training code keeps optimizer state.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OptimizerFile {
    pub(super) buffers: DistributedBuffers,
    /// Where versions differ: a field of args that only those have that coalesce buffers.
    #[serde(default)]
    pub(super) coalesced_if_arg: Option<String>,
    /// A field of args that only those versions have that give experts an optimizer of their own where they are cut in another way.
    #[serde(default)]
    pub(super) experts_apart_if_cut_differently: Option<String>,
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
    /// Its name; `/` separates nested dicts, `{layer}` is the number of the layer on its stage, `{expert}` that of the expert on its rank,
    /// `{depth}` that of a layer that predicts tokens beyond the next one.
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
    /// The kind of layer that has it.
    #[serde(default)]
    pub(super) layers: LayerKind,
    /// Not trained: no optimizer has a state of it.
    #[serde(default)]
    pub(super) buffer: bool,
    /// Stands for all tensors of layers: those whose names begin so, with this tensor's name in place of that.
    #[serde(default)]
    pub(super) like_layer: Option<String>,
    /// On the last stage too where one of these args is true: a copy, if that is not the first.
    #[serde(default)]
    pub(super) also_last_when: Vec<String>,
    /// Cut, or copied to every rank: rows that these args add up to are a copy.
    #[serde(default)]
    pub(super) copied_rows: Vec<String>,
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
