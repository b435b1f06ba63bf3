//! Distributed checkpoints of Megatron-core as sources, against the rank files that the same runs wrote.
//!
//! `tests/fixtures/dist-tiny/megatron` holds real ones of megatron-core 0.12.3 and 0.16.1 and of Megatron-LM after them: each model as rank
//! files and as torch_dist, in several layouts and with the optimizer in each of the five ways in which Megatron saves it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::run::program;
use crate::common::{Array, cut_out, models, open_pt};
use ckpt_fs::value::{TensorRef, Value};
use tempfile::TempDir;

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dist-tiny/megatron").join(name)
}

fn digest(name: &str, more: &[&str]) -> Vec<String> {
    let path = fixture(name).display().to_string();
    let said = program(&[&["digest", path.as_str()], more].concat()).ok();
    said.out.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

/// Weights alone: the digest knows nothing of layouts, formats and optimizers.
#[test]
fn every_model_is_that_of_its_rank_files() {
    for (ranks, dist) in [
        ("tied/legacy_pp2vpp2", "tied/mcore0161_tp2pp2"),
        // Of Megatron-LM after 0.16: without common.pt.
        ("tied/legacy_pp2vpp2", "tied/head_tp1pp1"),
        // Experts stacked on layers, saved by 4 ranks; layers of two kinds, each with keys of its own.
        ("moe/legacy_tp2pp2ep2_etp1", "moe/mcore0161_tp2pp2ep2_etp1"),
        ("moemix/legacy_tp1pp1", "moemix/mcore0161_tp1pp1"),
        ("mla/legacy_tp1pp1", "mla/mcore0161_tp1pp1"),
        ("mtp/legacy_tp1pp1", "mtp/mcore0161_tp1pp1"),
    ] {
        assert_eq!(digest(ranks, &[]), digest(dist, &[]), "{dist}");
    }
}

#[test]
fn every_form_of_the_optimizer_is_that_of_its_rank_files() {
    let wanted = digest("optim/legacy_plain_tp2pp2", &[]);
    assert_eq!(wanted.len(), 2);
    for dist in [
        "mcore0161_plain_tp2pp2",
        "mcore0161_fullre_tp1dp2",
        "mcore0161_dpre_tp1dp2",
        "mcore0161_dpzero_tp1dp2",
        "mcore0123_fsms_tp1dp2",
    ] {
        assert_eq!(digest(&format!("optim/{dist}"), &[]), wanted, "{dist}");
    }
    assert_eq!(digest("optim/mcore0161_dpre_tp1dp2", &["--optimizer", "none"]), wanted[..1]);
}

/// Every tensor of a rank file, by its place.
pub(crate) fn tensors(file: &Path) -> BTreeMap<String, Array> {
    let (tree, storages) = open_pt(&fs::read(file).unwrap());
    let mut found = BTreeMap::new();
    collect(&tree, "", &mut |path, tensor| {
        found.insert(path, cut_out(tensor, &storages[&*tensor.storage.key]));
    });
    assert!(!models(&tree).is_empty(), "{}", file.display());
    found
}

/// The tensors in dicts and lists. Args are no tensors.
fn collect(value: &Value, prefix: &str, found: &mut dyn FnMut(String, &TensorRef)) {
    if let Some(tensor) = value.tensor() {
        return found(prefix.to_owned(), tensor);
    }
    for (key, inner) in value.items().unwrap_or_default() {
        let key = key.as_str().map_or_else(|| format!("{:?}", key.as_int()), ToOwned::to_owned);
        collect(inner, &format!("{prefix}/{key}"), found);
    }
    for (index, inner) in value.elements().unwrap_or_default().iter().enumerate() {
        collect(inner, &format!("{prefix}/{index}"), found);
    }
}

pub(crate) fn rank_files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for iteration in fs::read_dir(root).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        for rank in fs::read_dir(iteration.path()).unwrap().flatten() {
            let file = rank.path().join("model_optim_rng.pt");
            found.push(file.strip_prefix(root).unwrap().to_owned());
        }
    }
    found.sort();
    found
}

