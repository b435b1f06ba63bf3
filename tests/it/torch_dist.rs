//! Distributed checkpoints of Megatron-core as sources, against the rank files that the same runs wrote.
//!
//! `tests/fixtures/dist-tiny/megatron` holds real ones of megatron-core 0.12.3 and 0.16.1 and of Megatron-LM after them: each model as rank
//! files and as torch_dist, in several layouts and with the optimizer in each of the five ways in which Megatron saves it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod nemo;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::run::program;
use crate::common::{Array, cut_out, models, open_pt};
use ckpt_fs::catalog::StateOf;
use ckpt_fs::source::{Options, open};
use ckpt_fs::store::FileStore;
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

// matrix: training: megatron-core megatron-core/experts megatron-core/latent megatron-core/predictions: torch_dist -> read
/// Weights alone: the digest knows nothing of layouts, formats and optimizers.
#[test]
fn every_model_is_that_of_its_rank_files() {
    for (ranks, dist) in [
        ("tied/legacy_pp2vpp2", "tied/mcore0161_tp2pp2"),
        // Of Megatron-LM after 0.16: without common.pt.
        ("tied/legacy_pp2vpp2", "tied/head_tp1pp1"),
        // Experts stacked on layers, saved by 4 ranks; layers of two kinds, each with keys of its own.
        ("moe/legacy_tp2pp2ep2_etp1", "moe/mcore0161_dpzero_tp2pp2ep2_etp1"),
        ("moemix/legacy_tp1pp1", "moemix/mcore0161_tp1pp1"),
        ("mla/legacy_tp1pp1", "mla/mcore0161_tp1pp1"),
        ("mtp/legacy_tp1pp1", "mtp/mcore0161_tp1pp1"),
    ] {
        assert_eq!(digest(ranks, &[]), digest(dist, &[]), "{dist}");
    }
}

// matrix: training: megatron-core: torch_dist -> read+optimizer
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
    // Experts have an optimizer and flat buffers of their own, which other ranks share than those of the rest.
    let wanted = digest("moe/legacy_tp2pp2ep2_etp1", &[]);
    assert_eq!((wanted.len(), digest("moe/mcore0161_dpzero_tp2pp2ep2_etp1", &[])), (2, wanted));
}

