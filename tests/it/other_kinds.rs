//! Directories that people have and that are not what is read: each is told by one name in it, and the words say the way on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::hf::{self, Arch};
use crate::common::naive::Config;
use crate::common::run::{PROGRAM, Said, program};
use crate::common::source::{Checkpoint, rank_file};
use tempfile::TempDir;

const SOURCE: i32 = 3;
const UNSUPPORTED: i32 = 4;

/// A directory with a directory of this name that has these files, each of a few bytes; a name that ends in `/` is a directory.
fn tree(name: &str, files: &[&str]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join(name);
    fs::create_dir(&root).unwrap();
    for file in files {
        let path = root.join(file);
        let is_directory = file.ends_with('/');
        fs::create_dir_all(if is_directory { &path } else { path.parent().unwrap() }).unwrap();
        if !is_directory {
            fs::write(path, "x").unwrap();
        }
    }
    (dir, root)
}

#[track_caller]
fn refused(name: &str, files: &[&str], code: i32, words: &[&str]) {
    let (_dir, root) = tree(name, files);
    ckpt!("inspect", root).refused(code, words);
}

fn llama(root: &Path, shards: usize) {
    let config = Config::default();
    hf::write(root, &hf::config(Arch::Llama, &config), &hf::tensors(Arch::Llama, &config), shards);
}

#[test]
fn other_kinds_are_named_by_one_name_in_them() {
    let kinds: &[(&[&str], &str)] = &[
        (
            &["latest", "global_step10/mp_rank_00_model_states.pt"],
            "DeepSpeed checkpoint (it has global_step10)",
        ),
        (&["zero_pp_rank_10_mp_rank_00_optim_states.pt", "mp_rank_00_model_states.pt"], "zero_to_fp32.py"),
        (&["bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"], "DeepSpeed"),
        (&["layer_01-model_00-model_states.pt", "configs/"], "DeepSpeed"),
        (&["latest_universal", "step2_universal/zero/"], "DeepSpeed"),
        (&["config.json", "latest", "zero_to_fp32.py", "trainer_state.json"], "DeepSpeed"),
        (
            &["latest", "latest_checkpointed_iteration.txt", "global_step10/mp_rank_00_model_states.pt"],
            "Megatron-DeepSpeed",
        ),
        (&["model_world_size_8_rank_0.pt", "huggingface/config.json"], "sharded by FSDP ranks"),
        (&["pytorch_model_fsdp.bin"], "FSDP"),
        (&["metadata.json", "common.pt", "model.decoder.final_layernorm.weight/"], "zarr"),
        (&["adapter_config.json", "adapter_model.safetensors"], "adapter (LoRA) without the model"),
        (&["config.json", "model-q4_0.gguf"], "a GGUF model (it has model-q4_0.gguf)"),
        (&["params.json", "consolidated.00.pth"], "Meta"),
        (&["params.json", "consolidated.safetensors"], "Mistral"),
        (&["model_config.yaml", "model_weights/.metadata"], "NeMo"),
        (&["model_config.yaml", "mp_rank_00/model_weights.ckpt"], "NeMo"),
        (&["tp_rank_00_pp_rank_000/model_weights.ckpt"], "NeMo"),
        (&["megatron_gpt.nemo"], "NeMo"),
        (&["context/", "weights/.metadata"], "NeMo 2"),
        (&["config.json", "pytorch_model.bin"], "pytorch_model.bin"),
        (&["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"], "safetensors"),
        (&["config.json", "model-rank-0-part-0.safetensors"], "inference engine"),
        (&["config.json", "tf_model.h5"], "TensorFlow"),
        (&["model_index.json", "unet/config.json"], "several models"),
        (&["config.json", "trainer_state.json", "optimizer.pt"], "Trainer without its model"),
        (&["last.ckpt"], "single torch files"),
        (&["mytag/mp_rank_00_model_states.pt", "latest"], "mytag: this is a DeepSpeed checkpoint"),
        (
            &["latest_checkpointed_iteration.txt", "iter_0000001/.metadata"],
            "iter_0000001: this is a distributed",
        ),
    ];
    for (files, words) in kinds {
        let (_dir, root) = tree("run", files);
        if files.contains(&"latest_checkpointed_iteration.txt") {
            fs::write(root.join("latest_checkpointed_iteration.txt"), "1").unwrap();
        }
        let said =
            ckpt!("inspect", root).refused(UNSUPPORTED, &[words, "which this version does not read; "]);
        assert!(said.err.len() < 300, "{}", said.err);
    }
}

