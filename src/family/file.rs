//! The form of a family file: what serde reads, nothing more.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::config::ConfigFile;
use super::{ArgRole, CutBy, DistributedBuffers, LayerKind, Padding, Stage};
use crate::layout::Format;

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
    /// What its files are.
    #[serde(default)]
    pub(super) format: Format,
    /// Numbers of layers and experts in names are those of the model, on every rank.
    #[serde(default)]
    pub(super) global_layers: bool,
    /// Ranks beyond the query groups each hold a copy of one, instead of a part.
    #[serde(default)]
    pub(super) copies_groups: bool,
    /// Parameters that no model of this family is without, beside those that no model at all is.
    #[serde(default)]
    pub(super) required: Vec<String>,
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
    /// Dimensions that are products of fields of args.
    #[serde(default)]
    pub(super) stated: BTreeMap<String, Vec<String>>,
    /// How its args and a `config.json` say the same.
    #[serde(default)]
    pub(super) config: Option<ConfigFile>,
    /// What a checkpoint made of another format begins with.
    #[serde(default)]
    pub(super) fresh: Option<FreshFile>,
    /// Which models an inference engine loads so.
    #[serde(default)]
    pub(super) engine: Option<EngineFile>,
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
    /// The field of args that says what its rows are a multiple of.
    #[serde(default)]
    pub(super) multiple: Option<String>,
    /// What its rows are a multiple of, where that is fixed.
    #[serde(default)]
    pub(super) multiple_of: Option<u64>,
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
    /// Rows of a head, in each of which the rows of its two halves alternate.
    #[serde(default)]
    pub(super) pairs: Option<String>,
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
    /// The spelling it belongs to, where the same parameters have several.
    #[serde(default)]
    pub(super) dialect: Option<String>,
    /// It holds what another tensor holds too, and both are saved.
    #[serde(default)]
    pub(super) copy: bool,
    /// `[n, of]`: it is part n of so many equal ones of what its other fields describe.
    #[serde(default)]
    pub(super) part: Option<(u64, u64)>,
    /// It holds the parameters of all experts (of its rank), one after the other along an axis of their own.
    #[serde(default)]
    pub(super) stacked: bool,
    /// Versions of the engine that have it: from this one on.
    #[serde(default)]
    pub(super) since: Option<String>,
    /// And before this one.
    #[serde(default)]
    pub(super) before: Option<String>,
    /// Nothing but this number, as a 32-bit float without dimensions.
    #[serde(default)]
    pub(super) constant: Option<f32>,
    /// Files may have it, and nobody needs it.
    #[serde(default)]
    pub(super) ignored: bool,
    /// Why nobody needs it, where that is not because the model computes it.
    #[serde(default)]
    pub(super) why: Option<String>,
    /// Cut, or copied to every rank: rows that these args add up to are a copy.
    #[serde(default)]
    pub(super) copied_rows: Vec<String>,
    /// Saved only where there is more than one pipeline stage.
    #[serde(default)]
    pub(super) only_if_pipelined: bool,
    /// Saved and never computed with. It is what this parameter is where the source has none.
    #[serde(default)]
    pub(super) unused_like: Option<String>,
    /// Not a tensor of the model but a module's extra state.
    #[serde(default)]
    pub(super) extra_state: bool,
    /// Where its dict must be made anew: the dict it is like.
    #[serde(default)]
    pub(super) container_like: Option<String>,
}

/// What a checkpoint of this family has that was made of one in another format.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FreshFile {
    /// Version of the order of rows in its files.
    pub(super) checkpoint_version: f64,
    /// Fields of args and their values, beside those that say what the model is.
    #[serde(default)]
    pub(super) args: BTreeMap<String, serde_json::Value>,
    /// The same for models of which this field is true.
    #[serde(default)]
    pub(super) args_if: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
    /// Fields of args that are `None`.
    #[serde(default)]
    pub(super) none: Vec<String>,
    /// Fields of args that a run does not take from a checkpoint, and the flags that say them.
    #[serde(default)]
    pub(super) flag: Vec<FlagFile>,
    /// What its spellings of names are called: the default one first.
    #[serde(default)]
    pub(super) dialects: BTreeMap<String, DialectFile>,
}

/// A spelling of names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DialectFile {
    /// Fields of args of runs that spell so.
    #[serde(default)]
    pub(super) args: BTreeMap<String, serde_json::Value>,
}

/// A flag of the training code.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FlagFile {
    /// The field of args that it sets.
    pub(super) arg: String,
    /// The flag; `{}` stands for the value.
    pub(super) flag: String,
    /// Only where this field is true.
    #[serde(default)]
    pub(super) when: Option<String>,
    /// The value that needs no word of caution.
    #[serde(default)]
    pub(super) usual: Option<serde_json::Value>,
    /// `[field, value]`: what is to be said is said only where this field has this value.
    #[serde(default)]
    pub(super) caution_if: Option<(String, String)>,
    /// What to say of any other.
    #[serde(default)]
    pub(super) caution: Option<String>,
}

/// Which models an inference engine loads from files of this family.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EngineFile {
    /// `model_type` of their configs, each with the first version of the engine whose names are known.
    pub(super) models: BTreeMap<String, String>,
    /// The newest version that was looked at.
    pub(super) newest: String,
    /// The first version that loads several stages; none does where it is left out or empty.
    #[serde(default)]
    pub(super) pipelines_since: Option<String>,
}
