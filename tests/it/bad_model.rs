//! Bad model directories, and conversions that cannot be: an error that names the key or the tensor, and what to do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::Array;
use crate::common::hf::{self, Arch};
use crate::common::naive::{Config, Cut, Kind, Moe};
use crate::common::source::Checkpoint;
use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::Value;
use serde_json::{Map, Value as Json, json};
use tempfile::TempDir;

const USAGE: i32 = 2;
const SOURCE: i32 = 3;
const UNSUPPORTED: i32 = 4;
const LAYOUT: i32 = 5;

/// A small model, which a test spoils before it is written.
struct Model {
    dir: TempDir,
    arch: Arch,
    config: Map<String, Json>,
    tensors: Vec<(String, Array)>,
    shards: usize,
}

fn small(arch: Arch) -> Config {
    let experts =
        arch.has_experts().then(|| Moe { experts: 4, ffn: 8, expert_bias: false, ..Moe::default() });
    Config { qk_norm: arch == Arch::Qwen3, qkv_bias: arch == Arch::Qwen2, moe: experts, ..Config::default() }
}

impl Model {
    fn of(arch: Arch) -> Self {
        let config = small(arch);
        let (dir, tensors) = (tempfile::tempdir().unwrap(), hf::tensors(arch, &config));
        Self { dir, arch, config: hf::config(arch, &config), tensors, shards: 1 }
    }

    fn sharded() -> Self {
        Self { shards: 3, ..Self::of(Arch::Llama) }
    }

    fn key(mut self, key: &str, value: Json) -> Self {
        self.config.insert(key.to_owned(), value);
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.config.remove(key);
        self
    }

    fn tensor(mut self, name: &str, change: impl FnOnce(&mut (String, Array))) -> Self {
        change(self.tensors.iter_mut().find(|(n, _)| n == name).unwrap());
        self
    }

    fn write(self) -> Written {
        let path = self.dir.path().join("model");
        hf::write(&path, &self.config, &self.tensors, self.shards);
        Written { _dir: self.dir, path }
    }

    #[track_caller]
    fn refused(self, code: i32, words: &[&str]) {
        self.write().refused(code, words);
    }
}

struct Written {
    _dir: TempDir,
    path: PathBuf,
}

impl Written {
    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    #[track_caller]
    fn refused(&self, code: i32, words: &[&str]) {
        let said = ckpt!("inspect", self.path).refused(code, words);
        // A model directory has no rank files, stages or args.
        for foreign in ["rank file", "args", "stage", "its rank"] {
            assert!(!said.err.contains(foreign), "{}", said.err);
        }
        let out = self.path.with_file_name("out");
        ckpt!("materialize", self.path, out, "--as", "megatron", "--tp", "2").refused(code, words);
        assert!(!out.exists());
    }

    fn index(&self, change: impl FnOnce(&mut Map<String, Json>)) {
        let file = self.file("model.safetensors.index.json");
        let mut index: Json = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(index["weight_map"].as_object_mut().unwrap());
        fs::write(file, index.to_string()).unwrap();
    }
}

#[test]
fn the_small_model_is_fine() {
    for arch in [Arch::Llama, Arch::Qwen2, Arch::Qwen3, Arch::Mixtral] {
        ckpt!("inspect", Model::of(arch).write().path).ok();
    }
    ckpt!("inspect", Model::sharded().write().path).ok();
}

#[test]
fn a_config_of_something_else() {
    Model::of(Arch::Llama).key("model_type", json!("gpt_neox")).refused(
        UNSUPPORTED,
        &["config.json", "model_type is \"gpt_neox\"", "llama", "qwen3_moe", "--hf-model-type", "--family"],
    );
    Model::of(Arch::Llama).without("model_type").refused(SOURCE, &["config.json", "does not say model_type"]);
    let odd = Model::of(Arch::Llama).key("model_type", json!("my_llama")).write();
    ckpt!("inspect", odd.path, "--hf-model-type", "llama").ok();
    ckpt!("inspect", odd.path, "--hf-model-type", "qwen2").refused(SOURCE, &["q_proj.bias"]);
    fs::write(odd.file("config.json"), "[]").unwrap();
    odd.refused(SOURCE, &["config.json", "not a JSON object"]);
    fs::remove_file(odd.file("config.json")).unwrap();
    odd.refused(SOURCE, &["no config.json", "--template DIR"]);
}

