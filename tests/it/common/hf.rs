//! Hugging Face models and files of inference engines, written down a second time: names, configs and how ranks share tensors out.

use std::fs;
use std::path::Path;

use ckpt_fs::value::Value;
use safetensors::tensor::{Dtype as Stored, SafeTensors, TensorView, serialize};
use serde_json::{Map, Value as Json, json};

use super::Array;
use super::naive::{Config, Written};
use ckpt_fs::tensor::Dtype;

/// An architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Mixtral,
    Qwen2Moe,
    Qwen3Moe,
}

pub const ARCHS: [Arch; 7] =
    [Arch::Llama, Arch::Mistral, Arch::Qwen2, Arch::Qwen3, Arch::Mixtral, Arch::Qwen2Moe, Arch::Qwen3Moe];

impl Arch {
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Mixtral => "mixtral",
            Self::Qwen2Moe => "qwen2_moe",
            Self::Qwen3Moe => "qwen3_moe",
        }
    }

    pub fn has_experts(self) -> bool {
        matches!(self, Self::Mixtral | Self::Qwen2Moe | Self::Qwen3Moe)
    }

    /// In front of what a layer of experts has.
    fn moe_prefix(self) -> &'static str {
        if self == Self::Mixtral { "block_sparse_moe" } else { "mlp" }
    }
}

/// Every tensor of the model as its directory holds it, in no order that matters.
pub fn tensors(arch: Arch, c: &Config) -> Vec<(String, Array)> {
    let mut out: Vec<(String, Array)> = Vec::new();
    let table = |name: &str| c.whole(name, &[c.padded_at_source(), c.hidden]).rows(0, c.vocab);
    out.push(("model.embed_tokens.weight".into(), table("embedding")));
    for layer in 0..c.layers {
        let mut put =
            |name: &str, array: Array| out.push((format!("model.layers.{layer}.{name}.weight"), array));
        let matrix =
            |name: &str, rows: u64, columns: u64| c.whole(&format!("{layer}.{name}"), &[rows, columns]);
        let vector = |name: &str, size: u64| c.whole(&format!("{layer}.{name}"), &[size]);
        put("self_attn.q_proj", matrix("q.weight", c.heads * c.head, c.hidden));
        put("self_attn.k_proj", matrix("k.weight", c.groups * c.head, c.hidden));
        put("self_attn.v_proj", matrix("v.weight", c.groups * c.head, c.hidden));
        put("self_attn.o_proj", matrix("proj", c.hidden, c.heads * c.head));
        put("input_layernorm", vector("norm1.weight", c.hidden));
        put("post_attention_layernorm", vector("norm2.weight", c.hidden));
        if c.qk_norm {
            put("self_attn.q_norm", vector("q_norm.weight", c.head));
            put("self_attn.k_norm", vector("k_norm.weight", c.head));
        }
        let prefix = arch.moe_prefix();
        match c.moe.filter(|moe| layer.is_multiple_of(moe.every)) {
            None => {
                put("mlp.gate_proj", matrix("gate.weight", c.ffn, c.hidden));
                put("mlp.up_proj", matrix("up.weight", c.ffn, c.hidden));
                put("mlp.down_proj", matrix("fc2", c.hidden, c.ffn));
            }
            Some(moe) => {
                put(&format!("{prefix}.gate"), matrix("router", moe.experts, c.hidden));
                let names = if arch == Arch::Mixtral {
                    ["w1", "w3", "w2"]
                } else {
                    ["gate_proj", "up_proj", "down_proj"]
                };
                for expert in 0..moe.experts {
                    let module = |name: &str| format!("{prefix}.experts.{expert}.{name}");
                    put(&module(names[0]), matrix(&format!("expert{expert}.gate.weight"), moe.ffn, c.hidden));
                    put(&module(names[1]), matrix(&format!("expert{expert}.up.weight"), moe.ffn, c.hidden));
                    put(&module(names[2]), matrix(&format!("expert{expert}.fc2"), c.hidden, moe.ffn));
                }
                if let Some(ffn) = moe.shared {
                    put("mlp.shared_expert.gate_proj", matrix("shared.gate.weight", ffn, c.hidden));
                    put("mlp.shared_expert.up_proj", matrix("shared.up.weight", ffn, c.hidden));
                    put("mlp.shared_expert.down_proj", matrix("shared.fc2", c.hidden, ffn));
                    put("mlp.shared_expert_gate", matrix("shared.share", 1, c.hidden));
                }
            }
        }
        if c.qkv_bias {
            for (name, rows) in [("q", c.heads), ("k", c.groups), ("v", c.groups)] {
                let bias = vector(&format!("{name}.bias"), rows * c.head);
                out.push((format!("model.layers.{layer}.self_attn.{name}_proj.bias"), bias));
            }
        }
    }
    out.push(("model.norm.weight".into(), c.whole("final.weight", &[c.hidden])));
    if !c.tied {
        out.push(("lm_head.weight".into(), table("output")));
    }
    out
}

