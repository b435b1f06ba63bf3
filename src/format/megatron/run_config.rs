//! `run_config.yaml` of Megatron-Bridge, which writes it in the place of `args`: what it says of the model, as a run of Megatron-LM would
//! have it among its arguments.
//!
//! Source: `ConfigContainer` and `GPTModelProvider` of Megatron-Bridge, and the table with which it translates arguments
//! (`scripts/translate_mlm_to_bridge.py`). Fields that both call alike go over as they are, also those that nobody here knows: whoever
//! looks at an argument finds it. Not here: YAML itself (`yaml`), what arguments mean (`family`).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod yaml;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::value::Value;
use yaml::Node;

/// The file, beside `.metadata`.
pub const RUN_CONFIG: &str = "run_config.yaml";

/// Longest file that is read; real ones have some ten thousand bytes.
pub const MAX_LEN: u64 = 1 << 20;

/// Why a file is not what such a run has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunConfigError {
    /// It cannot be taken apart.
    #[error("not YAML that can be read: {0}")]
    Yaml(String),
    /// It says nothing of a model.
    #[error("it has no section 'model' with settings in it")]
    NoModel,
    /// A field that matters is of another kind.
    #[error("its model.{field} is {found}; expected {expected}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// What such a file says.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// As arguments of Megatron-LM.
    pub args: Value,
    /// Fields of the model that are objects which arguments have no place for, and that are not among those known not to matter.
    pub objects: Vec<String>,
}

/// Fields that the arguments have under another name.
const RENAMED: [(&str, &str); 8] = [
    ("num_moe_experts", "num_experts"),
    ("layernorm_epsilon", "norm_epsilon"),
    ("layernorm_zero_centered_gamma", "apply_layernorm_1p"),
    ("seq_len_interpolation_factor", "rotary_seq_len_interpolation_factor"),
    ("rope_scaling", "use_rope_scaling"),
    ("num_layers_in_first_pipeline_stage", "decoder_first_pipeline_num_layers"),
    ("num_layers_in_last_pipeline_stage", "decoder_last_pipeline_num_layers"),
    ("seq_length", "max_position_embeddings"),
];

/// Objects that say how a model is computed, made or split, and nothing of its tensors.
const OBJECTS: [&str; 22] = [
    "attention_backend",
    "autocast_dtype",
    "cuda_graph_modules",
    "cuda_graph_scope",
    "embedding_init_method",
    "finalize_model_grads_func",
    "generation_config",
    "grad_scale_func",
    "grad_sync_func",
    "init_method",
    "logit_dtype",
    "mamba_stack_spec",
    "no_sync_func",
    "output_layer_init_method",
    "param_sync_func",
    "params_dtype",
    "pipeline_dtype",
    "timers",
    "tp_comm_overlap_cfg",
    "transformer_layer_spec",
    "mtp_block_spec",
    "_pg_collection",
];

/// Fields of which Bridge's own models make something that Megatron-LM's do not, each with the values that make nothing of it.
const COMPUTED: [(&str, &[f64]); 8] = [
    ("attention_multiplier", &[]),
    ("attn_logit_softcapping", &[0.0]),
    ("embedding_multiplier", &[1.0]),
    ("final_logit_softcapping", &[0.0]),
    ("logits_scaling", &[1.0]),
    ("query_pre_attn_scalar", &[]),
    ("residual_multiplier", &[1.0]),
    ("scale_embeddings", &[]),
];

/// Fields that say what a model computes, so that an object in the place of a value is not passed over.
const PLAIN: [&str; 8] = [
    "activation_func_clamp_value",
    "linear_attention_freq",
    "moe_layer_freq",
    "no_rope_freq",
    "position_embedding_type",
    "rotary_base",
    "window_attn_skip_freq",
    "window_size",
];

/// How Bridge's Llama 3.1 says the scaling of rotary embeddings, and what Megatron-LM does with `--use-rope-scaling`.
const SCALE: &str = "scale_factor";
const SCALING: [(&str, f64); 3] = [("low_freq_factor", 1.0), ("high_freq_factor", 4.0), ("old_context_len", 8192.0)];

/// Takes a file apart.
///
/// # Errors
/// [`RunConfigError`]
pub fn decode(text: &str) -> Result<RunConfig, RunConfigError> {
    let root = yaml::decode(text).map_err(RunConfigError::Yaml)?;
    let model = match root.get("model") {
        Some(Node::Map(model)) if !model.is_empty() => model,
        _ => return Err(RunConfigError::NoModel),
    };
    let mut fields: BTreeMap<String, Value> = BTreeMap::new();
    let mut objects = Vec::new();
    for (name, node) in model {
        if name.starts_with('_') || name == "activation_func" {
            continue;
        }
        match node.value() {
            Some(value) => {
                fields.insert(name.clone(), value);
            }
            None if OBJECTS.contains(&name.as_str()) => {}
            None if PLAIN.contains(&name.as_str()) => {
                let field = PLAIN.into_iter().find(|plain| plain == name).map_or("", |plain| plain);
                let found = "an object".to_owned();
                return Err(RunConfigError::Field { field, found, expected: "a number, a text or a list" });
            }
            None if name == "<<" => return Err(RunConfigError::Yaml("'<<' merges mappings, which is not read".into())),
            None => objects.push(name.clone()),
        }
    }
    for (own, argument) in RENAMED {
        if let Some(value) = fields.get(own).cloned() {
            fields.entry(argument.to_owned()).or_insert(value);
        }
    }
    for (field, nothing) in COMPUTED {
        let value = fields.get(field).filter(|value| !matches!(value, Value::None | Value::Bool(false)));
        let is_nothing = |value: &Value| value.as_number().is_some_and(|number| nothing.contains(&number));
        if let Some(value) = value.filter(|value| !is_nothing(value)) {
            let found = format!("{value:?}");
            return Err(RunConfigError::Field { field, found, expected: "nothing: Megatron-LM has no such argument" });
        }
    }
    scaling(&mut fields)?;
    activation(model, &mut fields)?;
    groups(&mut fields);
    vocabulary(&root, &mut fields);
    // Where it is not said, it is shared.
    let is_tied = truth(&fields, "share_embeddings_and_output_weights")? != Some(false);
    fields.insert("untie_embeddings_and_output_weights".to_owned(), Value::Bool(!is_tied));
    let distributed = root.get("ddp").and_then(|ddp| ddp.get("use_distributed_optimizer"));
    if let Some(Node::Scalar(value @ Value::Bool(_))) = distributed {
        fields.insert("use_distributed_optimizer".to_owned(), value.clone());
    }
    // Its models are built of Transformer Engine's layers.
    fields.entry("transformer_impl".to_owned()).or_insert_with(|| Value::str("transformer_engine"));
    Ok(RunConfig { args: Value::namespace(fields.into_iter().collect()), objects })
}