#[test]
fn every_command_says_the_same() {
    let (dir, root) = tree("run", &["config.json", "model.gguf"]);
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let root = root.to_str().unwrap();
    let said = ckpt!("inspect", root).refused(UNSUPPORTED, &["GGUF"]).err;
    let out = out.to_str().unwrap();
    for args in [
        &["ls", root][..],
        &["digest", root],
        &["verify", root],
        &["mount", root, out, "--tp", "2"],
        &["materialize", root, "new", "--as", "megatron"],
    ] {
        assert_eq!(program(args).refused(UNSUPPORTED, &[]).err, said, "{args:?}");
    }
}

#[test]
fn files_of_other_kinds_are_named_and_others_have_a_directory() {
    for (file, code, words) in [
        ("model.gguf", UNSUPPORTED, "a GGUF model, which"),
        ("model.nemo", UNSUPPORTED, "a NeMo checkpoint, which"),
        ("model.safetensors", SOURCE, "pass the directory of the model"),
        ("model_optim_rng.pt", SOURCE, "pass the directory of the run"),
    ] {
        let (_dir, root) = tree("run", &[file]);
        ckpt!("inspect", root.join(file)).refused(code, &[words]);
    }
}

#[test]
fn what_was_meant_lies_below() {
    let (_dir, root) = tree("run", &["config.json", "training_args.bin", "logs/events.out"]);
    for step in ["checkpoint-1000", "checkpoint-500"] {
        llama(&root.join(step), 1);
    }
    let order = "pass one of: checkpoint-500, checkpoint-1000";
    ckpt!("inspect", root).refused(SOURCE, &["no checkpoint itself", order]);
    // One that lies deeper is named with its whole path, and can be passed as it is printed.
    let above = root.with_file_name("above");
    fs::create_dir_all(above.join("a")).unwrap();
    Checkpoint::small().write(&above.join("a/run"));
    let path = above.join("a/run").display().to_string();
    ckpt!("inspect", above).refused(SOURCE, &["one below it", &format!("pass {path}\n")]);
    ckpt!("inspect", path).ok();
    // Those of other kinds are not among what can be passed.
    for (run, file) in [("ds/global_step1", "mp_rank_00_model_states.pt"), ("dist/iter_0000001", ".metadata")]
    {
        let (_dir, kinds) = tree("kinds", &[&format!("{run}/{file}")]);
        let run = run.split('/').next().unwrap();
        fs::write(kinds.join(run).join("latest_checkpointed_iteration.txt"), "1").unwrap();
        ckpt!("inspect", kinds).refused(UNSUPPORTED, &[&format!("kinds/{run}"), "does not read"]);
        llama(&kinds.join("hf"), 1);
        let said = ckpt!("inspect", kinds).refused(SOURCE, &["one below it: pass", "kinds/hf\n"]);
        assert!(!said.err.contains(&format!("kinds/{run}")), "{}", said.err);
    }
    // Of several, as many are named as can be read.
    let many = root.with_file_name("many");
    for step in 0..20 {
        llama(&many.join(format!("step-{step}")), 1);
    }
    ckpt!("inspect", many).refused(SOURCE, &["step-0, step-1, ", "step-7 and 12 more"]);
    // Neither loops nor wide directories are gone through for ever.
    let wide = root.with_file_name("wide");
    for name in 0..600 {
        fs::create_dir_all(wide.join(format!("{name}/a/b"))).unwrap();
    }
    symlink("..", wide.join("0/loop")).unwrap();
    ckpt!("inspect", wide).refused(SOURCE, &["neither a Megatron checkpoint"]);
    refused("empty", &[], SOURCE, &["the directory is empty"]);
}

