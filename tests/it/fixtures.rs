//! Real checkpoints: every one as a source of every layout of its kind, against what training wrote in that layout.
//!
//! `tests/fixtures/expected` describes the files that training wrote (see the README there). `CKPT_FS_FIXTURES=<folder>` names the full set,
//! whose checkpoints then are sources too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::manifest::{Manifest, Tensor, canonical, first_difference, sha256, tree};
use crate::common::naive::{Cut, Fill};
use crate::common::run::View;
use crate::common::{Array, open_pt, read_pt};
use ckpt_fs::value::Value;
use ckpt_fs::view::{OptimizerChoice, ViewOptions};
use serde_json::{Value as Json, json};

/// Fields of args that say where one run read and wrote: a view carries the source's.
const RUN_FIELDS: &[&str] = &["save", "load", "exit_on_missing_checkpoint", "iteration"];

/// Every `_metadata` of the model's containers, and every entry that is neither a tensor nor a dict.
fn modules(value: &Value, prefix: &str, found: &mut Vec<(String, Vec<String>)>) {
    if let Some(list) = value.attribute("_metadata").and_then(Value::items) {
        let names = list.iter().map(|(name, _)| name.as_str().unwrap().to_owned()).collect();
        found.push((prefix.to_owned(), names));
    }
    for (key, inner) in value.items().unwrap() {
        if inner.items().is_some() {
            let key = key.as_str().unwrap();
            let path = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}/{key}") };
            modules(inner, &path, found);
        }
    }
}

/// What a view of one run's checkpoint may have otherwise than another run's: what cannot be known from the source.
struct Leeway {
    /// Fields of args.
    args: Vec<&'static str>,
    /// Source and view keep the optimizer's state in different encodings.
    other_encoding: bool,
    /// Masters have no Python attributes: flat buffers have none.
    bare_masters: bool,
}

/// Fields of parameter groups that Yuan's distributed optimizer has and its mixed-precision one (apex's) has not.
const TORCH_FIELDS: &[&str] = &[
    "\"amsgrad\"",
    "\"maximize\"",
    "\"foreach\"",
    "\"capturable\"",
    "\"differentiable\"",
    "\"decoupled_weight_decay\"",
    "\"fused\"",
];

impl Leeway {
    fn between(source: &Manifest, target: &Manifest, buckets_differ: bool) -> Self {
        let mut args = RUN_FIELDS.to_vec();
        if !target.has_optimizer() {
            // That a view is without an optimizer is the user's wish and not that of the run.
            args.push("no_save_optim");
            args.extend(source.is_distributed().then_some("use_distributed_optimizer"));
        }
        if buckets_differ {
            args.extend(["overlap_grad_reduce", "ddp_bucket_size"]);
        }
        if source.arg("data_parallel_size") != target.arg("data_parallel_size") {
            // A view is for as many replicas as the source had.
            args.extend(["data_parallel_size", "world_size", "rank"]);
        }
        let to_distributed = target.is_distributed();
        Self {
            args,
            other_encoding: source.is_distributed() != to_distributed,
            bare_masters: source.is_distributed() && !to_distributed,
        }
    }

    /// A tree of a manifest without what may differ.
    fn common(&self, tree: &Json) -> Json {
        let Json::Array(items) = tree else { return tree.clone() };
        let common = |item: &Json| match item {
            Json::Array(pair) if pair.first() == Some(&json!("\"param_groups\"")) && self.other_encoding => {
                json!([pair[0], groups(&pair[1])])
            }
            Json::Array(pair)
                if pair.first() == Some(&json!("\"fp32_from_fp16_params\"")) && self.bare_masters =>
            {
                json!([pair[0], bare(&pair[1])])
            }
            _ => self.common(item),
        };
        Json::Array(items.iter().map(common).collect())
    }
}

/// Parameter groups with their fields in the order of the alphabet, without those of one encoding.
fn groups(list: &Json) -> Json {
    let fields = |group: &Json| {
        let Json::Array(items) = group else { return group.clone() };
        let mut items = items.clone();
        items.retain(|field| !TORCH_FIELDS.iter().any(|name| field[0] == *name));
        items.sort_by_key(Json::to_string);
        Json::Array(items)
    };
    Json::Array(list.as_array().unwrap().iter().map(fields).collect())
}

/// Tensors without their Python attributes.
fn bare(tree: &Json) -> Json {
    match tree {
        Json::Array(items) => Json::Array(items.iter().map(bare).collect()),
        Json::String(text) => json!(text.split(" {").next()),
        other => other.clone(),
    }
}

