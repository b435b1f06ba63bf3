//! What lies beside the weights of a model directory: what goes along, what does not, and that it is said.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::common::hf::{self, Arch};
use crate::common::naive::Config;
use crate::common::source::Checkpoint;

const ADAPTER: [&str; 3] = ["adapter_config.json", "adapter_model.safetensors", "new_embeddings.safetensors"];

/// A model with these files beside it, each of which holds its own name.
fn model(names: &[&str]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let config = Config::default();
    hf::write(&path, &hf::config(Arch::Llama, &config), &hf::tensors(Arch::Llama, &config), 2);
    put(&path, names);
    (dir, path)
}

fn put(root: &Path, names: &[&str]) {
    for name in names {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), name).unwrap();
    }
}

/// Paths of all files of a materialized view but the weights, and what was said. Each of those in `same` holds its own name.
fn made(source: &Path, more: &[&str], same: &[&str]) -> (BTreeSet<String>, String) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let words = [&["materialize", source.to_str().unwrap(), out.to_str().unwrap()], more].concat();
    let said = crate::common::run::program(&words).ok();
    for name in same {
        assert_eq!(fs::read_to_string(out.join(name)).unwrap(), **name);
    }
    let mut found = BTreeSet::new();
    let mut todo = vec![out.clone()];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            found.insert(path.strip_prefix(&out).unwrap().to_str().unwrap().to_owned());
        }
    }
    (found, said.err)
}

fn adapter_in(files: &BTreeSet<String>) -> Vec<&str> {
    ADAPTER.into_iter().filter(|name| files.contains(*name)).collect()
}

#[test]
fn an_adapter_goes_along_whole() {
    let (_dir, source) = model(&[&ADAPTER[..], &["mtp.safetensors", "training_args.bin"]].concat());
    let same = [&ADAPTER[..], &["mtp.safetensors", "training_args.bin"]].concat();
    let (files, said) = made(&source, &["--as", "hf"], &same);
    assert!(!said.contains("left out"), "{said}");
    // A view of one file and one of many. Engines load every safetensors file of a directory without an index.
    let index = "model.safetensors.index.json";
    assert!(files.contains("model-00001-of-00001.safetensors") && files.contains(index), "{files:?}");
    let (files, _) = made(&source, &["--as", "hf", "--shard-size", "500B"], &same);
    assert!(files.contains(index));
    // What nothing names needs none.
    fs::remove_file(source.join("mtp.safetensors")).unwrap();
    ADAPTER.iter().for_each(|name| fs::remove_file(source.join(name)).unwrap());
    let (files, _) = made(&source, &["--as", "hf"], &["training_args.bin"]);
    assert!(files.contains("model.safetensors") && !files.contains(index), "{files:?}");
}

/// A view with an index in spite of its one file is the model that it was made of.
#[test]
fn one_file_with_an_index_is_read_again() {
    let (dir, source) = model(&["mtp.safetensors"]);
    let out = dir.path().join("out");
    ckpt!("materialize", source, out).ok();
    ckpt!("verify", source, out).ok();
    // A source of one file had no index that leaves anything out.
    let plain = dir.path().join("plain");
    let config = Config::default();
    hf::write(&plain, &hf::config(Arch::Llama, &config), &hf::tensors(Arch::Llama, &config), 1);
    put(&plain, &["mtp.safetensors"]);
    assert!(!ckpt!("ls", plain).ok().out.contains("index"));
}

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\nsize 9085657\n";
const PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>";

