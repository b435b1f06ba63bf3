//! Latent attention: a model of another format as rank files of Megatron and back, in both spellings, against the naive answer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::hf::{self, Arch};
use crate::common::naive::{Config, Cut, Kind, Mla, Written};
use crate::common::run::Said;
use crate::common::source::{Checkpoint, ITERATION};
use crate::common::{Array, read_pt_file};
use ckpt_fs::value::Value;
use serde_json::json;

/// A dense architecture with latent attention, under DeepSeek's names.
const FAMILY: &str = r#"
name = "latent"
title = "Latent"
extends = "llama"
own_tensors = true

[config]
model_type = "latent"
architectures = ["LatentForCausalLM"]

[config.keys]
q_lora_rank = { arg = "q_lora_rank", optional = true }
kv_lora_rank = { arg = "kv_lora_rank" }
qk_nope_head_dim = { arg = "qk_head_dim" }
qk_rope_head_dim = { arg = "qk_pos_emb_head_dim" }
v_head_dim = { arg = "v_head_dim" }

[config.args]
multi_latent_attention = { is = true }
qk_layernorm = { is = true }

[stated]
queries = ["num_attention_heads", "v_head_dim"]
"#;

/// Its tensors and the parameters that they hold; `L` stands for a layer.
const NAMES: [(&str, &str); 15] = [
    ("input_layernorm", "attention_norm"),
    ("self_attn.q_proj", "attention.latent.q"),
    ("self_attn.q_a_proj", "attention.latent.q_down"),
    ("self_attn.q_a_layernorm", "attention.latent.q_norm"),
    ("self_attn.q_b_proj", "attention.latent.q_up"),
    ("self_attn.kv_a_proj_with_mqa", "attention.latent.kv_down"),
    ("self_attn.kv_a_layernorm", "attention.latent.kv_norm"),
    ("self_attn.kv_b_proj", "attention.latent.kv_up"),
    ("self_attn.o_proj", "attention.output"),
    ("post_attention_layernorm", "mlp_norm"),
    ("mlp.gate_proj", "mlp.gate"),
    ("mlp.up_proj", "mlp.up"),
    ("mlp.down_proj", "mlp.down"),
    ("model.norm", "final_norm"),
    ("lm_head", "output"),
];

fn family(dir: &Path) -> PathBuf {
    let mut text = FAMILY.to_owned();
    let mut tensor = |name: &str, holds: &str, more: &str| {
        text += &format!("[[tensor]]\nname = \"{name}.weight\"\nholds = [\"{holds}.weight\"]\n{more}\n");
    };
    tensor("model.embed_tokens", "embedding", "stage = \"first\"");
    for (name, param) in NAMES {
        if name.starts_with("model.") || name == "lm_head" {
            tensor(name, param, "stage = \"last\"");
        } else {
            tensor(&format!("model.layers.{{layer}}.{name}"), &format!("layers.{{layer}}.{param}"), "");
        }
    }
    let path = dir.join("latent.toml");
    fs::write(&path, text).unwrap();
    path
}

/// The model's directory, written down by hand.
fn tensors(c: &Config, mla: Mla) -> Vec<(String, Array)> {
    let mut all = hf::tensors(Arch::Llama, c);
    all.retain(|(name, _)| !name.contains("self_attn."));
    for layer in 0..c.layers {
        let mut put = |name: &str, part: &str, shape: &[u64]| {
            let array = c.whole(&format!("{layer}.{part}"), shape);
            all.push((format!("model.layers.{layer}.self_attn.{name}.weight"), array));
        };
        let queries = c.heads * (c.head + mla.position);
        match mla.q_rank {
            None => put("q_proj", "mla.q", &[queries, c.hidden]),
            Some(rank) => {
                put("q_a_proj", "mla.q_down", &[rank, c.hidden]);
                put("q_a_layernorm", "mla.q_norm", &[rank]);
                put("q_b_proj", "mla.q_up", &[queries, rank]);
            }
        }
        put("kv_a_proj_with_mqa", "mla.kv_down", &[mla.kv_rank + mla.position, c.hidden]);
        put("kv_a_layernorm", "mla.kv_norm", &[mla.kv_rank]);
        put("kv_b_proj", "mla.kv_up", &[c.heads * (c.head + mla.value), mla.kv_rank]);
        put("o_proj", "proj", &[c.hidden, c.heads * mla.value]);
    }
    all
}

fn write_model(root: &Path, c: &Config, mla: Mla) {
    let mut said = hf::config(Arch::Llama, c);
    let own = json!({
        "model_type": "latent", "architectures": ["LatentForCausalLM"], "q_lora_rank": mla.q_rank, "kv_lora_rank": mla.kv_rank,
        "qk_nope_head_dim": c.head, "qk_rope_head_dim": mla.position, "v_head_dim": mla.value,
    });
    said.extend(own.as_object().unwrap().clone());
    hf::write(root, &said, &tensors(c, mla), 1);
}

fn model(te: bool, q_rank: Option<u64>) -> (Config, Mla) {
    let mla = Mla { q_rank, kv_rank: 6, position: 2, value: 3, te };
    let kind = if te { Kind::CoreTe } else { Kind::Core };
    let config = Config { kind, mla: Some(mla), head: 4, groups: 4, multiple: 128, ..Config::default() };
    (config, mla)
}

/// The rank files below `root`/`iteration` hold what naive ones do, whatever their order.
fn check(root: &Path, iteration: &str, written: &Written, cut: &Cut, what: &str) {
    for (tp, pp) in cut.ranks() {
        let file = root.join(iteration).join(cut.rank_dir(tp, pp)).join("model_optim_rng.pt");
        let (found, wanted) =
            (hf::sorted(read_pt_file(&file).tensors), hf::sorted(written.rank(cut, tp, pp)));
        let names = |list: &[(String, Array)]| {
            list.iter().map(|(name, array)| format!("{name} {:?}", array.shape)).collect::<Vec<_>>()
        };
        assert_eq!(names(&found), names(&wanted), "{what}: {}", file.display());
        assert!(found == wanted, "{what}: {}", file.display());
    }
}