#[test]
fn the_cache_of_the_hub_has_snapshots() {
    let one = ["refs/main", "blobs/", "snapshots/abc/config.json"];
    let (_dir, root) = tree("models--a--b", &one);
    let words =
        |snapshot: &str| format!("pass the snapshot in it: {}/snapshots/{snapshot}\n", root.display());
    ckpt!("inspect", root).refused(SOURCE, &["cache of the Hugging Face hub", &words("abc")]);
    ckpt!("inspect", root.join("snapshots")).refused(SOURCE, &[&words("abc")]);
    fs::create_dir(root.join("snapshots/def")).unwrap();
    ckpt!("inspect", root).refused(SOURCE, &["pass one of the snapshots in", "snapshots: abc, def"]);
    fs::write(root.join("refs/main"), "def\n").unwrap();
    ckpt!("inspect", root).refused(SOURCE, &["2 snapshots", "main is", "snapshots/def"]);
    let source = root.with_file_name("source");
    llama(&source, 1);
    ckpt!("ls", source, "--template", root).refused(SOURCE, &["main is", "snapshots/def"]);
    fs::remove_dir_all(source).unwrap();
    // From the top of the cache, a model is below.
    llama(&root.join("snapshots/def"), 1);
    ckpt!("inspect", root.parent().unwrap()).refused(SOURCE, &["pass ", "models--a--b/snapshots/def"]);
    refused("models--a--b", &["refs/main", "snapshots/"], SOURCE, &["without a snapshot; download"]);
}

#[test]
fn names_and_addresses_in_place_of_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let inspect = |path: &str| {
        let mut command = Command::new(PROGRAM);
        let command = command.args(["inspect", path]).current_dir(dir.path());
        let cache = dir.path().join("hub");
        Said::of(command.env("HF_HUB_CACHE", cache).output().unwrap())
    };
    let id = "meta-llama/Llama-3.1-8B";
    inspect(id).refused(SOURCE, &[id, "no such directory", "hf download meta-llama/Llama-3.1-8B"]);
    let snapshot = dir.path().join("hub/models--meta-llama--Llama-3.1-8B/snapshots/abc");
    fs::create_dir_all(&snapshot).unwrap();
    inspect(id).refused(SOURCE, &["cache of the Hugging Face hub is", snapshot.to_str().unwrap()]);
    // Where there is such a directory, it is a name in it that is wrong.
    fs::create_dir(dir.path().join("meta-llama")).unwrap();
    let said = inspect(id).refused(SOURCE, &["no such directory"]);
    assert!(!said.err.contains("hub"), "{}", said.err);
    for address in ["https://host/org/name", "s3://bucket/run"] {
        inspect(address).refused(SOURCE, &[address, "this is an address; download"]);
    }
    for address in ["hf://org/name", "https://huggingface.co/org/name"] {
        inspect(address).refused(SOURCE, &["download", "hf download"]);
    }
    for plain in ["nothing", "/nothing/at/all", "./a/b", "a/b/c"] {
        let said = inspect(plain).refused(SOURCE, &[plain, "no such directory"]);
        assert!(!said.err.contains("hub"), "{}", said.err);
    }
}

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:abababab\nsize 633600\n";
const PAGE: &str = "<!DOCTYPE html>\n<html><head><title>401 Unauthorized</title></head></html>\n";
const ANSWER: &str = "{\"error\": \"Repository not found\"}";
const TEXT: &str = "Entry not found";

