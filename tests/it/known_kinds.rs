//! Models that are known and not resharded: each is refused with exit code 4 and what it is, never as damaged, never with advice that leads
//! nowhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use crate::common::Array;
use crate::common::hf::{self, Arch};
use crate::common::naive::{Config, Cut, Moe};
use crate::common::source::Checkpoint;
use serde_json::json;

const UNSUPPORTED: i32 = 4;

#[track_caller]
fn refused(checkpoint: &Checkpoint, words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    checkpoint.write(dir.path());
    refused_at(dir.path(), words);
}

#[track_caller]
fn refused_at(root: &Path, words: &[&str]) {
    let said = ckpt!("inspect", root).refused(UNSUPPORTED, words);
    assert!(!said.err.contains("family file"), "{}", said.err);
}

fn array(c: &Config, name: &str, shape: &[u64]) -> Array {
    c.whole(name, shape)
}

/// Critics have one row where a language model has its vocabulary, and every tensor rank has all of it.
#[test]
fn value_heads_of_a_run() {
    for tied in [false, true] {
        for (tp, stages, rows) in
            [(1, &[4][..], 1), (2, &[4][..], 1), (2, &[2, 2][..], 1), (2, &[2, 2][..], 2)]
        {
            let config = Config { vocab: 64, tied, ..Config::default() };
            let mut checkpoint = Checkpoint::new(&config, &Cut::new(tp, stages));
            let last = format!("_{:03}", stages.len() - 1);
            for file in &mut checkpoint.files {
                file.tensors.retain(|(path, _)| path != "output_layer.weight");
                if stages.len() == 1 || file.dir.ends_with(&last) {
                    file.tensors
                        .push(("output_layer.weight".into(), array(&config, "head", &[rows, config.hidden])));
                    file.tensors.push(("output_layer.bias".into(), array(&config, "head bias", &[rows])));
                }
            }
            let of = if rows == 1 { "a head of one row" } else { "a head of 2 rows" };
            refused(
                &checkpoint,
                &["tensor output_layer.", of, "64 rows of the vocabulary", "value or reward model"],
            );
        }
    }
}

/// An output layer that is merely too small is damage, as before.
#[test]
fn an_output_layer_of_half_the_rows_is_no_value_head() {
    let mut checkpoint = Checkpoint::small_as(1, &[4]);
    checkpoint.file("mp_rank_00").tensor("output_layer.weight").1 =
        array(&Config::default(), "half", &[6, 6]);
    let dir = tempfile::tempdir().unwrap();
    checkpoint.write(dir.path());
    ckpt!("inspect", dir.path()).refused(3, &["output_layer.weight", "vocabulary dimension is 6"]);
}

#[test]
fn heads_of_hugging_face_models() {
    let config = Config::default();
    let mut said = hf::config(Arch::Llama, &config);
    let all = hf::tensors(Arch::Llama, &config);
    for (class, name) in [
        ("LlamaForSequenceClassification", "score.weight"),
        ("LlamaForCausalLMWithValueHead", "v_head.summary.weight"),
    ] {
        said.insert("architectures".into(), json!([class]));
        let mut tensors = all.clone();
        tensors.retain(|(name, _)| name != "lm_head.weight");
        tensors.push((name.into(), array(&config, "score", &[1, config.hidden])));
        let dir = tempfile::tempdir().unwrap();
        hf::write(dir.path(), &said, &tensors, 2);
        refused_at(dir.path(), &[name, "head of a value or reward model or of a classifier"]);
    }
    // Saved by LlamaModel: no head, and nothing in front of its names.
    let bare = all.iter().filter(|(name, _)| name != "lm_head.weight");
    let bare: Vec<_> = bare.map(|(name, array)| (name.replacen("model.", "", 1), array.clone())).collect();
    let dir = tempfile::tempdir().unwrap();
    hf::write(dir.path(), &said, &bare, 1);
    ckpt!("inspect", dir.path()).refused(UNSUPPORTED, &["without the head of a language model", "--family"]);
}