/// Tensor by tensor, read by nobody but the codecs: the model and, where there is one, the optimizer.
#[test]
fn rank_files_of_a_view_hold_what_the_run_saved_in_that_layout() {
    let here = TempDir::new().unwrap();
    for (number, (ranks, dist, flags)) in [
        ("optim/legacy_plain_tp2pp2", "optim/mcore0161_plain_tp2pp2", &["--tp", "2", "--pp", "2"][..]),
        (
            "moe/legacy_tp2pp2ep2_etp1",
            "moe/mcore0161_tp2pp2ep2_etp1",
            &["--tp", "2", "--pp", "2", "--ep", "2", "--etp", "1"],
        ),
        ("tied/legacy_pp2vpp2", "tied/mcore0161_tp2pp2", &["--tp", "1", "--pp", "2", "--vpp", "2"]),
        ("mla/legacy_tp1pp1", "mla/mcore0161_tp1pp1", &["--tp", "1", "--pp", "1"]),
        ("mtp/legacy_tp1pp1", "mtp/mcore0161_tp1pp1", &["--tp", "1", "--pp", "1"]),
    ]
    .into_iter()
    .enumerate()
    {
        let out = here.path().join(number.to_string());
        let (from, to) = (fixture(dist).display().to_string(), out.display().to_string());
        program(&[&["materialize", from.as_str(), to.as_str()], flags].concat()).ok();
        let files = rank_files(&fixture(ranks));
        // Experts that no process has are in a view all the same.
        assert!(!files.is_empty() && rank_files(&out).len() >= files.len());
        for file in files {
            let (wanted, found) = (tensors(&fixture(ranks).join(&file)), tensors(&out.join(&file)));
            let names = |all: &BTreeMap<String, Array>| all.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&wanted), names(&found), "{dist}: {}", file.display());
            for (name, array) in &wanted {
                assert!(array == &found[name], "{dist}: {}: {name}", file.display());
            }
        }
    }
}

/// What is asked for where nothing is said: rank files in the layout of the mount's name.
#[test]
fn a_source_without_a_layout_is_shown_as_rank_files() {
    let from = fixture("optim/mcore0161_plain_tp2pp2").display().to_string();
    let said = program(&["ls", from.as_str(), "--tp", "4"]).ok();
    assert!(said.out.contains("mp_rank_03/model_optim_rng.pt"), "{}", said.out);
    let said = program(&["inspect", from.as_str()]).ok();
    for words in
        ["torch_dist", "mixed precision, 3 states", "56 rows, 53 of them real", "iteration          7"]
    {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
}

/// A copy of a fixture with a change.
fn spoilt(name: &str, change: impl FnOnce(&Path)) -> TempDir {
    let here = TempDir::new().unwrap();
    let iteration = fixture(name).join("iter_0000007");
    let copy = here.path().join("iter_0000007");
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(iteration).unwrap().flatten() {
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    change(&copy);
    here
}

fn refused(name: &str, code: i32, words: &[&str], change: impl FnOnce(&Path)) {
    let here = spoilt(name, change);
    let path = here.path().join("iter_0000007").display().to_string();
    program(&["digest", path.as_str()]).refused(code, words);
}

#[test]
fn what_is_missing_is_named() {
    let plain = "optim/mcore0161_plain_tp2pp2";
    refused(plain, 3, &["__2_1.distcp"], |path| fs::remove_file(path.join("__2_1.distcp")).unwrap());
    refused(plain, 3, &["__0_0.distcp"], |path| {
        let file = fs::OpenOptions::new().write(true).open(path.join("__0_0.distcp")).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    });
    refused(plain, 3, &["common.pt", "common_state"], |path| {
        fs::remove_file(path.join("common.pt")).unwrap()
    });
}