/// Its `config.json`, with the least that both versions of transformers need.
pub fn config(arch: Arch, c: &Config) -> Map<String, Json> {
    let mut config = json!({
        "model_type": arch.model_type(),
        "hidden_size": c.hidden,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.groups,
        "head_dim": c.head,
        "intermediate_size": c.ffn,
        "vocab_size": c.vocab,
        "rms_norm_eps": 2e-6,
        "tie_word_embeddings": c.tied,
        "max_position_embeddings": 64,
        "hidden_act": "silu",
        "rope_theta": 20000.0,
    });
    if let Some(moe) = c.moe {
        let dense: Vec<u32> = (0..c.layers).filter(|layer| !layer.is_multiple_of(moe.every)).collect();
        let more = if arch == Arch::Mixtral {
            json!({ "intermediate_size": moe.ffn, "num_local_experts": moe.experts, "num_experts_per_tok": 2, "sliding_window": null })
        } else {
            json!({
                "moe_intermediate_size": moe.ffn, "num_experts": moe.experts, "num_experts_per_tok": 2,
                "norm_topk_prob": true, "mlp_only_layers": dense,
            })
        };
        if let Some(ffn) = moe.shared {
            config["shared_expert_intermediate_size"] = json!(ffn);
        }
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }
    if arch == Arch::Mistral {
        config["sliding_window"] = json!(32);
    }
    config.as_object().unwrap().clone()
}

/// Fields of args that a run of Megatron with this model has beside those that every test has.
pub fn args(arch: Arch, c: &Config) -> Vec<(&'static str, Value)> {
    let int = |n: u64| Value::Int(n as i64);
    let mut args = vec![
        ("kv_channels", int(c.head)),
        ("layernorm_epsilon", Value::Float(2e-6)),
        ("normalization", Value::str("RMSNorm")),
        ("position_embedding_type", Value::str("rope")),
        ("rotary_base", Value::Int(20000)),
        ("max_position_embeddings", Value::Int(64)),
        ("add_bias_linear", Value::Bool(false)),
        ("add_qkv_bias", Value::Bool(c.qkv_bias)),
        ("qk_layernorm", Value::Bool(c.qk_norm)),
    ];
    if arch == Arch::Mistral {
        args.push(("window_size", Value::Tuple([Value::Int(31), Value::Int(0)].into())));
    }
    if let Some(moe) = c.moe {
        args.push(("moe_router_topk", Value::Int(2)));
        args.push(("moe_router_pre_softmax", Value::Bool(false)));
        args.push(("moe_shared_expert_gate", Value::Bool(moe.shared_gate)));
        args.push(("moe_shared_expert_intermediate_size", moe.shared.map_or(Value::None, int)));
    }
    args
}