#[test]
fn a_config_that_lacks_or_mistakes_a_key() {
    let of = || Model::of(Arch::Llama);
    of().without("num_attention_heads")
        .refused(UNSUPPORTED, &["config.json", "does not say num_attention_heads"]);
    of().without("vocab_size").refused(SOURCE, &["config.json", "does not say vocab_size"]);
    of().key("num_hidden_layers", json!("four"))
        .refused(UNSUPPORTED, &["num_hidden_layers is \"four\"", "a whole number above 0"]);
    of().key("num_hidden_layers", json!(1u64 << 40)).refused(
        UNSUPPORTED,
        &["config.json", "does not say the number of layers (looked for: num_hidden_layers)"],
    );
    of().key("rope_scaling", json!("yes")).refused(UNSUPPORTED, &["rope_scaling is \"yes\"", "an object"]);
    of().key("rope_parameters", json!({ "rope_theta": 5.0 }))
        .refused(UNSUPPORTED, &["rope_parameters.rope_theta is 5", "rope_theta says 20000"]);
    of().key("tie_word_embeddings", json!(3))
        .refused(UNSUPPORTED, &["tie_word_embeddings is 3", "true or false"]);
    Model::of(Arch::Mixtral)
        .key("num_experts", json!(8))
        .refused(UNSUPPORTED, &["num_experts is 8", "num_local_experts says 4"]);
    of().key("quantization_config", json!({ "quant_method": "fp8" }))
        .refused(UNSUPPORTED, &["quantization_config", "its weights are quantized"]);
}

#[test]
fn a_config_that_contradicts_the_tensors() {
    let of = || Model::of(Arch::Llama);
    of().key("hidden_size", json!(8))
        .refused(SOURCE, &["model.safetensors", "hidden dimension is 6", "8 by config.json"]);
    of().key("num_attention_heads", json!(8))
        .refused(SOURCE, &["queries dimension is 8", "16 by config.json"]);
    of().key("num_key_value_heads", json!(4))
        .refused(SOURCE, &["k_proj", "keys dimension is 4", "8 by config.json"]);
    of().key("intermediate_size", json!(16)).refused(SOURCE, &["ffn dimension is 8", "16 by config.json"]);
    of().key("vocab_size", json!(12))
        .refused(SOURCE, &["config.json", "vocab_size is 12", "the embedding has 11 rows"]);
    for layers in [3, 5] {
        let words = format!("its files have 4 layers, but num_hidden_layers in config.json is {layers}");
        of().key("num_hidden_layers", json!(layers)).refused(SOURCE, &[&words]);
    }
    of().key("tie_word_embeddings", json!(false))
        .tensor("lm_head.weight", |t| t.0 = "head.weight".into())
        .refused(UNSUPPORTED, &["head.weight", "unknown to the family llama"]);
    of().key("model_type", json!("qwen3")).refused(SOURCE, &["q_norm.weight"]);
    Model::of(Arch::Mixtral).key("num_local_experts", json!(8)).refused(SOURCE, &["experts dimension is 4"]);
}

#[test]
fn files_that_are_missing_or_too_many() {
    let of = || Model::sharded().write();
    let model = of();
    fs::remove_file(model.file("shard-1.safetensors")).unwrap();
    model.refused(SOURCE, &["index.json", "not there: shard-1.safetensors"]);
    let model = of();
    fs::copy(model.file("shard-0.safetensors"), model.file("model.safetensors")).unwrap();
    model.refused(SOURCE, &["both model.safetensors and model.safetensors.index.json", "move it away"]);
    let model = of();
    fs::remove_file(model.file("model.safetensors.index.json")).unwrap();
    model.refused(SOURCE, &["neither model.safetensors nor"]);
    let model = of();
    for entry in fs::read_dir(&model.path).unwrap().map(|entry| entry.unwrap().path()) {
        if !entry.ends_with("config.json") {
            fs::remove_file(entry).unwrap();
        }
    }
    model.refused(SOURCE, &["it has a config, but neither model.safetensors nor"]);
}

