//! Configs and args against each other.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::family::{Families, Family};
use crate::layout::Format;

fn family(model_type: &str) -> Arc<Family> {
    Families::default().of_model_type(model_type).unwrap().clone()
}

fn config(json: Json) -> Config {
    json.as_object().unwrap().clone()
}

fn llama() -> Config {
    config(json!({
        "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 8, "num_key_value_heads": 4,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    }))
}

fn args(model_type: &str, config: &Config) -> Value {
    let found = family(model_type).args_of(config).unwrap();
    assert_eq!(found.inexpressible, []);
    Value::namespace(found.args)
}

/// What every architecture writes of args it reads back the same.
#[test]
fn there_and_back_is_the_identity() {
    for family in Families::default().of(Format::Hf) {
        let model_type = family.model_type().unwrap().to_owned();
        let mut said = llama();
        said.extend(config(json!({
            "num_local_experts": 8, "num_experts": 8, "num_experts_per_tok": 2, "mlp_only_layers": [1], "norm_topk_prob": true,
            "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48, "sliding_window": 7,
        })));
        if model_type == "llama" {
            said.remove("sliding_window");
        }
        if model_type == "yuan" {
            said = config(
                json!({ "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 8 }),
            );
        }
        let found = family.args_of(&said).unwrap();
        assert_eq!(found.inexpressible, [], "{model_type}");
        let written = family.config_of(&Value::namespace(found.args.clone()), 100, Dtype::Bfloat16).unwrap();
        let again = family.args_of(&written).unwrap();
        let text = |args: &[(String, Value)]| format!("{args:?}");
        assert_eq!(text(&again.args), text(&found.args), "{model_type}");
        assert_eq!(written["vocab_size"], 100);
        assert_eq!((&written["dtype"], &written["torch_dtype"]), (&json!("bfloat16"), &json!("bfloat16")));
    }
}

/// A list of layers is as long as the file, and the number of layers as large as is believed: looking through one for each of the other
/// takes hours.
#[test]
fn many_layers_without_experts_are_found_at_once() {
    let mut said = llama();
    said.extend(config(json!({
        "num_hidden_layers": 1_000_000, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "norm_topk_prob": true, "mlp_only_layers": (1..1_000_000).collect::<Vec<i64>>(),
    })));
    let args = args("qwen3_moe", &said);
    let flags = args.attribute("moe_layer_freq").and_then(Value::elements).unwrap();
    assert_eq!(flags.iter().filter(|flag| flag.is_truthy()).count(), 1);
}

#[test]
fn what_a_config_does_not_say_is_what_transformers_takes() {
    let mut least = llama();
    for key in ["num_key_value_heads", "rms_norm_eps", "rope_theta"] {
        least.remove(key);
    }
    let found = args("llama", &least);
    let number = |field: &str| found.attribute(field).and_then(Value::as_number).unwrap();
    assert_eq!(number("num_query_groups"), 8.0);
    assert_eq!(number("kv_channels"), 8.0);
    assert_eq!(number("layernorm_epsilon"), 1e-6);
    assert_eq!(number("rotary_base"), 10000.0);
    least.insert("head_dim".into(), Json::Null);
    assert_eq!(args("llama", &least).attribute("kv_channels").and_then(Value::as_int), Some(8));
    assert_eq!(args("qwen3", &llama()).attribute("kv_channels").and_then(Value::as_int), Some(128));
    assert!(
        matches!(args("mistral", &llama()).attribute("window_size"), Some(Value::Tuple(sides)) if sides[0].as_int() == Some(4095))
    );
    let mixtral = args("mixtral", &llama());
    assert_eq!(mixtral.attribute("layernorm_epsilon").and_then(Value::as_number), Some(1e-5));
    assert!(matches!(mixtral.attribute("window_size"), Some(Value::None)));
}

#[test]
fn rotary_embeddings_in_both_spellings() {
    let with = |more: Json| {
        let mut all = llama();
        all.extend(config(more));
        all
    };
    let block = json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192 });
    let mut new = block.clone();
    new["rope_theta"] = json!(500000.0);
    for said in
        [with(json!({ "rope_scaling": block })), with(json!({ "rope_parameters": new, "rope_theta": null }))]
    {
        let found = args("llama", &said);
        assert!(found.attribute("use_rope_scaling").is_some_and(Value::is_truthy));
        let written = family("llama").config_of(&found, 9, Dtype::Float32).unwrap();
        assert_eq!((&written["rope_scaling"], &written["rope_parameters"]), (&block, &new));
        assert_eq!(written["rope_theta"], 500000.0);
    }
    let linear = args("llama", &with(json!({ "rope_scaling": { "type": "linear", "factor": 4.0 } })));
    assert_eq!(linear.attribute("rotary_seq_len_interpolation_factor").and_then(Value::as_number), Some(4.0));
    let stretched_by_one =
        args("llama", &with(json!({ "rope_scaling": { "type": "linear", "factor": 1.0 } })));
    let factor = stretched_by_one.attribute("rotary_seq_len_interpolation_factor");
    assert!(matches!(factor, Some(Value::None)), "{factor:?}");
    let refused = |more: Json| family("llama").args_of(&with(more)).map(|found| found.inexpressible.len());
    assert_eq!(refused(json!({ "rope_scaling": { "rope_type": "yarn", "factor": 4.0 } })), Ok(1));
    assert_eq!(
        refused(json!({ "rope_parameters": { "rope_type": "default", "partial_rotary_factor": 0.5 } })),
        Ok(1)
    );
    assert_eq!(
        refused(json!({ "rope_parameters": { "full_attention": { "rope_type": "default" } } })),
        Ok(1)
    );
    assert!(
        refused(json!({ "rope_scaling": block, "rope_parameters": { "rope_type": "default" } })).is_err()
    );
}

#[test]
fn layers_with_experts_are_said_as_a_list() {
    let said = |more: Json| {
        let mut all = llama();
        all["num_hidden_layers"] = json!(4);
        all.extend(config(json!({ "num_experts": 8, "moe_intermediate_size": 8 })));
        all.extend(config(more));
        args("qwen3_moe", &all).attribute("moe_layer_freq").cloned().map(|value| text(&value))
    };
    assert_eq!(said(json!({})), Some("1".into()));
    // transformers counts from 1 here, Megatron's own number would count from 0.
    assert_eq!(said(json!({ "decoder_sparse_step": 2 })), Some("[0,1,0,1]".into()));
    assert_eq!(said(json!({ "mlp_only_layers": [0, 3] })), Some("[0,1,1,0]".into()));
}

#[test]
fn the_best_suited_architecture_is_found() {
    let best = |fields: &[(&str, Value)]| {
        let args = Value::namespace(
            fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        );
        let all = Families::default();
        let suited = all.of(Format::Hf).filter(|family| family.megatron() == Some("megatron-core"));
        let best = suited
            .filter_map(|family| Some((family.suits(&args)?, family.model_type()?.to_owned())))
            .max_by_key(|(n, _)| *n);
        best.unwrap().1
    };
    let yes = || Value::Bool(true);
    assert_eq!(best(&[]), "llama");
    assert_eq!(best(&[("window_size", Value::Tuple([Value::Int(1), Value::Int(0)].into()))]), "mistral");
    assert_eq!(best(&[("add_qkv_bias", yes())]), "qwen2");
    assert_eq!(best(&[("qk_layernorm", yes())]), "qwen3");
    assert_eq!(best(&[("num_experts", Value::Int(8))]), "mixtral");
    assert_eq!(best(&[("num_experts", Value::Int(8)), ("qk_layernorm", yes())]), "qwen3_moe");
    assert_eq!(
        best(&[("num_experts", Value::Int(8)), ("moe_shared_expert_gate", yes()), ("add_qkv_bias", yes())]),
        "qwen2_moe"
    );
}
