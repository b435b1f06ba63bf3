//! Real checkpoints as torch_dist, and what that is as a source once more: nothing is lost, and nothing is there that was not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::common::run::{Said, program};
use crate::common::source::Checkpoint;
use crate::common::{models, open_pt};
use crate::torch_dist::{fixture, rank_files, tensors};

fn run(words: &[&str], flags: &[&str], paths: &[&Path]) -> Said {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let paths = paths.iter().map(String::as_str);
    program(&words.iter().copied().chain(paths).chain(flags.iter().copied()).collect::<Vec<_>>())
}

/// Fingerprints of the weights, and of the optimizer where there is one.
fn digest(path: &Path) -> Vec<String> {
    let said = run(&["digest"], &[], &[path]).ok();
    said.out.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

/// A checkpoint of the fixtures as torch_dist.
fn as_dist(from: &Path, to: &Path, flags: &[&str]) -> PathBuf {
    run(&["materialize"], &[&["--as", "torch_dist"], flags].concat(), &[from, to]).ok();
    to.to_owned()
}

/// Rank files, and the same run as real distributed checkpoints.
const SAME: [(&str, &str, &[&str]); 6] = [
    ("optim/legacy_plain_tp2pp2", "optim/mcore0161_plain_tp2pp2", &["--tp", "2", "--pp", "2"]),
    (
        "moe/legacy_tp2pp2ep2_etp1",
        "moe/mcore0161_dpzero_tp2pp2ep2_etp1",
        &["--tp", "2", "--pp", "2", "--ep", "2", "--etp", "1"],
    ),
    ("moemix/legacy_tp1pp1", "moemix/mcore0161_tp1pp1", &["--tp", "1", "--pp", "1"]),
    ("tied/legacy_pp2vpp2", "tied/mcore0161_tp2pp2", &["--tp", "1", "--pp", "2", "--vpp", "2"]),
    ("mla/legacy_tp1pp1", "mla/mcore0161_tp1pp1", &["--tp", "1", "--pp", "1"]),
    ("mtp/legacy_tp1pp1", "mtp/mcore0161_tp1pp1", &["--tp", "1", "--pp", "1"]),
];

// matrix: digest: megatron-core megatron-core/experts: megatron torch_dist -> torch_dist+optimizer
// matrix: digest: megatron-core/latent megatron-core/predictions: megatron torch_dist -> torch_dist
/// Of rank files and of distributed ones; the optimizer is part of the fingerprint and of what `verify` compares.
#[test]
fn a_view_is_a_source_of_the_same() {
    let here = tempfile::tempdir().unwrap();
    for (number, (ranks, dist, flags)) in SAME.into_iter().enumerate() {
        let (ranks, dist) = (fixture(ranks), fixture(dist));
        for (kind, source) in [("ranks", &ranks), ("dist", &dist)] {
            let view = as_dist(source, &here.path().join(format!("{number}{kind}")), &[]);
            assert_eq!(digest(&view), digest(&ranks), "{}", source.display());
            run(&["verify"], &[], &[&view, &ranks]).ok();
            run(&["verify"], &[], &[&view]).ok();
            let back = here.path().join(format!("{number}{kind}.back"));
            run(&["materialize"], flags, &[&view, &back]).ok();
            for file in rank_files(&ranks) {
                let (wanted, found) = (ranks.join(&file), back.join(&file));
                // Random-number states are of one layout, which the view between them is not in.
                let mut tensors = [tensors(&wanted), tensors(&found)];
                tensors.iter_mut().for_each(|all| all.retain(|path, _| !path.starts_with("/rng_state/")));
                let mut keys = [keys(&wanted), keys(&found)];
                keys.iter_mut().for_each(|all| all.retain(|key| key != "rng_state"));
                assert!(tensors[0] == tensors[1], "{} of {}", file.display(), source.display());
                assert_eq!(keys[0], keys[1], "{} of {}", file.display(), source.display());
            }
        }
    }
}

/// Names in the model of a rank file, those of extra states included: who loads it asks for no more and no fewer.
fn keys(file: &Path) -> BTreeSet<String> {
    let (tree, _) = open_pt(&std::fs::read(file).unwrap());
    let all = models(&tree).into_iter().flat_map(|(_, model)| model.items().unwrap().to_vec());
    // The head has a state in rank files of some versions, and in no distributed checkpoint.
    all.filter_map(|(key, _)| key.as_str().map(str::to_owned))
        .filter(|key| key != "output_layer._extra_state")
        .collect()
}

/// However Megatron kept it, a view has it as one that any layout loads.
#[test]
fn every_form_of_the_optimizer_becomes_one() {
    let here = tempfile::tempdir().unwrap();
    let wanted = digest(&fixture("optim/legacy_plain_tp2pp2"));
    for dist in [
        "mcore0161_fullre_tp1dp2",
        "mcore0161_dpre_tp1dp2",
        "mcore0161_dpzero_tp1dp2",
        "mcore0123_fsms_tp1dp2",
    ] {
        for optimizer in ["keep", "mixed"] {
            let to = here.path().join(format!("{dist}{optimizer}"));
            let view = as_dist(&fixture(&format!("optim/{dist}")), &to, &["--optimizer", optimizer]);
            assert_eq!(digest(&view), wanted, "{dist} {optimizer}");
            let said = run(&["inspect"], &[], &[&view]).ok();
            let encoding = if optimizer == "mixed" { "mixed precision" } else { "distributed" };
            assert!(said.out.contains(encoding), "{dist}: {}", said.out);
        }
    }
}

// matrix: digest: llama: dcp -> torch_dist
/// From one kind of directory of DCP to the other: what FSDP saved, for Megatron.
#[test]
fn what_fsdp_saved_becomes_one() {
    let here = tempfile::tempdir().unwrap();
    let dcp = fixture("../dcp/llama_tied_bf16");
    let template = dcp.join("hf").display().to_string();
    let view = as_dist(&dcp.join("fsdp2_n3"), &here.path().join("view"), &["--template", &template]);
    assert_eq!(digest(&view), digest(&dcp.join("hf")));
}

/// A norm under the names of both kinds of layers is one norm: two copies that are compared.
#[test]
fn copies_of_a_norm_are_held_against_each_other() {
    let here = tempfile::tempdir().unwrap();
    let view =
        as_dist(&fixture("moe/legacy_tp2pp2ep2_etp1"), &here.path().join("view"), &["--optimizer", "none"]);
    run(&["verify"], &[], &[&view]).ok();
    let listed = run(&["ls"], &["--as", "torch_dist", "--tensors"], &[&view]).ok();
    for key in [
        "decoder.layers.pre_mlp_layernorm.weight[1:2, ",
        "decoder.layers.mlp.linear_fc1.layer_norm_weight[1:2, ",
    ] {
        assert!(listed.out.contains(key), "{key}");
    }
    // The bytes of the norm's first layer: as often in the file as it has names.
    let data = view.join("iter_0000002/__0_0.distcp");
    let mut bytes = std::fs::read(&data).unwrap();
    let ranks = fixture("moe/legacy_tp2pp2ep2_etp1/iter_0000002/mp_rank_00_000_000/model_optim_rng.pt");
    let norm =
        tensors(&ranks).into_iter().find(|(path, _)| path.ends_with("layers.0.pre_mlp_layernorm.weight"));
    let norm = norm.unwrap().1.bytes;
    let places: Vec<usize> =
        (0..bytes.len() - norm.len()).filter(|at| bytes[*at..].starts_with(&norm)).collect();
    assert!(places.len() >= 2, "{places:?}");
    bytes[places[0]] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let said = run(&["verify"], &[], &[&view]);
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
}

/// What is told of it, and what is not.
#[test]
fn inspect_says_that_it_is_possible() {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::small().write(dir.path());
    let formats = |more: &[&str]| {
        let said = run(&["inspect"], &[&["--json"], more].concat(), &[dir.path()]).ok().json();
        let all = said["formats"].as_array().unwrap().clone();
        move |name: &str| all.iter().find(|format| format["format"] == name).unwrap()["refused"].clone()
    };
    let of = formats(&[]);
    assert!(of("torch_dist").is_null());
    assert!(of("dcp").is_string());
    let said = run(&["inspect"], &["--as", "torch_dist"], &[dir.path()]).ok();
    for words in ["--ckpt-format torch_dist", "rng_state (only Megatron views have it)"] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
}