/// What stands in a file's place, and what is said of it.
const INSTEAD: [(&str, &[&str]); 4] = [
    (POINTER, &["a git-lfs pointer", "(git lfs pull)"]),
    (PAGE, &["a web page", "download it again"]),
    (ANSWER, &["the answer of a server", "download it again"]),
    (TEXT, &["this is text", "download it again"]),
];

#[test]
fn files_that_were_never_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let one = dir.path().join("one");
    let several = dir.path().join("several");
    let run = dir.path().join("run");
    for (text, words) in INSTEAD {
        llama(&one, 1);
        llama(&several, 3);
        Checkpoint::small().write(&run);
        let spoil = |root: &Path, file: &Path| {
            let path = root.join(file);
            let whole = fs::read(&path).unwrap();
            fs::write(&path, text).unwrap();
            let said = ckpt!("inspect", root).refused(SOURCE, &[&[path.to_str().unwrap()], words].concat());
            // A link may have led to it: nothing of it is shown.
            assert!(
                !["Unauthorized", "not found"].iter().any(|word| said.err.contains(word)),
                "{}",
                said.err
            );
            fs::write(path, whole).unwrap();
        };
        spoil(&one, Path::new("model.safetensors"));
        spoil(&one, Path::new("config.json"));
        spoil(&several, Path::new("shard-1.safetensors"));
        spoil(&several, Path::new("model.safetensors.index.json"));
        let rank = rank_file(&run, "mp_rank_01_000");
        spoil(&run, rank.strip_prefix(&run).unwrap());
        // A template, whose weights do not matter.
        fs::remove_file(one.join("model.safetensors")).unwrap();
        fs::write(one.join("config.json"), text).unwrap();
        ckpt!("ls", run, "--as", "hf", "--template", one).refused(SOURCE, words);
    }
    fs::write(run.join("latest_checkpointed_iteration.txt"), POINTER).unwrap();
    ckpt!("inspect", run).refused(SOURCE, &["latest_checkpointed_iteration.txt", "git-lfs pointer"]);
    let said = ckpt!("ls", several, "--template", "no-org/no-name");
    said.refused(SOURCE, &["no-org/no-name", "hf download"]);
}

#[test]
fn links_that_lead_nowhere_say_where_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let lost = "is a link to ../gone/x, which is not there";
    let link = |name: &str| symlink("../gone/x", path(name)).unwrap();
    link("source");
    ckpt!("inspect", path("source")).refused(SOURCE, &["source: ", lost]);
    ckpt!("inspect", path("source").join("below")).refused(SOURCE, &["source/below: ", lost]);
    llama(&path("model"), 3);
    for file in ["shard-0.safetensors", "config.json", "model.safetensors.index.json", "tokenizer.json"] {
        let name = format!("model/{file}");
        let whole = fs::read(path(&name)).ok();
        let _ = fs::remove_file(path(&name));
        link(&name);
        ckpt!("inspect", path("model")).refused(SOURCE, &[&format!("{name}: {lost}")]);
        fs::remove_file(path(&name)).unwrap();
        if let Some(whole) = whole {
            fs::write(path(&name), whole).unwrap();
        }
    }
    // A rank that is a link is not merely missing.
    Checkpoint::small().write(&path("run"));
    let rank = rank_file(&path("run"), "mp_rank_01_001");
    let rank = rank.parent().unwrap();
    fs::rename(rank, path("moved")).unwrap();
    symlink("../gone/x", rank).unwrap();
    ckpt!("inspect", path("run")).refused(SOURCE, &["mp_rank_01_001: ", lost]);
    fs::remove_file(rank).unwrap();
    fs::rename(path("moved"), rank).unwrap();
    let iteration = rank.parent().unwrap();
    fs::rename(iteration, path("moved")).unwrap();
    symlink("../gone/x", iteration).unwrap();
    ckpt!("inspect", path("run")).refused(SOURCE, &["iter_", lost]);
}
