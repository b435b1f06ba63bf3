//! Views as torch DCP has them: opened again they are the model and the optimizer that they were made of, and where torch saved the source
//! they have its keys. `tests/python/test_dcp_view.py` loads them with torch.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ckpt_fs::format::dcp::metadata::{Metadata, PathItem, decode};

use crate::common::run::{Said, program};
use crate::torch_dist::{RUN_CONFIG, of_bridge};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dist-tiny").join(name)
}

/// The digests of weights and optimizer.
fn digests(path: &Path, flags: &[&str]) -> Vec<String> {
    let path = path.display().to_string();
    let said = program(&[&["digest", path.as_str()], flags].concat()).ok();
    said.out.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

/// Materializes a view with these flags; gives its directory and what was said.
fn view(source: &Path, out: &Path, flags: &[&str]) -> Said {
    let [source, out] = [source, out].map(|path| path.display().to_string());
    program(&[&["materialize", source.as_str(), out.as_str(), "--as", "dcp", "--quiet"], flags].concat()).ok()
}

fn metadata(directory: &Path) -> Metadata {
    decode(&fs::read(directory.join(".metadata")).unwrap()).unwrap()
}

fn keys(metadata: &Metadata) -> BTreeSet<String> {
    let tensors = metadata.tensors.iter().map(|tensor| tensor.key.to_string());
    tensors.chain(metadata.objects.iter().map(|object| object.key.to_string())).collect()
}

// matrix: digest: llama: hf dcp -> dcp
#[test]
fn every_source_is_the_same_model_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let template = fixture("dcp/llama_tied_bf16/hf").display().to_string();
    for (number, (source, flags, more)) in [
        ("dcp/llama_untied/hf", vec![], vec![]),
        ("dcp/llama_untied/hf", vec![], vec!["--shard-size", "20KB"]),
        ("dcp/llama_tied_bf16/fsdp2_n3", vec!["--template", &template], vec![]),
        ("dcp/llama_tied_bf16/fsdp2_n3", vec!["--template", &template], vec!["--dcp-layout", "accelerate"]),
        ("dcp/llama_tied_bf16/fsdp2_n3", vec!["--template", &template], vec!["--dcp-names", "torchtitan"]),
    ]
    .into_iter()
    .enumerate()
    {
        let out = dir.path().join(number.to_string());
        let source = fixture(source);
        view(&source, &out, &[flags.as_slice(), &more].concat());
        assert_eq!(digests(&out, &[]), digests(&source, &flags), "{} {more:?}", source.display());
    }
}

/// A run of Megatron, whose optimizer has buffers in the place of names.
#[test]
fn state_of_a_megatron_run_goes_by_the_names_of_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let run = of_bridge("optim/mcore0161_fullre_tp1dp2", RUN_CONFIG);
    let source = run.path().join("iter_0000007");
    let out = dir.path().join("out");
    let said = view(&source, &out, &[]);
    assert!(said.err.contains("settings of the optimizer's parameter groups"), "{}", said.err);
    let (wanted, found) = (digests(&source, &[]), digests(&out, &[]));
    assert_eq!((wanted.len(), &found), (2, &wanted));
    let keys = keys(&metadata(&out));
    for state in ["master", "exp_avg", "exp_avg_sq", "step"] {
        let key = format!("optim.state.model.layers.1.self_attn.k_proj.weight.{state}");
        assert!(keys.contains(&key), "{key}: {keys:?}");
    }
    let without = dir.path().join("without");
    view(&source, &without, &["--optimizer", "none"]);
    assert_eq!(digests(&without, &[]), wanted[..1]);
}

/// What torch saved comes back under the keys and at the places in dicts that torch gave it.
#[test]
fn keys_and_nesting_are_those_that_torch_saved() {
    let dir = tempfile::tempdir().unwrap();
    for (source, template, flags, others) in [
        ("llama_tied_bf16/fsdp2_n3", "llama_tied_bf16/hf", &[][..], &["train."][..]),
        (
            "titan_mini/titan_head_n2",
            "titan_mini/hf",
            &["--dcp-names", "torchtitan"],
            &["dataloader.", "train_state.", "lr_scheduler"],
        ),
    ] {
        let (source, template) =
            (fixture("dcp").join(source), fixture("dcp").join(template).display().to_string());
        let out = dir.path().join(source.file_name().unwrap());
        view(&source, &out, &[flags, &["--template", &template]].concat());
        let (wanted, found) = (metadata(&source), metadata(&out));
        let mut expected = keys(&wanted);
        expected.retain(|key| !others.iter().any(|other| key.starts_with(other)));
        assert_eq!(keys(&found), expected);
        let paths = |of: &Metadata| of.paths.clone().unwrap().into_iter().collect::<Vec<_>>();
        let wanted: Vec<_> =
            paths(&wanted).into_iter().filter(|(key, _)| expected.contains(&**key)).collect();
        let found = paths(&found);
        assert!(found.iter().all(|(_, path)| path.iter().all(|item| *item != PathItem::Key("".into()))));
        assert_eq!(found, wanted);
    }
}

/// A sharded state dict of a tied model has the head too, and loaders ask for it.
#[test]
fn a_tied_head_is_there_a_second_time() {
    let dir = tempfile::tempdir().unwrap();
    view(&fixture("dcp/llama_tied_bf16/hf"), &dir.path().join("out"), &[]);
    let found = metadata(&dir.path().join("out"));
    let shape = |key: &str| found.tensor(key).map(|tensor| tensor.shape.clone());
    assert!(shape("model.lm_head.weight").is_some());
    assert_eq!(shape("model.lm_head.weight"), shape("model.model.embed_tokens.weight"));
}

/// Rows go to ranks, so large tensors are cut there: into files of the size asked for.
#[test]
fn tensors_are_cut_and_shared_out_to_files() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    view(&fixture("dcp/llama_untied/hf"), &out, &["--shard-size", "20KB"]);
    let found = metadata(&out);
    assert!(found.files.len() > 4, "{:?}", found.files);
    for file in &found.files {
        assert!(fs::metadata(out.join(&**file)).unwrap().len() < 40_000, "{file}");
    }
}

#[test]
fn names_that_are_not_known_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let llama = fixture("dcp/llama_untied/hf");
    let mistral = dir.path().join("mistral");
    fs::create_dir(&mistral).unwrap();
    fs::copy(llama.join("model.safetensors"), mistral.join("model.safetensors")).unwrap();
    let config = fs::read_to_string(llama.join("config.json")).unwrap();
    let config = config.replace("\"llama\"", "\"mistral\"").replace("LlamaForCausalLM", "MistralForCausalLM");
    fs::write(mistral.join("config.json"), config).unwrap();
    view(&mistral, &dir.path().join("hf"), &[]);
    let said =
        ckpt!("materialize", &mistral, dir.path().join("out"), "--as", "dcp", "--dcp-names", "torchtitan");
    said.refused(4, &["--dcp-names torchtitan", "not known here"]);
}

/// Groups list tensors by the source's names, so under others they are left out.
#[test]
fn settings_that_go_by_other_names_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let template = fixture("dcp/llama_tied_bf16/hf").display().to_string();
    let said = |flags: &[&str], out: &str| {
        let flags = [flags, &["--template", &template]].concat();
        view(&fixture("dcp/llama_tied_bf16/fsdp2_n3"), &dir.path().join(out), &flags).err
    };
    let words = "settings of the optimizer's parameter groups";
    assert!(said(&["--dcp-names", "torchtitan"], "titan").contains(words));
    assert!(!said(&[], "plain").contains(words));
}