/// Differences between a view of the checkpoint at `root` and what training wrote.
fn differences(root: &Path, expected: &Manifest, leeway: &Leeway) -> Vec<String> {
    let mut problems = Vec::new();
    let mut same = |what: String, found: &dyn fmt::Debug, wanted: &dyn fmt::Debug| {
        let (found, wanted) = (format!("{found:?}"), format!("{wanted:?}"));
        if found != wanted {
            problems.push(format!("{what}: found {found:.300}, expected {wanted:.300}"));
        }
    };
    let optimizer = match (expected.has_optimizer(), expected.is_distributed()) {
        (false, _) => OptimizerChoice::Nothing,
        (true, false) => OptimizerChoice::Mixed,
        (true, true) => OptimizerChoice::Distributed,
    };
    let choices = ViewOptions { optimizer, ..ViewOptions::default() };
    let files = View::choosing(root, &expected.cut(), &choices).unwrap().files();
    // With experts, some pairs of tensor and expert rank are no process's; a view shows their files all the same.
    let folder = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let written = |path: &str| {
        !expected.has_experts() || expected.ranks.iter().any(|rank| folder(&rank.path) == folder(path))
    };
    let paths = files.iter().map(|(path, _)| path.as_str());
    let paths: Vec<_> = paths.filter(|path| written(path) || !path.ends_with(".pt")).collect();
    let mut wanted = Vec::new();
    for rank in &expected.ranks {
        wanted.extend(rank.buffers.as_ref().map(|_| buffers_of(&rank.path)));
        wanted.push(rank.path.clone());
    }
    wanted.push("latest_checkpointed_iteration.txt".to_owned());
    same("files".into(), &paths, &wanted);
    let content = |name: &str| files.iter().find(|(path, _)| path == name).map(|(_, bytes)| bytes);
    let tracker = content("latest_checkpointed_iteration.txt").map(|bytes| String::from_utf8_lossy(bytes));
    same("tracker".into(), &tracker, &Some(&expected.latest));
    for rank in &expected.ranks {
        let Some(bytes) = content(&rank.path) else { continue };
        let found = read_pt(bytes);
        let storages = open_pt(bytes).1;
        let top = found.tree.items().unwrap();
        let keys: Vec<_> = top.iter().map(|(key, _)| key.as_str().unwrap()).collect();
        same(format!("{}: keys", rank.path), &keys, &rank.keys);
        let Value::Object(args) = found.tree.get("args").unwrap() else { panic!("args") };
        let args = args.state.as_ref().unwrap().items().unwrap();
        let args: Vec<_> = args.iter().map(|(k, v)| (k.as_str().unwrap().to_owned(), canonical(v))).collect();
        let fields = |args: &[(String, String)]| {
            let names = args.iter().map(|(name, _)| name.clone());
            names.filter(|name| !leeway.args.contains(&name.as_str())).collect::<Vec<_>>()
        };
        let wanted_args = &rank.args;
        same(format!("{}: fields of args", rank.path), &fields(&args), &fields(wanted_args));
        let by_name: BTreeMap<_, _> = args.iter().cloned().collect();
        // With experts, training asks for sequence parallelism where TP is above 1: a flag of the run that a view cannot know.
        let of_run = |name: &str| {
            leeway.args.contains(&name) || (expected.has_experts() && name == "sequence_parallel")
        };
        for (name, wanted) in wanted_args.iter().filter(|(name, _)| !of_run(name)) {
            same(format!("{}: args.{name}", rank.path), &by_name.get(name), &Some(wanted));
        }
        let scalar = |value: &Value| {
            matches!(value, Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_))
        };
        let scalars = top.iter().filter(|(_, value)| scalar(value));
        let scalars: Vec<_> = scalars.map(|(k, v)| (k.as_str().unwrap().to_owned(), canonical(v))).collect();
        same(format!("{}: scalars", rank.path), &scalars, &rank.scalars);
        let mut lists = Vec::new();
        for (prefix, model) in crate::common::models(&found.tree) {
            modules(model, &prefix, &mut lists);
        }
        same(format!("{}: modules", rank.path), &lists, &rank.metadata);
        let others: Vec<_> =
            found.others.iter().map(|(path, value)| (path.clone(), canonical(value))).collect();
        same(format!("{}: entries that are no tensors", rank.path), &others, &rank.other);
        let tensor = |(path, array): &(String, Array)| {
            (path.clone(), array.dtype.name().to_owned(), array.shape.clone(), sha256(array))
        };
        let tensors: Vec<_> = found.tensors.iter().map(tensor).collect();
        let names = |list: &[Tensor]| list.iter().map(|tensor| tensor.0.clone()).collect::<Vec<_>>();
        same(format!("{}: tensors", rank.path), &names(&tensors), &names(&rank.tensors));
        for (found, wanted) in tensors.iter().zip(&rank.tensors).filter(|(found, wanted)| found.0 == wanted.0)
        {
            same(format!("{}: {}", rank.path, found.0), &found, &wanted);
        }
        for (entry, wanted) in &rank.state {
            let found = found.tree.get(entry).map_or(Json::Null, |value| tree(value, &storages));
            let differs = first_difference(&leeway.common(&found), &leeway.common(wanted), entry);
            same(format!("{}: state", rank.path), &differs, &None::<String>);
        }
        if let (Some(wanted), Some(bytes)) = (&rank.buffers, content(&buffers_of(&rank.path))) {
            let (value, storages) = open_pt(bytes);
            let differs = first_difference(&tree(&value, &storages), wanted, "");
            same(buffers_of(&rank.path), &differs, &None::<String>);
        }
    }
    problems
}