#[test]
fn an_index_that_is_wrong() {
    let of = || Model::sharded().write();
    let norm = "model.norm.weight";
    let model = of();
    model.index(|map| map.insert(norm.into(), json!("shard-0.safetensors")).map_or((), |_| ()));
    model.refused(
        SOURCE,
        &["index.json", &format!("says that {norm} is in shard-0.safetensors, but it is in")],
    );
    let model = of();
    model.index(|map| map.remove(norm).map_or((), |_| ()));
    model.refused(SOURCE, &["index.json", &format!("does not name {norm}")]);
    let model = of();
    model.index(|map| map.insert("ghost".into(), json!("shard-0.safetensors")).map_or((), |_| ()));
    model.refused(SOURCE, &["ghost is in shard-0.safetensors, which does not have it"]);
    for path in ["../shard-0.safetensors", "/etc/passwd", ".hidden"] {
        let model = of();
        model.index(|map| map.insert(norm.into(), json!(path)).map_or((), |_| ()));
        model.refused(SOURCE, &["index.json", path, "not in this directory"]);
    }
    fs::write(model.file("model.safetensors.index.json"), "{}").unwrap();
    model.refused(SOURCE, &["index.json", "weight_map"]);
}

#[test]
fn tensors_that_are_damaged_or_missing() {
    let of = || Model::of(Arch::Llama);
    let mut lacking = of();
    lacking.tensors.retain(|(name, _)| name != "model.layers.2.mlp.up_proj.weight");
    lacking.refused(SOURCE, &["it has no model.layers.2.mlp.up_proj.weight, the like of which layer 0 has"]);
    let mut lacking = Model::of(Arch::Mixtral);
    let lost = "model.layers.2.block_sparse_moe.experts.3.w1.weight";
    lacking.tensors.retain(|(name, _)| name != lost);
    lacking.refused(SOURCE, &[&format!("it has no {lost}")]);
    let mut lacking = of();
    lacking.tensors.retain(|(name, _)| !name.starts_with("model.layers.1."));
    lacking.refused(SOURCE, &["its files have layer 3, but no layer 1"]);
    for lost in ["model.norm.weight", "model.embed_tokens.weight"] {
        let mut lacking = of();
        lacking.tensors.retain(|(name, _)| name != lost);
        let said =
            ckpt!("inspect", lacking.write().path).refused(SOURCE, &[&format!("model: it has no {lost}\n")]);
        assert!(!said.err.contains("config.json"), "{}", said.err);
    }
    let head = || {
        let mut lacking = of();
        lacking.tensors.retain(|(name, _)| name != "lm_head.weight");
        lacking
    };
    let words = |says: &str| {
        format!(
            "it has no lm_head.weight, which config.json asks for: tie_word_embeddings is {says}. If the head"
        )
    };
    head().key("tie_word_embeddings", json!(false)).refused(SOURCE, &[&words("false")]);
    head().without("tie_word_embeddings").refused(SOURCE, &[&words("not there")]);
    for (name, shape) in [("mlp.up_proj", vec![0]), ("mlp.up_proj", vec![0, 6]), ("input_layernorm", vec![0])]
    {
        let name = format!("model.layers.1.{name}.weight");
        let empty =
            of().tensor(&name, |t| t.1 = Array { shape: shape.clone(), bytes: Vec::new(), ..t.1.clone() });
        empty.refused(SOURCE, &[&name, "has no elements", "ZeRO-3"]);
    }
    let model = of().write();
    let bytes = fs::read(model.file("model.safetensors")).unwrap();
    fs::write(model.file("model.safetensors"), &bytes[..bytes.len() - 1]).unwrap();
    model.refused(SOURCE, &["model.safetensors", "cut short"]);
    fs::write(model.file("model.safetensors"), &bytes[..6]).unwrap();
    model.refused(SOURCE, &["model.safetensors", "cut short"]);
    fs::write(model.file("model.safetensors"), [&[0xff; 8], &bytes[8..]].concat()).unwrap();
    model.refused(SOURCE, &["model.safetensors", "no safetensors file"]);
}