/// What stands in the place of a file is not shown as that file.
#[test]
fn files_that_were_never_fetched_are_left_out_and_said() {
    for (name, text) in
        [("tokenizer.json", POINTER), ("tokenizer.json", PAGE), ("chat_template.jinja", POINTER)]
    {
        let (_dir, source) = model(&["tokenizer_config.json", "vocab.txt"]);
        fs::write(source.join(name), text).unwrap();
        for format in ["hf", "vllm"] {
            let (files, said) = made(&source, &["--as", format], &["tokenizer_config.json", "vocab.txt"]);
            assert!(!files.contains(name), "{files:?}");
            assert!(said.contains(&format!("left out: {name} (git-lfs pointers")), "{said}");
        }
        let (files, said) = made(&source, &["--as", "megatron"], &[]);
        assert!(!files.contains(name) && !said.contains("left out"), "{said}");
        // The same of a template; its files are in the place of the source's.
        let (_other, plain) = model(&[name]);
        let with_template = ["--as", "hf", "--template", source.to_str().unwrap()];
        let (files, said) = made(&plain, &with_template, &["tokenizer_config.json"]);
        assert!(
            !files.contains(name) && said.contains(&format!("left out of --template: {name} (git-lfs")),
            "{said}"
        );
        let (files, said) = made(&source, &["--as", "hf", "--template", plain.to_str().unwrap()], &[name]);
        assert!(files.contains(name) && !said.contains("left out"), "{said}");
    }
    // A template of text may begin like a page, and so may a page.
    let (_dir, source) = model(&[]);
    for name in ["chat_template.jinja", "README.html"] {
        fs::write(source.join(name), PAGE).unwrap();
    }
    let (files, said) = made(&source, &["--as", "hf"], &[]);
    assert!(
        files.contains("chat_template.jinja") && files.contains("README.html") && !said.contains("left out"),
        "{said}"
    );
}

/// An adapter that is not all there is no part of any view, and every view says that something else is computed.
#[test]
fn an_adapter_that_was_not_fetched_is_said_in_every_format() {
    let (_dir, source) = model(&ADAPTER);
    fs::write(source.join(ADAPTER[1]), POINTER).unwrap();
    let (linked, escaping) = model(&ADAPTER);
    fs::rename(escaping.join(ADAPTER[0]), linked.path().join(ADAPTER[0])).unwrap();
    symlink(format!("../{}", ADAPTER[0]), escaping.join(ADAPTER[0])).unwrap();
    for source in [source, escaping] {
        for format in ["hf", "megatron", "safetensors", "vllm"] {
            let (files, said) = made(&source, &["--as", format], &[]);
            assert!(adapter_in(&files).is_empty(), "{files:?}");
            assert!(ADAPTER.iter().all(|name| said.contains(name)), "{format}: {said}");
        }
    }
}

/// A listing of what a view would have says what it would not have.
#[test]
fn ls_says_what_is_left_out() {
    let (_dir, source) = model(&ADAPTER);
    let said = ckpt!("ls", source, "--as", "megatron").ok().err;
    assert!(said.contains("left out: adapter_config.json"), "{said}");
    assert_eq!(ckpt!("ls", source).ok().err, "");
}

#[test]
fn formats_that_have_no_adapter_say_so() {
    let (_dir, source) = model(&[&ADAPTER[..], &["mtp.safetensors", "tokenizer.json"]].concat());
    for format in ["megatron", "safetensors", "vllm", "sglang"] {
        let (files, said) = made(&source, &["--as", format], &[]);
        let words = [
            "left out: adapter_config.json, adapter_model.safetensors, new_embeddings.safetensors (an adapter",
            "mtp.safetensors (",
        ];
        assert!(words.iter().all(|word| said.contains(word)), "{format}: {said}");
        assert!(adapter_in(&files).is_empty() && !files.contains("mtp.safetensors"), "{format}: {files:?}");
        assert_eq!(files.contains("tokenizer.json"), matches!(format, "vllm" | "sglang"));
    }
    let left = ckpt!("inspect", source, "--as", "vllm", "--json").ok().json()["left_out"].to_string();
    assert!(left.contains("adapter_model.safetensors"), "{left}");
    for command in ["verify", "digest"] {
        let said = ckpt!(command, source).ok().err;
        assert!(said.contains("not looked at: adapter_config.json, adapter_model"), "{command}: {said}");
    }
    let (_dir, plain) = model(&["tokenizer.json"]);
    assert_eq!(ckpt!("verify", plain).ok().err, "");
}