fn buffers_of(rank_file: &str) -> String {
    rank_file.replace("model_optim_rng.pt", "distrib_optim.pt")
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Every source of a kind into every layout of the kind.
fn check_kind(kind: &str) {
    let manifests: Vec<_> = listed(&fixtures().join("expected").join(kind))
        .into_iter()
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), Manifest::read(&path)))
        .collect();
    assert!(!manifests.is_empty(), "{kind}");
    let full = std::env::var_os("CKPT_FS_FIXTURES").map(PathBuf::from);
    let mut checked = 0;
    let mut problems = Vec::new();
    for root in std::iter::once(fixtures()).chain(full) {
        for (name, from) in &manifests {
            let source = root.join(kind).join(name);
            if !source.is_dir() {
                continue;
            }
            for (target, expected) in &manifests {
                let buckets_differ = name.ends_with("b1000") != target.ends_with("b1000");
                // Weights alone have no masters. Buckets are a setting of the run, and buffers follow from them.
                if (expected.has_optimizer() && !from.has_optimizer())
                    || (expected.is_distributed() && buckets_differ)
                {
                    continue;
                }
                let leeway = Leeway::between(from, expected, buckets_differ);
                let found = differences(&source, expected, &leeway);
                problems.extend(found.into_iter().map(|problem| format!("{name} as {target}: {problem}")));
                checked += 1;
            }
        }
    }
    assert!(
        problems.is_empty(),
        "{} problems\n{}",
        problems.len(),
        problems[..problems.len().min(40)].join("\n")
    );
    // These have their files in the full set only.
    let is_elsewhere = ["megatron-tiny/tied_padvocab", "megatron-tiny/moe"].contains(&kind);
    assert!(checked > 0 || is_elsewhere, "no source of {kind}");
}

// matrix: training: yuan-2.0: megatron -> megatron+optimizer
#[test]
fn yuan() {
    check_kind("yuan-tiny");
}

// matrix: training: yuan-2.0/gpt: megatron -> megatron+optimizer
#[test]
fn legacy_gpt() {
    check_kind("gpt-tiny");
}

// matrix: training: megatron-core: megatron -> megatron
#[test]
fn megatron_core_untied() {
    check_kind("megatron-tiny/untied");
}

#[test]
fn megatron_core_tied_with_padded_vocabulary() {
    check_kind("megatron-tiny/tied_padvocab");
}

// matrix: training: megatron-core: megatron -> megatron+optimizer
#[test]
fn megatron_core_with_an_optimizer() {
    check_kind("mcore-tiny/tied");
}

// matrix: training: megatron-core/experts: megatron -> megatron+optimizer
#[test]
fn megatron_core_with_experts() {
    check_kind("megatron-tiny/moe");
    check_kind("mcore-tiny/moe");
}

/// One storage that all tensors of a file look into, as the distributed optimizer saves them.
#[test]
fn views_into_one_storage_are_the_tensors_they_show() {
    let Some(full) = std::env::var_os("CKPT_FS_FIXTURES").map(PathBuf::from) else { return };
    let source = full.join("megatron-tiny/optim/legacy_distopt_tp1pp1");
    let path = find_rank_file(&source);
    let before = crate::common::read_pt_file(&path);
    let layers = before.tensors.iter().filter_map(|(path, _)| {
        path.split('.').skip_while(|part| *part != "layers").nth(1)?.parse::<u32>().ok()
    });
    let cut = Cut::new(1, &[layers.max().unwrap() + 1]);
    let after = View::of(&source, &cut, Fill::Zero, None).unwrap().ranks();
    assert_eq!(after[0].1.tensors, before.tensors);
}

fn find_rank_file(root: &Path) -> PathBuf {
    let iterations = listed(root).into_iter().filter(|path| path.is_dir());
    iterations.map(|path| path.join("mp_rank_00/model_optim_rng.pt")).find(|path| path.exists()).unwrap()
}
