//! Family files: any text is a family or an error, and a family is asked about a model without harm.

use std::sync::Arc;

use crate::{bounded, text};
use ckpt_fs::family::Family;
use ckpt_fs::family::config::Config;
use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::Value;

/// Sizes as args of Megatron state them, so that a family of any kind finds those it names.
const ARGS: &[(&str, i64)] = &[
    ("num_layers", 4),
    ("hidden_size", 64),
    ("ffn_hidden_size", 128),
    ("num_attention_heads", 8),
    ("num_query_groups", 4),
    ("group_query_attention", 1),
    ("kv_channels", 8),
    ("padded_vocab_size", 256),
    ("vocab_size", 250),
    ("make_vocab_size_divisible_by", 128),
    ("num_experts", 4),
    ("moe_layer_freq", 1),
    ("moe_ffn_hidden_size", 32),
    ("tensor_model_parallel_size", 2),
    ("pipeline_model_parallel_size", 2),
    ("expert_model_parallel_size", 2),
    ("expert_tensor_parallel_size", 1),
    ("max_position_embeddings", 128),
    ("swiglu", 1),
    ("add_bias_linear", 0),
];

/// The same as a config of Hugging Face.
const CONFIG: &str = r#"{"num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 8, "vocab_size": 256, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
    "hidden_act": "silu", "rope_theta": 10000.0, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}"#;

/// Holds one input against what must be so.
pub fn run(input: &[u8]) {
    let text = text(input);
    // A built-in family that is extended is parsed too, whatever the length of the text that says so.
    bounded(text.len(), 1000, 16 << 20, || {
        let Ok(family) = Family::parse(text) else { return };
        let family = Arc::new(family);
        let args = ARGS.iter().map(|(field, number)| ((*field).to_owned(), Value::Int(*number))).collect();
        let args = Value::namespace(args);
        let _ = (family.model(&args, 3.0), family.suits(&args), family.config_of(&args, 250, Dtype::Float32));
        let config: Config = serde_json::from_str(CONFIG).expect("a config");
        let _ = family.args_of(&config);
    });
}