/// What args cannot say does not keep a model from being shown in formats that need no args.
#[test]
fn what_megatron_cannot_say_is_refused_for_megatron_alone() {
    let yarn = json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32 });
    for (arch, key, value, words) in [
        (Arch::Llama, "rope_scaling", yarn, ["rope_scaling", "default, linear and llama3"]),
        (Arch::Llama, "hidden_act", json!("gelu"), ["hidden_act is \"gelu\"", "only \"silu\""]),
        (Arch::Qwen2, "use_sliding_window", json!(true), ["use_sliding_window is true", "only false"]),
        (
            Arch::Llama,
            "rope_scaling",
            json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 2.0 }),
            ["rope_scaling", "fixed in its code"],
        ),
    ] {
        let model = Model::of(arch).key(key, value.clone()).write();
        let out = model.path.with_file_name("out");
        ckpt!("materialize", model.path, out, "--as", "megatron").refused(UNSUPPORTED, &words);
        ckpt!("materialize", model.path, out, "--as", "hf").ok();
        let config: Json = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!(config[key], value, "passed through as it is");
        ckpt!("ls", model.path, "--as", "vllm", "--tp", "2").ok();
    }
}

/// A checkpoint of Megatron with a model of this architecture.
fn trained(arch: Arch, change: impl FnOnce(&mut Config)) -> (TempDir, Checkpoint) {
    let mut config = small(arch);
    config.kind = Kind::Core;
    change(&mut config);
    let mut checkpoint = Checkpoint::new(&config, &Cut::new(2, &[2, 2]));
    for (field, value) in hf::args(arch, &config) {
        checkpoint = checkpoint.arg(field, &value);
    }
    (tempfile::tempdir().unwrap(), checkpoint)
}

#[track_caller]
fn not_as_hf((dir, checkpoint): (TempDir, Checkpoint), more: &[&str], code: i32, words: &[&str]) {
    checkpoint.write(dir.path());
    let source = dir.path().to_str().unwrap();
    crate::common::run::program(&[&["ls", source, "--as", "hf"], more].concat()).refused(code, words);
}

#[test]
fn a_checkpoint_that_no_architecture_can_express() {
    let llama = |field: &str, value: Value| {
        let (dir, checkpoint) = trained(Arch::Llama, |_| {});
        (dir, checkpoint.arg(field, &value))
    };
    let words = |field: &'static str| {
        ["a Llama model cannot have args.", field, "; and no other architecture that is known fits"]
    };
    for (field, value) in [
        ("normalization", Value::str("LayerNorm")),
        ("position_embedding_type", Value::str("learned_absolute")),
        ("rotary_percent", Value::Float(0.5)),
        ("rotary_interleaved", Value::Bool(true)),
        ("layernorm_zero_centered_gamma", Value::Bool(true)),
        ("apply_residual_connection_post_layernorm", Value::Bool(true)),
        ("softmax_type", Value::str("learnable")),
        ("window_attn_skip_freq", Value::Int(2)),
    ] {
        not_as_hf(llama(field, value), &[], UNSUPPORTED, &words(field));
    }
    let (dir, checkpoint) = trained(Arch::Llama, |_| {});
    not_as_hf(
        (dir, checkpoint.without_arg("layernorm_epsilon")),
        &[],
        UNSUPPORTED,
        &["layernorm_epsilon", "rms_norm_eps"],
    );
    not_as_hf(
        llama("rotary_seq_len_interpolation_factor", Value::Int(2)),
        &["--hf-model-type", "qwen3"],
        UNSUPPORTED,
        &["Qwen3", "qk_layernorm", "; an architecture that fits is llama or mistral (--hf-model-type)"],
    );
    not_as_hf(
        llama("a", Value::None),
        &["--hf-model-type", "gpt2"],
        USAGE,
        &["--hf-model-type gpt2", "llama", "mixtral"],
    );
    not_as_hf(
        llama("a", Value::None),
        &["--tp", "2"],
        LAYOUT,
        &["hf files have no layout tp2", "--as megatron"],
    );
    // A bias of the router is no part of a Mixtral.
    let moe = trained(Arch::Mixtral, |config| config.moe.as_mut().unwrap().expert_bias = true);
    not_as_hf(moe, &[], UNSUPPORTED, &["no place for layers.0.mlp.router.expert_bias"]);
    let plain = trained(Arch::Llama, |config| config.gated = false);
    not_as_hf(plain, &[], UNSUPPORTED, &["swiglu"]);
    let legacy =
        Checkpoint::new(&Config { kind: Kind::Legacy, groups: 4, ..Config::default() }, &Cut::new(1, &[4]));
    not_as_hf((tempfile::tempdir().unwrap(), legacy), &[], UNSUPPORTED, &["cannot be shown as hf"]);
}