/// What a process of vLLM loads at this tensor-parallel size, all of the model on one stage (names of version 0.33).
pub fn vllm(arch: Arch, written: &Written, tp: u64, rank: u64) -> Vec<(String, Array)> {
    let c = &written.config;
    let whole = tensors(arch, c);
    let get = |name: &str| whole.iter().find(|(n, _)| n == name).map(|(_, array)| array.clone());
    let table = |name: &str| get(name).map(|table| padded(&table, 64).row_part(tp, rank));
    let mut out = Vec::new();
    // Key and value heads that are fewer than the ranks are copied.
    let share = |array: Array| {
        let ways = tp.min(c.groups);
        array.row_part(ways, rank / (tp / ways))
    };
    for layer in 0..c.layers {
        let name = |name: &str| format!("model.layers.{layer}.{name}");
        let of = |n: &str| get(&name(n)).unwrap();
        for what in if c.qkv_bias { &["weight", "bias"][..] } else { &["weight"] } {
            let part = |p: &str| of(&format!("self_attn.{p}_proj.{what}"));
            let qkv = Array::join(&[part("q").row_part(tp, rank), share(part("k")), share(part("v"))]);
            out.push((name(&format!("self_attn.qkv_proj.{what}")), qkv));
        }
        out.push((name("self_attn.o_proj.weight"), of("self_attn.o_proj.weight").column_part(tp, rank)));
        for scale in ["k", "v", "q", "prob"] {
            let one = Array { dtype: Dtype::Float32, shape: vec![], bytes: 1f32.to_le_bytes().to_vec() };
            out.push((name(&format!("self_attn.attn._{scale}_scale")), one));
        }
        let norms = ["input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"];
        for norm in norms.map(|norm| format!("{norm}.weight")) {
            out.extend(get(&name(&norm)).map(|array| (name(&norm), array)));
        }
        let prefix = arch.moe_prefix();
        let Some(moe) = c.moe.filter(|moe| layer.is_multiple_of(moe.every)) else {
            let gated = [of("mlp.gate_proj.weight"), of("mlp.up_proj.weight")].map(|a| a.row_part(tp, rank));
            out.push((name("mlp.gate_up_proj.weight"), Array::join(&gated)));
            out.push((name("mlp.down_proj.weight"), of("mlp.down_proj.weight").column_part(tp, rank)));
            continue;
        };
        let router =
            if arch == Arch::Qwen3Moe { "mlp.experts.gate.weight" } else { &format!("{prefix}.gate.weight") };
        out.push((name(router), of(&format!("{prefix}.gate.weight"))));
        let names =
            if arch == Arch::Mixtral { ["w1", "w3", "w2"] } else { ["gate_proj", "up_proj", "down_proj"] };
        let expert = |e: u64, n: &str| of(&format!("{prefix}.experts.{e}.{n}.weight"));
        let w13: Vec<Array> = (0..moe.experts)
            .flat_map(|e| [expert(e, names[0]).row_part(tp, rank), expert(e, names[1]).row_part(tp, rank)])
            .collect();
        let w2: Vec<Array> = (0..moe.experts).map(|e| expert(e, names[2]).column_part(tp, rank)).collect();
        let stacked = |arrays: &[Array], rows: u64| {
            let mut all = Array::join(arrays);
            all.shape = vec![moe.experts, rows, all.shape[1]];
            all
        };
        if moe.shared.is_some() {
            let shared = |n: &str| of(&format!("mlp.shared_expert.{n}_proj.weight"));
            let module = |n: &str| name(&format!("mlp.experts._shared_experts._layer.{n}.weight"));
            let gated = [shared("gate").row_part(tp, rank), shared("up").row_part(tp, rank)];
            out.push((module("gate_up_proj"), Array::join(&gated)));
            out.push((module("down_proj"), shared("down").column_part(tp, rank)));
            out.push((module("expert_gate"), of("mlp.shared_expert_gate.weight")));
        }
        out.push((
            name(&format!("{prefix}.experts.routed_experts.w13_weight")),
            stacked(&w13, 2 * moe.ffn / tp),
        ));
        out.push((name(&format!("{prefix}.experts.routed_experts.w2_weight")), stacked(&w2, c.hidden)));
    }
    out.push(("model.norm.weight".into(), get("model.norm.weight").unwrap()));
    if c.tied {
        out.push(("lm_head.weight".into(), table("model.embed_tokens.weight").unwrap()));
    } else {
        out.push(("model.embed_tokens.weight".into(), table("model.embed_tokens.weight").unwrap()));
        out.push(("lm_head.weight".into(), table("lm_head.weight").unwrap()));
    }
    out
}