/// Every tensor of a rank file, and of the flat buffers beside it, by its place.
pub(crate) fn tensors(file: &Path) -> BTreeMap<String, Array> {
    let mut found = BTreeMap::new();
    for (file, is_model) in [(file.to_owned(), true), (file.with_file_name("distrib_optim.pt"), false)] {
        if !is_model && !file.exists() {
            continue;
        }
        let (tree, storages) = open_pt(&fs::read(&file).unwrap());
        collect(&tree, if is_model { "" } else { "buffers" }, &mut |path, tensor| {
            found.insert(path, cut_out(tensor, &storages[&*tensor.storage.key]));
        });
        assert_eq!(models(&tree).is_empty(), !is_model, "{}", file.display());
    }
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

// matrix: training: megatron-core megatron-core/experts: torch_dist -> megatron+optimizer
// matrix: training: megatron-core/latent megatron-core/predictions: torch_dist -> megatron
/// Tensor by tensor, read by nobody but the codecs: the model and, where there is one, the optimizer.
#[test]
fn rank_files_of_a_view_hold_what_the_run_saved_in_that_layout() {
    let here = TempDir::new().unwrap();
    for (number, (ranks, dist, flags)) in [
        ("optim/legacy_plain_tp2pp2", "optim/mcore0161_plain_tp2pp2", &["--tp", "2", "--pp", "2"][..]),
        (
            "moe/legacy_tp2pp2ep2_etp1",
            "moe/mcore0161_dpzero_tp2pp2ep2_etp1",
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

/// Weights and optimizer are there all the same, and what is not is said.
#[test]
fn a_damaged_random_number_state_is_left_out_and_said() {
    let name = "moe/mcore0161_dpzero_tp2pp2ep2_etp1";
    let here = TempDir::new().unwrap();
    for file in fs::read_dir(fixture(name).join("iter_0000002")).unwrap().flatten() {
        let mut bytes = fs::read(file.path()).unwrap();
        if let Some(at) = bytes.windows(16).position(|text| text == b"random_rng_state") {
            bytes[at - 4] = 0xff;
        }
        fs::write(here.path().join(file.file_name()), bytes).unwrap();
    }
    let path = here.path().display().to_string();
    let said = program(&["digest", path.as_str()]).ok();
    let found: Vec<&str> = said.out.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(found, digest(name, &[]));
    let said = program(&["ls", path.as_str()]).ok();
    assert!(said.err.contains("left out: rng_state"), "{}", said.err);
    let said = program(&["ls", fixture(name).to_str().unwrap()]).ok();
    assert!(!said.err.contains("left out"), "{}", said.err);
}

/// What Megatron-Bridge writes beside the same run: no args, and the same in its own words.
pub(crate) const RUN_CONFIG: &str = "\
_target_: megatron.bridge.training.config.ConfigContainer
ddp:
  use_distributed_optimizer: true
model:
  _target_: megatron.bridge.models.gpt_provider.GPTModelProvider
  activation_func:
    _call_: false
    _target_: torch.nn.functional.silu
  add_bias_linear: false
  add_qkv_bias: false
  bf16: true
  ffn_hidden_size: 44
  gated_linear_unit: true
  hidden_size: 24
  kv_channels: 6
  layernorm_epsilon: 1.0e-05
  make_vocab_size_divisible_by: 4
  normalization: RMSNorm
  num_attention_heads: 4
  num_layers: 2
  num_moe_experts: null
  num_query_groups: 2
  position_embedding_type: rope
  rotary_base: 10000
  seq_length: 64
  share_embeddings_and_output_weights: false
  should_pad_vocab: true
  strange:
    _target_: someone.Else
  tensor_model_parallel_size: 1
  transformer_impl: local
  vocab_size: 53
";

/// A copy of a fixture as Megatron-Bridge would have saved it.
pub(crate) fn of_bridge(name: &str, config: &str) -> TempDir {
    spoilt(name, |path| {
        let file = path.join("common.pt");
        let (tree, storages) = open_pt(&fs::read(&file).unwrap());
        let items = tree.items().unwrap().iter().filter(|(key, _)| key.as_str() != Some("args"));
        let storages: Vec<Vec<u8>> =
            (0..storages.len()).map(|number| storages[&number.to_string()].clone()).collect();
        fs::write(&file, crate::common::pt(&Value::Dict(items.cloned().collect()), &storages)).unwrap();
        fs::write(path.join("run_config.yaml"), config).unwrap();
        fs::write(path.join("train_state.pt"), "").unwrap();
        fs::create_dir(path.join("tokenizer")).unwrap();
    })
}

#[test]
fn a_run_of_bridge_says_in_its_config_what_args_say() {
    let name = "optim/mcore0161_fullre_tp1dp2";
    let bridge = of_bridge(name, RUN_CONFIG);
    let source = bridge.path().join("iter_0000007").display().to_string();
    let said = program(&["digest", source.as_str()]).ok();
    let digests: Vec<&str> = said.out.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(digests, digest("optim/legacy_plain_tp2pp2", &[]));
    let said = program(&["inspect", source.as_str()]).ok();
    for words in [
        "56 rows, 53 of them real",
        "model.strange of run_config.yaml (an object)",
        "train_state.pt",
        "tokenizer",
    ] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
    // A view of rank files has args, which whoever loads them looks for.
    let out = bridge.path().join("out");
    program(&["materialize", source.as_str(), &out.display().to_string(), "--tp", "2", "--quiet"]).ok();
    let file = out.join("iter_0000007/mp_rank_00/model_optim_rng.pt");
    let (tree, _) = open_pt(&fs::read(file).unwrap());
    let args = tree.get("args").unwrap();
    let number = |field: &str| args.attribute(field).and_then(Value::as_int);
    assert_eq!((number("num_layers"), number("tensor_model_parallel_size")), (Some(2), Some(2)));
    // And what config.json needs, which args of the fixtures do not have.
    let hf = bridge.path().join("hf").display().to_string();
    program(&["materialize", source.as_str(), hf.as_str(), "--as", "hf", "--quiet"]).ok();
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(Path::new(&hf).join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["model_type"], &config["rms_norm_eps"]), (&"llama".into(), &1e-5.into()));
    assert_eq!((&config["num_key_value_heads"], &config["vocab_size"]), (&2.into(), &53.into()));
    let of_hf = program(&["digest", hf.as_str()]).ok();
    assert!(of_hf.out.starts_with(digests[0]), "{}", of_hf.out);
}

#[test]
fn a_config_of_bridge_that_says_too_little_or_too_much_is_refused() {
    let refused = |config: &str, code: i32, words: &[&str]| {
        let bridge = of_bridge("optim/mcore0161_fullre_tp1dp2", config);
        let path = bridge.path().join("iter_0000007").display().to_string();
        program(&["digest", path.as_str()]).refused(code, words);
    };
    refused("a: [", 3, &["run_config.yaml", "not YAML"]);
    refused("train: {}", 3, &["run_config.yaml", "no section 'model'"]);
    refused(
        &RUN_CONFIG.replace("  num_attention_heads: 4\n", ""),
        4,
        &["run_config.yaml", "num_attention_heads"],
    );
    refused(
        &RUN_CONFIG.replace("torch.nn.functional.silu", "torch.nn.functional.mish"),
        3,
        &["activation_func", "mish"],
    );
    let bridge = of_bridge("optim/mcore0161_fullre_tp1dp2", RUN_CONFIG);
    fs::remove_file(bridge.path().join("iter_0000007/run_config.yaml")).unwrap();
    let path = bridge.path().join("iter_0000007").display().to_string();
    program(&["digest", path.as_str()]).refused(3, &["no 'args'", "no run_config.yaml"]);
    // Its tensors say otherwise.
    refused(&RUN_CONFIG.replace("  num_query_groups: 2", "  num_query_groups: 4"), 3, &["linear_qkv"]);
}

/// Megatron counts the steps of queries, keys and values together, and of gate and up: each of them took as many.
#[test]
fn steps_are_those_of_every_parameter_of_a_tensor() {
    for source in ["mcore0161_plain_tp2pp2", "legacy_plain_tp2pp2"] {
        let source =
            open(&fixture(&format!("optim/{source}")), &Options::default(), &FileStore::new()).unwrap();
        let optimizer = source.catalog.optimizer.as_ref().unwrap();
        let names = |state: &str| -> BTreeSet<String> {
            match &optimizer.state(state).unwrap().of {
                StateOf::Elements(params) | StateOf::Scalar(params) => {
                    params.all().iter().map(|param| param.name.to_string()).collect()
                }
                StateOf::Same(value) => panic!("{value:?}"),
            }
        };
        assert!(names("exp_avg").iter().any(|name| name.ends_with("attention.k.weight")));
        assert_eq!(names("step"), names("exp_avg"));
    }
}