fn layout(cut: &Cut) -> [String; 4] {
    ["--tp".into(), cut.tp.to_string(), "--pp".into(), cut.pp().to_string()]
}

fn materialize(from: &Path, to: &Path, family: &Path, cut: &Cut, more: &[&str]) -> Said {
    let mut words = vec!["materialize".to_owned(), from.display().to_string(), to.display().to_string()];
    words.extend(["--family".to_owned(), family.display().to_string()]);
    words.extend(layout(cut));
    words.extend(more.iter().map(|word| (*word).to_owned()));
    crate::common::run::program(&words)
}

// matrix: naive: megatron-core/latent: hf -> megatron
// matrix: naive: megatron-core/latent: megatron -> megatron hf
#[test]
fn a_model_with_latent_attention_as_rank_files_and_back() {
    let cuts = [Cut::new(1, &[4]), Cut::new(2, &[2, 2]), Cut::new(4, &[4])];
    for (te, q_rank) in [(true, Some(8)), (true, None), (false, Some(8)), (false, None)] {
        let (config, mla) = model(te, q_rank);
        let dir = tempfile::tempdir().unwrap();
        let family = family(dir.path());
        let source = dir.path().join("model");
        write_model(&source, &config, mla);
        let written = Written { unpadded: true, ..Written::new(&config, &cuts[0]) };
        let spec = if te { "te" } else { "local" };
        for cut in &cuts {
            let what = format!("te {te} q_rank {q_rank:?} tp {}", cut.tp);
            let at = |name: &str| dir.path().join(format!("{name}{}", cut.tp));
            materialize(
                &source,
                &at("megatron"),
                &family,
                cut,
                &["--as", "megatron", "--megatron-spec", spec],
            )
            .ok();
            check(&at("megatron"), "release", &written, cut, &what);
            // Its args say what ranks hold, also where there is only one: it can be cut again.
            let other = &cuts[if cut.tp == 2 { 2 } else { 1 }];
            materialize(&at("megatron"), &at("recut"), &family, other, &[]).ok();
            check(&at("recut"), "release", &written, other, &format!("{what}, then tp {}", other.tp));
            materialize(
                &at("recut"),
                &at("back"),
                &family,
                &cuts[0],
                &["--as", "hf", "--hf-model-type", "latent"],
            )
            .ok();
            let back = hf::read(&fs::read(at("back").join("model.safetensors")).unwrap());
            assert!(back == hf::sorted(tensors(&config, mla)), "{what}: back");
        }
    }
}

// matrix: naive: megatron-core/latent: safetensors -> megatron
/// What training wrote, in files of this tool, is what training wrote.
#[test]
fn ranks_of_a_run_in_files_of_this_tool_are_a_source() {
    for (te, q_rank) in [(true, Some(8)), (false, Some(8)), (true, None)] {
        let (config, _) = model(te, q_rank);
        let (source, target) = (Cut::new(2, &[2, 2]), Cut::new(4, &[4]));
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let family = family(dir.path());
        let said = Value::str(if te { "transformer_engine" } else { "local" });
        let checkpoint = Checkpoint::new(&config, &source).arg("transformer_impl", &said);
        checkpoint.arg("mla_down_proj_fusion", &Value::Bool(false)).write(&path("run"));
        for cut in [&source, &Cut::new(1, &[4])] {
            let ranks = path(&format!("ranks{}", cut.tp));
            materialize(&path("run"), &ranks, &family, cut, &["--as", "safetensors"]).ok();
            let out = path(&format!("tp4of{}", cut.tp));
            materialize(&ranks, &out, &family, &target, &["--as", "megatron"]).ok();
            // Rows of padding that do not fit at TP 1 are zeros afterwards.
            let written = Written { unpadded: cut.tp == 1, ..Written::new(&config, &source) };
            if cut.tp == 2 {
                check(&out, ITERATION, &written, &target, &format!("te {te}"));
            }
            ckpt!("verify", path("run"), out).ok();
        }
    }
}

/// The layers that predict further tokens have the norm under the same name.
#[test]
fn predictions_of_a_model_with_latent_attention() {
    let (config, _) = model(true, Some(8));
    let config = Config { predictions: 1, hidden: 8, ..config };
    let (source, target) = (Cut::new(2, &[2, 2]), Cut::new(4, &[4]));
    let dir = tempfile::tempdir().unwrap();
    let family = family(dir.path());
    Checkpoint::new(&config, &source).write(&dir.path().join("run"));
    let out = dir.path().join("tp4");
    materialize(&dir.path().join("run"), &out, &family, &target, &[]).ok();
    check(&out, ITERATION, &Written::new(&config, &source), &target, "predictions");
    let rank = read_pt_file(&out.join(ITERATION).join("mp_rank_03").join("model_optim_rng.pt"));
    let norm = "mtp.layers.0.transformer_layer.input_layernorm.weight";
    assert!(rank.tensors.iter().any(|(name, _)| name == norm));
}

#[test]
fn down_projections_in_one_tensor_are_refused() {
    let (config, _) = model(true, Some(8));
    let dir = tempfile::tempdir().unwrap();
    let checkpoint =
        Checkpoint::new(&config, &Cut::new(1, &[4])).arg("mla_down_proj_fusion", &Value::Bool(true));
    checkpoint.write(dir.path());
    ckpt!("inspect", dir.path()).refused(4, &["mla_down_proj_fusion is True", "linear_qkv_down_proj"]);
}