/// Its storage is transposed, expert by expert: no family file can say so.
#[test]
fn legacy_grouped_experts() {
    let moe = Moe { experts: 4, ffn: 8, ..Moe::default() };
    let config = Config { moe: Some(moe), ..Config::default() };
    let mut checkpoint = Checkpoint::new(&config, &Cut::new(1, &[4]));
    let file = checkpoint.file("mp_rank_00");
    file.tensors.retain(|(path, _)| !path.contains(".experts."));
    for layer in 0..4 {
        let name = |name: &str| format!("decoder.layers.{layer}.mlp.experts.{name}");
        file.tensors.push((name("weight1"), array(&config, "1", &[config.hidden, 4 * 2 * moe.ffn])));
        file.tensors.push((name("weight2"), array(&config, "2", &[4 * moe.ffn, config.hidden])));
    }
    refused(&checkpoint, &["mlp.experts.weight1", "legacy grouped experts", "transposed"]);
}

#[test]
fn tensors_that_say_what_the_model_is() {
    let config = Config::default();
    for (name, words) in [
        ("decoder.layers.0.self_attention.linear_qkv.adapter.linear_in.weight", "LoRA"),
        ("decoder.layers.0.self_attention.linear_proj.lora_A.weight", "merge the adapter"),
        ("decoder.layers.0.self_attention.core_attention.softmax_offset", "attention sinks"),
        ("decoder.layers.0.self_attention.core_attention.indexer.linear_wk.weight", "sparse attention"),
        ("decoder.layers.0.mixer.in_proj.weight", "Mamba"),
        ("vision_model.decoder.layers.0.mlp.linear_fc1.weight", "multimodal"),
    ] {
        let mut checkpoint = Checkpoint::small_as(1, &[4]);
        let file = checkpoint.file("mp_rank_00");
        // Behind a tensor that nobody knows: what is known says more.
        file.tensors.push(("decoder.layers.0.what".into(), array(&config, "what", &[2])));
        file.tensors.push((name.into(), array(&config, name, &[2])));
        refused(&checkpoint, &[name, words, "does not reshard"]);
    }
    // Of no family at all, because every layer is of another kind.
    let mut hybrid = Checkpoint::small_as(1, &[4]);
    for (path, _) in &mut hybrid.file("mp_rank_00").tensors {
        *path = path.replace(".self_attention.linear_qkv.", ".mixer.in_proj.");
    }
    refused(&hybrid, &["mixer.in_proj", "Mamba"]);
    // What a family file could describe is told as before.
    let mut unknown = Checkpoint::small_as(1, &[4]);
    unknown.file("mp_rank_00").tensors.push(("decoder.layers.0.what".into(), array(&config, "what", &[2])));
    let dir = tempfile::tempdir().unwrap();
    unknown.write(dir.path());
    ckpt!("inspect", dir.path()).refused(UNSUPPORTED, &["decoder.layers.0.what is unknown", "family file"]);
}

/// `Ett|tt|m|L`: the embedding stands beside the predictions, which are not on the last stage.
#[test]
fn multi_token_prediction_on_a_stage_of_its_own() {
    let config = Config { predictions: 1, hidden: 8, ..Config::default() };
    let mut checkpoint = Checkpoint::new(&config, &Cut::new(2, &[2, 2, 0, 0]));
    for tp in 0..2 {
        let all = std::mem::take(&mut checkpoint.file(&format!("mp_rank_{tp:02}_003")).tensors);
        let of_predictions =
            |(path, _): &(String, Array)| path.starts_with("mtp.") || path.starts_with("embedding.");
        let (predictions, rest) = all.into_iter().partition(of_predictions);
        checkpoint.file(&format!("mp_rank_{tp:02}_002")).tensors = predictions;
        checkpoint.file(&format!("mp_rank_{tp:02}_003")).tensors = rest;
    }
    refused(
        &checkpoint,
        &["mtp.layers.0.enorm.weight", "multi-token prediction on a stage of its own (stage 2"],
    );
}