#[test]
fn a_template_of_another_model() {
    let (dir, checkpoint) = trained(Arch::Llama, |_| {});
    checkpoint.write(&dir.path().join("src"));
    let source = dir.path().join("src");
    let template = |name: &str, change: &dyn Fn(Model) -> Model| {
        let model = change(Model::of(Arch::Llama));
        let path = dir.path().join(name);
        hf::write(&path, &model.config, &[], 1);
        assert_eq!(model.arch, Arch::Llama);
        path
    };
    let refused = |path: &Path, words: &[&str]| {
        ckpt!("ls", source, "--as", "hf", "--template", path).refused(USAGE, words);
    };
    ckpt!("ls", source, "--as", "hf", "--template", template("same", &|model| model)).ok();
    refused(
        &template("eps", &|m| m.key("rms_norm_eps", json!(1e-5))),
        &["eps/config.json is of another model", "rms_norm_eps is 0.00001", "2e-6 by the checkpoint"],
    );
    refused(&template("theta", &|m| m.key("rope_theta", json!(1e6))), &["rope_theta is 1000000"]);
    refused(&template("layers", &|m| m.key("num_hidden_layers", json!(2))), &["num_hidden_layers is 2"]);
    refused(&template("yarn", &|m| m.key("rope_scaling", json!({ "rope_type": "yarn" }))), &["rope_scaling"]);
    // What changes nothing that a model computes is the template's, and so is all that args cannot say.
    let own =
        template("own", &|m| m.key("max_position_embeddings", json!(9)).key("eos_token_id", json!([1, 2])));
    fs::write(own.join("tokenizer.json"), "tokens").unwrap();
    let out = dir.path().join("out");
    ckpt!("materialize", source, out, "--as", "hf", "--template", own).ok();
    let config: Json = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["max_position_embeddings"], &config["eos_token_id"]), (&json!(9), &json!([1, 2])));
    assert_eq!(fs::read_to_string(out.join("tokenizer.json")).unwrap(), "tokens");
    // The rows of the tokenizer are known to the template where args do not say them.
    let (unsaid, checkpoint) = trained(Arch::Llama, |config| config.vocab_in_args = false);
    checkpoint.write(unsaid.path());
    let rows = |more: &[&Path]| {
        let out = tempfile::tempdir().unwrap();
        let flags = if more.is_empty() { vec![] } else { vec![Path::new("--template"), more[0]] };
        let to = out.path().join("x");
        let args =
            [&[Path::new("materialize"), unsaid.path(), &to, Path::new("--as"), Path::new("hf")], &flags[..]]
                .concat();
        crate::common::run::program(&args).ok();
        let config: Json =
            serde_json::from_slice(&fs::read(out.path().join("x/config.json")).unwrap()).unwrap();
        config["vocab_size"].as_u64().unwrap()
    };
    assert_eq!((rows(&[]), rows(&[&own])), (16, 11));
}