fn truth(fields: &BTreeMap<String, Value>, field: &'static str) -> Result<Option<bool>, RunConfigError> {
    match fields.get(field) {
        None | Some(Value::None) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => {
            let found = format!("a {}", other.kind());
            Err(RunConfigError::Field { field, found, expected: "true or false" })
        }
    }
}

/// The scaling of rotary embeddings by frequency: one factor, for Megatron-LM has the others as constants.
fn scaling(fields: &mut BTreeMap<String, Value>) -> Result<(), RunConfigError> {
    let said = |name: &str| fields.get(name).filter(|value| !matches!(value, Value::None)).cloned();
    let others = SCALING.map(|(field, constant)| (field, constant, said(field)));
    let Some(factor) = said(SCALE).or_else(|| others.iter().find_map(|(_, _, value)| value.clone())) else {
        return Ok(());
    };
    for (field, constant, value) in others {
        if value.as_ref().and_then(Value::as_number) != Some(constant) {
            let found = format!("{value:?}");
            return Err(RunConfigError::Field { field, found, expected: "1, 4 and 8192 beside scale_factor, as Megatron-LM has them" });
        }
    }
    let Some(factor) = said(SCALE).filter(|factor| factor.as_number().is_some()) else {
        let found = format!("{factor:?}");
        return Err(RunConfigError::Field { field: SCALE, found, expected: "a number" });
    };
    fields.insert("use_rope_scaling".to_owned(), Value::Bool(true));
    fields.insert("rope_scaling_factor".to_owned(), factor);
    Ok(())
}

/// The activation: a function, by name or as an object, where arguments have a flag for each.
fn activation(
    model: &[(String, Arc<Node>)],
    fields: &mut BTreeMap<String, Value>,
) -> Result<(), RunConfigError> {
    let gated = truth(fields, "gated_linear_unit")? == Some(true);
    let said = model.iter().find(|(name, _)| name == "activation_func").map(|(_, node)| node);
    let name = match said.map(|node| &**node) {
        // What torch's layers take.
        None | Some(Node::Scalar(Value::None)) => Some("gelu".to_owned()),
        Some(Node::Scalar(Value::Str(name))) => Some(name.to_string()),
        Some(node) => match node.get("_target_") {
            // A function, and not one with settings of its own.
            Some(Node::Scalar(Value::Str(path))) if node.has_only(&["_target_", "_call_", "_name_"]) => path.rsplit('.').next().map(ToOwned::to_owned),
            _ => None,
        },
    };
    let flag = match (name.as_deref(), gated) {
        (Some("silu" | "swish"), true) => Some("swiglu"),
        (Some("squared_relu"), false) => Some("squared_relu"),
        (Some("quick_gelu"), true) => Some("quick_geglu"),
        (Some("gelu"), false) => None,
        (name, gated) => {
            let name = name.unwrap_or("an object without a name");
            let found = format!("{name}{}", if gated { " of a gated layer" } else { "" });
            let expected = "one that arguments of Megatron-LM say: gated silu, gated quick_gelu, squared_relu, gelu";
            return Err(RunConfigError::Field { field: "activation_func", found, expected });
        }
    };
    for argument in ["swiglu", "squared_relu", "quick_geglu"] {
        fields.insert(argument.to_owned(), Value::Bool(flag == Some(argument)));
    }
    Ok(())
}

/// Whether heads share keys is an argument of its own.
fn groups(fields: &mut BTreeMap<String, Value>) {
    let number = |name: &str| fields.get(name).and_then(Value::as_int);
    let is_grouped = match (number("num_query_groups"), number("num_attention_heads")) {
        (Some(groups), Some(heads)) => groups != heads,
        _ => false,
    };
    fields.insert("group_query_attention".to_owned(), Value::Bool(is_grouped));
}

/// `vocab_size` of a model is that of its table, unless the table is to be padded.
fn vocabulary(root: &Node, fields: &mut BTreeMap<String, Value>) {
    let pads = fields.get("should_pad_vocab").is_some_and(Value::is_truthy);
    let of_tokenizer = root.get("tokenizer").and_then(|tokenizer| tokenizer.get("vocab_size"));
    if !pads && let Some(rows) = fields.remove("vocab_size") {
        fields.insert("padded_vocab_size".to_owned(), rows);
        if let Some(Node::Scalar(size @ Value::Int(_))) = of_tokenizer {
            fields.insert("vocab_size".to_owned(), size.clone());
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