/// A link that leads out is left out, and with it what is of no use alone.
#[test]
fn half_an_adapter_is_none() {
    for half in [ADAPTER[0], ADAPTER[1]] {
        let (dir, source) = model(&ADAPTER);
        fs::rename(source.join(half), dir.path().join(half)).unwrap();
        symlink(format!("../{half}"), source.join(half)).unwrap();
        let (files, said) = made(&source, &["--as", "hf"], &[]);
        assert!(adapter_in(&files).is_empty(), "{files:?}");
        assert!(ADAPTER.iter().all(|name| said.contains(name)), "{said}");
    }
}

#[test]
fn everything_that_is_dropped_is_said() {
    let weights =
        ["pytorch_model.bin", "consolidated.00.pth", "model-q4.gguf", "model-00007-of-00009.safetensors"];
    let names = ["original/params.json", "onnx/model.onnx", ".gitattributes", "tokenizer.json"];
    let (_dir, source) = model(&[&weights[..], &names].concat());
    for format in ["hf", "vllm"] {
        let (files, said) = made(&source, &["--as", format], &["tokenizer.json"]);
        for name in weights.iter().chain(&["onnx/", "original/"]) {
            assert!(said.contains(name), "{name} is missing in: {said}");
            assert!(!files.iter().any(|file| file.starts_with(name)), "{files:?}");
        }
        assert!(!said.contains(".gitattributes") && !files.contains(".gitattributes"));
    }
}

/// What `save_pretrained` puts in a directory of its own belongs to the tokenizer.
#[test]
fn chat_templates_in_a_directory_go_along() {
    let templates = ["additional_chat_templates/rag.jinja", "additional_chat_templates/tool_use.jinja"];
    let (_dir, source) =
        model(&[&templates[..], &["additional_chat_templates/more/x", "chat_template.jinja"]].concat());
    for format in ["hf", "vllm"] {
        let (files, said) = made(&source, &["--as", format], &templates);
        assert!(said.contains("left out: additional_chat_templates/more/ ("), "{said}");
        assert!(!files.contains("additional_chat_templates/more/x"));
    }
    let (files, _) = made(&source, &["--as", "megatron"], &[]);
    assert!(!files.contains(templates[0]));
    let listed = ckpt!("ls", source).ok().out;
    assert!(templates.iter().all(|name| listed.contains(name)), "{listed}");
}

/// A template says how a model is used; what is added to the weights is the source's.
#[test]
fn a_template_gives_no_adapter_and_takes_none_away() {
    let (_dir, template) = model(&[&ADAPTER[..], &["tokenizer.json", "runs/x", "mtp.safetensors"]].concat());
    let (_other, source) = model(&["mine.json"]);
    let with_template = ["--as", "hf", "--template", template.to_str().unwrap()];
    let (files, said) = made(&source, &with_template, &["tokenizer.json"]);
    let words = "left out of --template: adapter_config.json, adapter_model.safetensors, new_embeddings.safetensors, runs/ (";
    assert!(said.contains(words), "{said}");
    assert!(
        adapter_in(&files).is_empty() && !files.contains("mtp.safetensors") && !files.contains("mine.json")
    );
    put(&source, &ADAPTER);
    let (files, _) = made(&source, &with_template, &ADAPTER);
    assert!(files.contains("tokenizer.json"));
    // Nor does it give one to a run of Megatron.
    let run = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::small();
    for (field, value) in hf::args(Arch::Llama, &Config::default()) {
        checkpoint = checkpoint.arg(field, &value);
    }
    checkpoint.write(run.path());
    let (files, said) = made(run.path(), &with_template, &["tokenizer.json"]);
    assert!(
        adapter_in(&files).is_empty() && said.contains("left out of --template: adapter_config.json"),
        "{said}"
    );
}