/// docs/internlm2.toml, the worked example of docs/families.md.
#[test]
fn an_architecture_of_a_file() {
    let config = small(Arch::Llama);
    let written = crate::common::naive::Written {
        unpadded: true,
        ..crate::common::naive::Written::new(&config, &Cut::new(1, &[4]))
    };
    // Its fused rows are Megatron's.
    let fused = written.whole_rank(&Cut::new(1, &[4]), (0, 0, 0));
    let qkv = |layer: &str| {
        fused
            .iter()
            .find(|(name, _)| *name == format!("decoder.layers.{layer}.self_attention.linear_qkv.weight"))
            .unwrap()
            .1
            .clone()
    };
    let renamed = hf::tensors(Arch::Llama, &config).into_iter().filter_map(|(name, array)| {
        let layer = name.split('.').nth(2).unwrap_or_default().to_owned();
        if name.ends_with("q_proj.weight") {
            return Some((format!("model.layers.{layer}.attention.wqkv.weight"), qkv(&layer)));
        }
        let pairs = [
            ("embed_tokens", "tok_embeddings"),
            ("self_attn.o_proj", "attention.wo"),
            ("mlp.gate_proj", "feed_forward.w1"),
            ("mlp.up_proj", "feed_forward.w3"),
            ("mlp.down_proj", "feed_forward.w2"),
            ("input_layernorm", "attention_norm"),
            ("post_attention_layernorm", "ffn_norm"),
            ("lm_head", "output"),
        ];
        let is_fused = name.contains("k_proj") || name.contains("v_proj");
        let renamed = pairs.iter().fold(name, |name, (from, to)| name.replace(from, to));
        (!is_fused).then_some((renamed, array))
    });
    let dir = tempfile::tempdir().unwrap();
    let (ours, llama) = (dir.path().join("internlm2"), dir.path().join("llama"));
    let mut internlm2 = hf::config(Arch::Llama, &config);
    internlm2.insert("model_type".into(), json!("internlm2"));
    hf::write(&ours, &internlm2, &renamed.collect::<Vec<_>>(), 2);
    hf::write(&llama, &hf::config(Arch::Llama, &config), &hf::tensors(Arch::Llama, &config), 1);
    let family = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/internlm2.toml");
    let megatron = dir.path().join("tp2pp2");
    ckpt!("materialize", ours, megatron, "--as", "megatron", "--family", family).ok();
    ckpt!("verify", megatron, llama).ok();
    let back = dir.path().join("back");
    ckpt!("materialize", megatron, back, "--as", "hf", "--hf-model-type", "internlm2", "--family", family)
        .ok();
    ckpt!("verify", back, ours, "--family", family).ok();
}

/// What has the right name and the wrong type would silently be a default on the other side.
#[test]
fn values_of_another_type() {
    let of = || Model::of(Arch::Llama);
    for (key, value) in [
        ("rms_norm_eps", json!("1e-5")),
        ("rms_norm_eps", json!(0.0)),
        ("rms_norm_eps", json!(true)),
        ("num_key_value_heads", json!(2.0)),
        ("num_attention_heads", json!(0)),
        ("rope_theta", json!(1e300)),
        ("vocab_size", json!(11.0)),
    ] {
        let code = if key == "vocab_size" { SOURCE } else { UNSUPPORTED };
        of().key(key, value.clone()).refused(code, &["config.json", &format!("{key} is {value}"), "above 0"]);
    }
    of().key("rope_scaling", json!({ "type": "linear", "factor": "4" }))
        .refused(UNSUPPORTED, &["rope_scaling.factor is \"4\""]);
    of().key("rope_scaling", json!({ "rope_type": 5, "factor": 4 }))
        .refused(UNSUPPORTED, &["rope_scaling.rope_type is 5"]);
    for (key, value) in [
        ("partial_rotary_factor", json!(0.5)),
        ("rope_scaling", json!({ "rope_type": null, "type": "linear", "factor": 2.5 })),
    ] {
        let model = of().key(key, value).write();
        ckpt!("ls", model.path, "--as", "megatron").refused(UNSUPPORTED, &[key]);
    }
    let linear =
        of().key("rope_scaling", json!({ "rope_type": null, "type": "linear", "factor": 4.0 })).write();
    let said = ckpt!("ls", linear.path, "--as", "megatron").ok().err;
    assert!(
        said.contains("--rotary-seq-len-interpolation-factor 4\n") || said.contains("-factor 4 "),
        "{said}"
    );
    // Null is as many as heads, absent is a number that transformers has.
    let null = Model::of(Arch::Qwen2).key("num_key_value_heads", Json::Null).write();
    ckpt!("inspect", null.path).refused(SOURCE, &["keys dimension is 4", "8 by config.json"]);
}

