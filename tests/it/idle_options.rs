//! Options that do nothing for what is shown are refused, and those that do something for some of it are taken.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use crate::common::hf::{self, Arch};
use crate::common::naive::{Config, Cut};
use crate::common::run::program;
use crate::common::source::Checkpoint;

/// Whoever types an option expects something of it.
#[test]
fn options_that_do_nothing_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let here = |name: &str| dir.path().join(name);
    let config = Config { heads: 8, groups: 8, ffn: 24, vocab: 25, ..Config::default() };
    let (run, model, family) = (here("run"), here("model"), here("family.toml"));
    let mut checkpoint = Checkpoint::new(&config, &Cut::new(2, &[2, 2]));
    for (field, value) in hf::args(Arch::Llama, &config) {
        checkpoint = checkpoint.arg(field, &value);
    }
    checkpoint.write(&run);
    hf::write(&model, &hf::config(Arch::Llama, &config), &hf::tensors(Arch::Llama, &config), 1);
    fs::write(&family, include_str!("../../docs/internlm2.toml")).unwrap();
    let cases: [(&[&str], &Path, &str); 15] = [
        (
            &["ls", "--shard-size", "1MB"],
            &run,
            "--shard-size has no effect in megatron views, only in those of hf, torch_dist, dcp",
        ),
        (&["ls", "--as", "vllm", "--shard-size", "5GB"], &run, "--shard-size has no effect in vllm views"),
        (&["ls", "--as", "hf", "--rng", "omit"], &run, "--rng has no effect in hf views"),
        (&["ls", "--as", "hf", "--vocab-fill", "last-row"], &run, "--vocab-fill has no effect in hf views"),
        (
            &["ls", "--dcp-layout", "accelerate"],
            &run,
            "--dcp-layout has no effect in megatron views, only in those of dcp",
        ),
        (&["ls", "--as", "hf", "--dcp-names", "hf"], &run, "--dcp-names has no effect"),
        (&["ls", "--as", "hf", "--engine-version", "0.9"], &run, "only in those of vllm, sglang"),
        (&["ls", "--hf-model-type", "llama"], &run, "--hf-model-type has no effect in megatron views"),
        (&["ls", "--megatron-spec", "te"], &run, "the source is a run of Megatron"),
        (&["ls", "--make-vocab-size-divisible-by", "64"], &run, "the source is a run of Megatron"),
        (&["ls", "--megatron-spec", "local"], &model, "--megatron-spec has no effect in hf views"),
        (&["ls", "--root", "ema"], &run, "--root has no effect on a megatron checkpoint"),
        (&["digest", "--root", "ema"], &model, "--root has no effect on a hf checkpoint"),
        (
            &["digest", "--template", model.to_str().unwrap()],
            &run,
            "--template has no effect on a megatron checkpoint",
        ),
        (
            &["cat", "--as", "hf", "--crc", "exact", "config.json"],
            &run,
            "--crc has no effect in hf views, only in those of megatron",
        ),
    ];
    for (words, source, said) in cases {
        let mut all: Vec<&str> = vec![words[0], source.to_str().unwrap()];
        all.extend(&words[1..]);
        program(&all).refused(2, &[said]);
    }
    let dst = here("dst");
    for (flag, value) in [("--tp-ranks", "0"), ("--pp-ranks", "0"), ("--crc", "zero")] {
        let said = format!("{flag} has no effect in hf views");
        ckpt!("materialize", &run, &dst, "--as", "hf", flag, value).refused(2, &[&said]);
        assert!(!dst.exists());
    }
    // Of a mount of many layouts some view is that of the option; of one it is not.
    let point = here("mnt");
    fs::create_dir(&point).unwrap();
    ckpt!(
        "mount",
        &run,
        &point,
        "--dry-run",
        "--shard-size",
        "1MB",
        "--rng",
        "omit",
        "--engine-version",
        "0.9"
    )
    .ok();
    ckpt!("mount", &run, &point, "--dry-run", "--tp", "4", "--shard-size", "1MB")
        .refused(2, &["--shard-size"]);
    ckpt!("ls", &run, "--as", "hf", "--shard-size", "5GB").ok();
    ckpt!(
        "ls",
        &model,
        "--as",
        "megatron",
        "--megatron-spec",
        "te",
        "--make-vocab-size-divisible-by",
        "128",
        "--rng",
        "keep"
    )
    .ok();
    ckpt!("inspect", &run, "--globals", "--tp", "4").refused(2, &["--iteration alone"]);
    // A family is for the checkpoints that are of it.
    let unused = ckpt!("ls", &run, "--as", "hf", "--family", &family).ok();
    assert!(unused.err.contains("was not needed"), "{}", unused.err);
    // What is chosen for a mount that saves, a run or a tokenizer, where there is none of these.
    ckpt!("mount", &run, &point, "--dry-run", "--settle", "5").refused(2, &["--settle has no effect"]);
    ckpt!("ls", &run, "--as", "hf", "--template", &run)
        .refused(2, &["neither a config.json nor a tokenizer"]);
    ckpt!("inspect", &run, "--globals", "--shard-size", "1MB").refused(2, &["--iteration alone"]);
    // Only mount(8) writes options of this command so.
    ckpt!("mount", &run, &point, "-o", "tp=4").refused(2, &["-o tp=4", "--tp 4"]);
    let pipe = here("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    ckpt!("ls", &run, "--family", &pipe).refused(2, &["no regular file"]);
}

/// The embedding of a published model may be padded too.
#[test]
fn the_true_size_of_a_vocabulary_is_one_of_models_too() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { heads: 8, groups: 8, ffn: 24, vocab: 25, ..Config::default() };
    hf::write(dir.path(), &hf::config(Arch::Llama, &config), &hf::tensors(Arch::Llama, &config), 1);
    let digest = |size: &str| {
        ckpt!("digest", dir.path(), "--json", "--vocab-size", size).ok().json()["digest"].clone()
    };
    assert_ne!(digest("24"), digest("25"));
    let listed = ckpt!("ls", dir.path(), "--vocab-size", "24", "--tensors").ok().out;
    assert!(listed.contains("model.embed_tokens.weight  float32 [24, "), "{listed}");
}

/// A model without a config of its own has that of a template, whatever is made of it.
#[test]
fn a_template_describes_a_model_without_a_config() {
    let dir = tempfile::tempdir().unwrap();
    let (model, template) = (dir.path().join("model"), dir.path().join("template"));
    let config = Config { heads: 8, groups: 8, ffn: 24, vocab: 25, ..Config::default() };
    hf::write(&model, &hf::config(Arch::Llama, &config), &hf::tensors(Arch::Llama, &config), 1);
    let digest = ckpt!("digest", &model, "--json").ok().json()["digest"].clone();
    fs::create_dir(&template).unwrap();
    fs::rename(model.join("config.json"), template.join("config.json")).unwrap();
    let found = ckpt!("digest", &model, "--json", "--template", &template).ok().json();
    assert_eq!(found["digest"], digest);
    ckpt!("verify", &model, "--template", &template).ok();
    for format in ["hf", "megatron", "torch_dist", "safetensors", "vllm"] {
        ckpt!("ls", &model, "--as", format, "--template", &template, "--hf-model-type", "llama").ok();
    }
}