/// The same for SGLang, whose modules hold the same under their own names, and no scales.
pub fn sglang(arch: Arch, written: &Written, tp: u64, rank: u64) -> Vec<(String, Array)> {
    let own = [
        ("experts._shared_experts._layer.expert_gate", "shared_expert_gate"),
        ("experts._shared_experts._layer", "shared_expert"),
        ("mlp.experts.gate", "mlp.gate"),
        ("routed_experts.", ""),
    ];
    let renamed =
        |name: &str| own.iter().fold(name.to_owned(), |name, (theirs, ours)| name.replace(theirs, ours));
    let all = vllm(arch, written, tp, rank).into_iter();
    all.filter(|(name, _)| !name.ends_with("_scale")).map(|(name, array)| (renamed(&name), array)).collect()
}

/// With rows of zeros up to a multiple.
fn padded(table: &Array, multiple: u64) -> Array {
    let rows = table.shape[0].next_multiple_of(multiple);
    let mut all = table.clone();
    all.bytes.resize(table.bytes.len() / table.shape[0] as usize * rows as usize, 0);
    all.shape[0] = rows;
    all
}

fn stored(dtype: Dtype) -> Stored {
    match dtype {
        Dtype::Bfloat16 => Stored::BF16,
        Dtype::Float16 => Stored::F16,
        Dtype::Float32 => Stored::F32,
        Dtype::Float64 => Stored::F64,
        other => panic!("{other}"),
    }
}

/// A file by the safetensors library.
pub fn file(tensors: &[(String, Array)]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, array)| {
        let shape = array.shape.iter().map(|size| *size as usize).collect();
        (name.clone(), TensorView::new(stored(array.dtype), shape, &array.bytes).unwrap())
    });
    serialize(views, Some([("format".to_owned(), "pt".to_owned())].into())).unwrap()
}

/// A file read by the safetensors library, by name.
pub fn read(bytes: &[u8]) -> Vec<(String, Array)> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let mut all: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let dtype = [Dtype::Bfloat16, Dtype::Float16, Dtype::Float32, Dtype::Float64];
            let dtype = dtype.into_iter().find(|dtype| stored(*dtype) == view.dtype()).unwrap();
            let shape = view.shape().iter().map(|size| *size as u64).collect();
            (name, Array { dtype, shape, bytes: view.data().to_vec() })
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Sorted by name, as [`read`] gives them.
pub fn sorted(mut tensors: Vec<(String, Array)>) -> Vec<(String, Array)> {
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

/// Writes a model into `root`, in so many files.
pub fn write(root: &Path, config: &Map<String, Json>, tensors: &[(String, Array)], shards: usize) {
    fs::create_dir_all(root).unwrap();
    fs::write(root.join("config.json"), serde_json::to_vec(config).unwrap()).unwrap();
    if shards == 1 {
        return fs::write(root.join("model.safetensors"), file(tensors)).unwrap();
    }
    let mut map = Map::new();
    for (number, part) in tensors.chunks(tensors.len().div_ceil(shards)).enumerate() {
        let name = format!("shard-{number}.safetensors");
        fs::write(root.join(&name), file(part)).unwrap();
        map.extend(part.iter().map(|(tensor, _)| (tensor.clone(), json!(name))));
    }
    let index = json!({ "metadata": { "total_size": 0 }, "weight_map": map });
    fs::write(root.join("model.safetensors.index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}