#[test]
fn args_of_another_type_or_meaning() {
    let with = |arch: Arch, field: &str, value: Value| {
        let (dir, checkpoint) = trained(arch, |_| {});
        (dir, checkpoint.arg(field, &value))
    };
    for (field, value) in [
        ("rotary_base", Value::str("500000")),
        ("layernorm_epsilon", Value::str("1e-5")),
        ("layernorm_epsilon", Value::Float(f64::NAN)),
        ("rotary_seq_len_interpolation_factor", Value::str("4")),
        ("max_position_embeddings", Value::Float(64.0)),
    ] {
        not_as_hf(
            with(Arch::Llama, field, value),
            &[],
            UNSUPPORTED,
            &[&format!("args.{field} is"), "above 0"],
        );
    }
    let list = Value::List([Value::str("aux_loss"), Value::str("sinkhorn")].into());
    for (field, value) in [
        ("moe_router_load_balancing_type", Value::str("sinkhorn")),
        ("moe_router_load_balancing_type", list),
        ("moe_router_force_load_balancing", Value::Bool(true)),
        ("moe_router_topk_scaling_factor", Value::Float(2.5)),
    ] {
        not_as_hf(with(Arch::Mixtral, field, value), &[], UNSUPPORTED, &[field]);
    }
    // The same, said in another way.
    for (arch, field, value) in [
        (Arch::Llama, "swiglu", Value::Int(1)),
        (Arch::Llama, "window_size", Value::Tuple([Value::Int(-1), Value::Int(-1)].into())),
        (Arch::Mixtral, "moe_layer_freq", Value::List(vec![Value::Int(1); 4].into())),
        (Arch::Mixtral, "moe_router_topk_scaling_factor", Value::Float(1.0)),
        (Arch::Mixtral, "moe_router_load_balancing_type", Value::str("seq_aux_loss")),
    ] {
        let (dir, checkpoint) = with(arch, field, value);
        checkpoint.write(dir.path());
        ckpt!("ls", dir.path(), "--as", "hf", "--hf-model-type", arch.model_type()).ok();
    }
    let (dir, checkpoint) = with(Arch::Llama, "use_rope_scaling", Value::Bool(true));
    checkpoint.arg("rope_scaling_factor", &Value::Float(32.0)).write(dir.path());
    let said = ckpt!("ls", dir.path(), "--as", "hf").ok().err;
    assert!(said.contains("pretrain_gpt.py does not look at --rope-scaling-factor"), "{said}");
}

/// What args cannot say is not lost on the way through another format, and not taken from a template of something else.
#[test]
fn a_config_that_args_cannot_say_stays_as_it_is() {
    let yarn = json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32 });
    let model = Model::of(Arch::Qwen2).key("rope_scaling", yarn.clone()).write();
    let out = model.path.with_file_name("out");
    ckpt!("materialize", model.path, out, "--as", "safetensors").refused(UNSUPPORTED, &["rope_scaling"]);
    let template = Model::of(Arch::Qwen2).write();
    ckpt!("materialize", model.path, out, "--as", "hf", "--template", template.path).ok();
    let config: Json = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["rope_scaling"], yarn);
    // A family that is known is not read as another.
    let mistral = Model::of(Arch::Mistral).write();
    ckpt!("inspect", mistral.path, "--hf-model-type", "llama")
        .refused(SOURCE, &["model_type is mistral", "leave --hf-model-type out"]);
}

/// Files of this tool say which rank they are, whatever they are called.
/// Each alone is right, so the model's own format has them as they are; in one tensor they would be read as one type.
#[test]
fn parameters_of_different_types_do_not_share_a_tensor() {
    let full = |tensor: &mut (String, Array)| {
        let bytes = tensor.1.bytes.chunks(2).flat_map(|half| [0, 0, half[0], half[1]]).collect();
        tensor.1 = Array { dtype: Dtype::Float32, bytes, ..tensor.1.clone() };
    };
    let half = |arch| Config { dtype: Dtype::Bfloat16, ..small(arch) };
    let model = |arch, name: &str| {
        let config = half(arch);
        let (dir, tensors) = (tempfile::tempdir().unwrap(), hf::tensors(arch, &config));
        Model { dir, arch, config: hf::config(arch, &config), tensors, shards: 1 }.tensor(name, full).write()
    };
    let llama = model(Arch::Llama, "model.layers.1.self_attn.k_proj.weight");
    let words = ["layers.1.attention.k.weight is float32", "what is bfloat16", "save both in one type"];
    for format in ["megatron", "vllm"] {
        let out = llama.path.with_file_name("out");
        ckpt!("materialize", llama.path, out, "--as", format).refused(UNSUPPORTED, &words);
        assert!(!out.exists());
    }
    let name = "model.layers.1.block_sparse_moe.experts.2.w1.weight";
    let mixtral = model(Arch::Mixtral, name);
    let words = ["experts.2.", "is float32", "what is bfloat16"];
    ckpt!("ls", mixtral.path, "--as", "vllm").refused(UNSUPPORTED, &words);
    for whole in [llama, mixtral] {
        let out = whole.path.with_file_name("same");
        ckpt!("materialize", whole.path, out, "--as", "hf").ok();
        ckpt!("verify", whole.path, out).ok();
    }
}

#[test]
fn rank_files_that_were_moved_or_mixed() {
    let model = Model::of(Arch::Llama).write();
    let made = |name: &str, tp: &str| {
        let path = model.path.with_file_name(name);
        ckpt!("materialize", model.path, path, "--as", "safetensors", "--tp", tp).ok();
        path
    };
    let swapped = made("swapped", "2");
    let (first, second) = (swapped.join("mp_rank_00.safetensors"), swapped.join("mp_rank_01.safetensors"));
    fs::rename(&first, swapped.join("x")).unwrap();
    fs::rename(&second, &first).unwrap();
    fs::rename(swapped.join("x"), &second).unwrap();
    ckpt!("inspect", swapped).refused(SOURCE, &["mp_rank_00.safetensors", "of rank tp 1 pp 0 ep 0"]);
    let mixed = made("mixed", "1");
    fs::rename(&first, mixed.join("mp_rank_01.safetensors")).unwrap();
    ckpt!("inspect", mixed).refused(SOURCE, &["layout \"tp1pp1\"", "layout \"tp2pp1\"", "leftovers"]);
    let foreign = made("foreign", "1");
    let plain = hf::file(&hf::tensors(Arch::Llama, &small(Arch::Llama)));
    fs::write(foreign.join("mp_rank_00.safetensors"), plain).unwrap();
    ckpt!("inspect", foreign).refused(SOURCE, &["metadata is not what ckpt-fs writes"]);
    let lacking = made("lacking", "2");
    fs::remove_file(lacking.join("mp_rank_01.safetensors")).unwrap();
    assert_ne!(ckpt!("inspect", lacking).code, 0);
}
