//! Every family, arrangement and kind of storage: views of synthetic checkpoints against the naive answer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use crate::common::cases::cases;
use crate::common::choose::{pick, stages};
use crate::common::naive::{Config, Cut, Fill, Kind, Mla, Moe, Written};
use crate::common::run::View;
use crate::common::source::Checkpoint;
use crate::common::{Array, Keep, Pt, read_pt_file};
use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::Value;
use proptest::prelude::*;

/// Holds what a rank file has against what it should have.
fn check_rank(found: &Pt, wanted: &[(String, Array)], what: &str) {
    let names = |list: &[(String, Array)]| list.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found.tensors), names(wanted), "{what}: names and order");
    for ((path, found), (_, wanted)) in found.tensors.iter().zip(wanted) {
        assert_eq!((found.dtype, &found.shape), (wanted.dtype, &wanted.shape), "{what}: {path}");
        assert!(found.bytes == wanted.bytes, "{what}: {path} has other bytes");
    }
}

/// Holds the layout fields of a rank's args against Megatron's.
fn check_args(
    found: &Pt,
    config: &Config,
    (source, target): (&Cut, &Cut),
    rank: (u64, u32, u64),
    what: &str,
) {
    let args = found.tree.get("args").unwrap();
    let int = |field: &str| args.attribute(field).and_then(Value::as_int).map(|n| n as u64);
    assert_eq!(int("tensor_model_parallel_size"), Some(target.tp), "{what}");
    assert_eq!(int("pipeline_model_parallel_size"), Some(target.pp().into()), "{what}");
    assert_eq!(int("padded_vocab_size"), Some(config.padded(target.tp)), "{what}");
    let dp = target.replicas(source.replicas(1));
    assert_eq!(int("data_parallel_size"), Some(dp), "{what}");
    if let Some(process) = target.process(rank, dp) {
        assert_eq!(int("rank"), Some(process), "{what}");
    }
    assert_eq!(int("world_size"), Some(u64::from(target.pp()) * target.tp * dp), "{what}");
    let vpp = (target.vpp > 1).then_some(u64::from(target.vpp));
    assert_eq!(int("virtual_pipeline_model_parallel_size"), vpp, "{what}");
    if config.kind.is_core() {
        assert_eq!(int("expert_model_parallel_size"), Some(target.ep), "{what}");
        assert_eq!(int("expert_tensor_parallel_size"), Some(target.etp), "{what}");
    }
    assert_eq!(args.attribute("save").and_then(Value::as_str), Some("/checkpoints"), "{what}");
    assert_eq!(int("vocab_size"), config.vocab_in_args.then_some(config.vocab), "{what}");
}

/// The view of the checkpoint at `root` in layout `target` is the naive answer.
fn check_view(root: &Path, config: &Config, source: &Cut, target: &Cut, fill: Fill) {
    let written = Written { fill, ..Written::new(config, source) };
    let given = (!config.vocab_in_args).then_some(config.vocab);
    let ranks = View::of(root, target, fill, given).unwrap().ranks();
    let mut expected = target.all_ranks();
    expected.sort_unstable();
    assert_eq!(ranks.len(), expected.len());
    for ((path, found), rank) in ranks.iter().zip(expected) {
        let what = format!("{source:?} -> {target:?} {config:?}: {path}");
        assert!(path.ends_with(&format!("/{}/model_optim_rng.pt", target.dir(rank))), "{what}");
        check_rank(found, &written.whole_rank(target, rank), &what);
        check_args(found, config, (source, target), rank, &what);
    }
}

/// Writes `checkpoint` and checks its views in these layouts.
fn check(checkpoint: &Checkpoint, targets: &[Cut]) {
    let dir = tempfile::tempdir().unwrap();
    checkpoint.write(dir.path());
    for target in targets {
        check_view(dir.path(), &checkpoint.config, &checkpoint.cut, target, Fill::Zero);
    }
}

/// These stages, so many on each rank as `choice` says of what is possible.
fn cut(tp: u64, stages: &[u32], choice: usize) -> Cut {
    let count = stages.len() as u32;
    let possible: Vec<u32> =
        (1..=count).filter(|vpp| count.is_multiple_of(*vpp) && (*vpp == 1 || count > *vpp)).collect();
    Cut::new(tp, stages).virtually(pick(&possible, choice))
}

/// A size that divides `whole`.
fn divisor(whole: u64, choice: usize) -> u64 {
    pick(&(1..=whole).filter(|n| whole.is_multiple_of(*n)).collect::<Vec<_>>(), choice)
}

fn lcm(a: u64, b: u64) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    a / gcd(a, b) * b
}

prop_compose! {
    /// A model that allows both TP sizes, and two layouts of it.
    fn any_case()(
        kind in 0usize..4, tps in (1u64..9, 1u64..9), more in (1u64..3, 1u64..3, 1u64..3), groups in 0usize..64,
        layers in 1u32..6, ends in (prop::collection::vec(0u32..6, 0..4), prop::collection::vec(0u32..6, 0..4)),
        hidden in 1u64..7, vocab in (1u64..80, 1u64..9), flags in any::<[bool; 6]>(), dtype in 0usize..8,
        positions in prop::option::of(1u64..5), keep in 0usize..4, last_row in any::<bool>(),
        (turns, eps, etps, moe) in ((0usize..4, 0usize..4), (1u64..5, 1u64..5), (0usize..4, 0usize..4), prop::option::of((1u32..4, any::<[bool; 2]>()))),
    ) -> (Checkpoint, Cut, Fill) {
        let kinds = [Kind::Core, Kind::CoreTe, Kind::Legacy, Kind::LegacyNewNorms];
        let dtypes = [
            Dtype::Bfloat16, Dtype::Float16, Dtype::Float32, Dtype::Float64, Dtype::Float8E4m3fn, Dtype::Float8E5m2,
            Dtype::Int8, Dtype::Complex64,
        ];
        let kind = pick(&kinds, kind);
        let both = lcm(tps.0, tps.1);
        let heads = both * more.0;
        let allowed = |groups: &u64| {
            // Only megatron-core lets several ranks share a query group.
            let fits = |tp: u64| {
                groups.is_multiple_of(tp) || (kind.is_core() && tp.is_multiple_of(*groups))
            };
            // Where ranks share a group, the rows of the fused tensor must still divide.
            let rows = (heads + 2 * groups) * more.1;
            heads.is_multiple_of(*groups)
                && fits(tps.0)
                && fits(tps.1)
                && rows.is_multiple_of(tps.0)
                && rows.is_multiple_of(tps.1)
        };
        let groups = pick(&(1..=heads).filter(allowed).collect::<Vec<_>>(), groups);
        let config = Config {
            kind, layers, hidden, heads, groups, head: more.1, ffn: both * more.2, vocab: vocab.0, multiple: vocab.1,
            vocab_in_args: flags[0], dtype: pick(&dtypes, dtype), gated: flags[1], bias: flags[2], norm_bias: flags[3], qkv_bias: false,
            qk_norm: flags[4] && kind.is_core(), tied: flags[5], positions,
            moe: moe.filter(|_| kind.is_core()).map(|(every, [shared, grouped])| Moe {
                experts: lcm(eps.0, eps.1), ffn: both * more.2, every, shared: shared.then_some(both), grouped, ..Moe::default()
            }),
            mla: None, predictions: 0, salt: 0,
        };
        let cut = |tp, ends: &[u32], turns, ep, etp| {
            let cut = if kind.is_core() { cut(tp, &stages(layers, ends), turns) } else { Cut::new(tp, &stages(layers, ends)) };
            if config.moe.is_some() { cut.experts(ep, divisor(tp, etp)) } else { cut }
        };
        let source = cut(tps.0, &ends.0, turns.0, eps.0, etps.0);
        let target = cut(tps.1, &ends.1, turns.1, eps.1, etps.1);
        let keeps = [Keep::Own, Keep::Shared, Keep::Transposed, Keep::Loose];
        let mut checkpoint = Checkpoint::new(&config, &source);
        checkpoint.keep = pick(&keeps, keep);
        let fill = if last_row { Fill::LastRow } else { Fill::Zero };
        (checkpoint, target, fill)
    }
}

proptest! {
    #![proptest_config(cases(120))]

    // matrix: naive: megatron-core megatron-core/experts megatron-legacy: megatron -> megatron
    #[test]
    fn any_model_in_any_layout_is_the_naive_answer((checkpoint, target, fill) in any_case()) {
        let dir = tempfile::tempdir().unwrap();
        checkpoint.write(dir.path());
        check_view(dir.path(), &checkpoint.config, &checkpoint.cut, &target, fill);
        // The source's own layout is the source, padding rows included.
        check_view(dir.path(), &checkpoint.config, &checkpoint.cut, &checkpoint.cut, fill);
    }
}

#[test]
fn transformer_engine_spelling_stays_transformer_engines() {
    let config = Config { kind: Kind::CoreTe, bias: true, norm_bias: true, ..Config::default() };
    check(&Checkpoint::new(&config, &Cut::new(2, &[4])), &[Cut::new(1, &[1, 3]), Cut::new(4, &[4])]);
}

#[test]
fn legacy_gpt_in_both_spellings_of_its_norms() {
    for kind in [Kind::Legacy, Kind::LegacyNewNorms] {
        let config = Config {
            kind,
            groups: 4,
            gated: false,
            bias: true,
            norm_bias: true,
            tied: true,
            positions: Some(3),
            ..Config::default()
        };
        let targets = [Cut::new(1, &[4]), Cut::new(4, &[2, 2]), Cut::new(2, &[1, 2, 1])];
        check(&Checkpoint::new(&config, &Cut::new(1, &[4])), &targets);
        check(&Checkpoint::new(&config, &Cut::new(4, &[1, 3])), &targets);
    }
}

const MOE: Moe = Moe {
    experts: 4,
    ffn: 8,
    every: 1,
    shared: Some(4),
    grouped: false,
    expert_bias: true,
    shared_gate: false,
};

#[test]
fn virtual_stages_come_and_go() {
    let config = Config { layers: 6, tied: true, ..Config::default() };
    let cuts = [
        Cut::new(1, &[6]),
        Cut::new(2, &[1; 6]).virtually(3),
        Cut::new(1, &[1, 2, 2, 1]).virtually(2),
        Cut::new(4, &[3, 3]),
    ];
    for source in &cuts {
        check(&Checkpoint::new(&config, source), &cuts);
    }
    // The training code of older models says virtual stages by their one length.
    let legacy = Config { kind: Kind::Legacy, groups: 4, layers: 6, ..Config::default() };
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::new(&legacy, &cuts[0]).write(dir.path());
    check_view(dir.path(), &legacy, &cuts[0], &cuts[1], Fill::Zero);
    let error = View::of(dir.path(), &cuts[2], Fill::Zero, None).err().unwrap();
    assert!(error.contains("1,2,2,1") && error.contains("as many layers"), "{error}");
}

#[test]
fn experts_in_every_layout() {
    for (every, shared, grouped) in [(1, Some(4), false), (2, None, true), (3, Some(8), false)] {
        let moe = Some(Moe { every, shared, grouped, ..MOE });
        let kind = if grouped { Kind::CoreTe } else { Kind::Core };
        let config = Config { kind, moe, bias: grouped, ..Config::default() };
        let cuts = [
            Cut::new(1, &[4]),
            Cut::new(2, &[2, 2]).experts(2, 1),
            Cut::new(2, &[1, 1, 1, 1]).virtually(2).experts(4, 2),
            Cut::new(4, &[1, 3]).experts(1, 2),
        ];
        for source in &cuts {
            check(&Checkpoint::new(&config, source), &cuts);
        }
    }
}

// matrix: naive: megatron-core/latent: megatron -> megatron
#[test]
fn latent_attention() {
    let cuts = [Cut::new(1, &[4]), Cut::new(2, &[1, 1, 1, 1]).virtually(2), Cut::new(4, &[2, 2])];
    let all = [(Kind::Core, Some(8), false), (Kind::CoreTe, Some(8), true), (Kind::Core, None, false)];
    for (kind, q_rank, te) in all {
        let mla = Some(Mla { q_rank, kv_rank: 6, position: 2, value: 3, te });
        let config = Config { kind, mla, head: 4, groups: 4, ..Config::default() };
        // Where tensor parallelism is at work, the files say what is cut and what is copied.
        check(&Checkpoint::new(&config, &cuts[1]), &cuts);
        check(&Checkpoint::new(&config, &cuts[2]), &cuts);
        // Elsewhere args do, those of versions that mean something by it.
        let said = |field: &str, checkpoint: Checkpoint| {
            let value = if te { "transformer_engine" } else { "local" };
            let checkpoint = checkpoint.arg("transformer_impl", &Value::str(value));
            checkpoint.arg(field, &Value::Bool(false))
        };
        check(&said("mla_down_proj_fusion", Checkpoint::new(&config, &cuts[0])), &cuts);
        let old = said("another_field", Checkpoint::new(&config, &cuts[0]));
        check(&old, &[Cut::new(1, &[1, 3])]);
        let dir = tempfile::tempdir().unwrap();
        old.write(dir.path());
        let error = View::of(dir.path(), &cuts[1], Fill::Zero, None).err().unwrap();
        assert!(error.contains("down_proj.weight") && error.contains("--family"), "{error}");
    }
}

// matrix: naive: megatron-core/predictions: megatron -> megatron
#[test]
fn predictions_stand_on_the_last_stage() {
    for (tied, moe) in [(false, None), (true, Some(Moe { every: 3, ..MOE }))] {
        let config = Config { predictions: 2, tied, moe, hidden: 8, ..Config::default() };
        let with = |cut: Cut, ep| {
            if moe.is_some() {
                let tp = cut.tp;
                cut.experts(ep, tp)
            } else {
                cut
            }
        };
        let cuts = [
            with(Cut::new(1, &[4]), 1),
            with(Cut::new(2, &[1, 1, 1, 1]).virtually(2), 2),
            with(Cut::new(4, &[1, 3]), 4),
        ];
        for source in &cuts {
            check(&Checkpoint::new(&config, source), &cuts);
        }
        let dir = tempfile::tempdir().unwrap();
        Checkpoint::new(&config, &cuts[0]).write(dir.path());
        let text = |text: &str| ckpt!("ls", dir.path(), "--pp", "2", "--pp-layout", text);
        text("Ettt|tmmL").ok();
        text("Ettt|tmL").refused(5, &["has 1 multi-token-prediction layers", "the model has 2"]);
    }
}

#[test]
fn experts_there_and_back() {
    let config = Config { moe: Some(MOE), vocab: 16, ..Config::default() };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let source = Cut::new(2, &[1, 1, 1, 1]).virtually(2).experts(2, 1);
    Checkpoint::new(&config, &source).write(&path("source"));
    ckpt!("materialize", path("source"), path("there"), "--tp", "4", "--pp", "1", "--ep", "4", "--etp", "2")
        .ok();
    ckpt!(
        "materialize",
        path("there"),
        path("back"),
        "--tp",
        "2",
        "--pp",
        "2",
        "--vpp",
        "2",
        "--ep",
        "2",
        "--etp",
        "1"
    )
    .ok();
    for rank in source.all_ranks() {
        let file = Path::new("iter_0000100").join(source.dir(rank)).join("model_optim_rng.pt");
        let (before, after) =
            (read_pt_file(&path("source").join(&file)), read_pt_file(&path("back").join(&file)));
        assert_eq!(before.tensors, after.tensors, "{}", file.display());
    }
    ckpt!("verify", path("source"), path("there")).ok();
    // Text of Megatron's for the same stages.
    let text = "Et|(t|)*2tL";
    let said = ckpt!(
        "ls",
        path("there"),
        "--tp",
        "2",
        "--pp",
        "2",
        "--ep",
        "2",
        "--etp",
        "1",
        "--pp-layout",
        text,
        "--json"
    );
    let said = said.ok().json();
    assert_eq!(said["layout"], "tp2pp2vpp2ep2etp1");
}

#[test]
fn gates_biases_and_query_norms() {
    for gated in [true, false] {
        let config = Config { gated, bias: true, qk_norm: true, norm_bias: true, ..Config::default() };
        let targets = [Cut::new(1, &[4]), Cut::new(4, &[2, 2]), Cut::new(2, &[4])];
        check(&Checkpoint::new(&config, &Cut::new(2, &[2, 2])), &targets);
    }
}

#[test]
fn more_ranks_than_query_groups() {
    // Two groups of six heads: at TP 4, 6 and 12 a rank holds part of a group, and some ranks no key at all.
    let config = Config { heads: 12, groups: 2, head: 3, ffn: 12, ..Config::default() };
    let cuts: Vec<_> = [1, 2, 4, 6, 12].iter().map(|tp| Cut::new(*tp, &[4])).collect();
    for source in &cuts {
        check(&Checkpoint::new(&config, source), &cuts);
    }
    let one = Config { heads: 8, groups: 1, head: 4, ffn: 8, bias: true, ..config };
    let cuts: Vec<_> = [1, 2, 8].iter().map(|tp| Cut::new(*tp, &[4])).collect();
    check(&Checkpoint::new(&one, &cuts[2]), &cuts);
}

#[test]
fn a_fused_tensor_whose_rows_do_not_divide_is_no_possible_layout() {
    // TP 8 shares the one group and divides the heads, but not the (8 + 2) x 3 rows of linear_qkv.
    let config = Config { heads: 8, groups: 1, head: 3, ffn: 8, ..Config::default() };
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::new(&config, &Cut::new(1, &[4])).write(dir.path());
    let error = View::of(dir.path(), &Cut::new(8, &[4]), Fill::Zero, None).err().unwrap();
    assert!(error.contains("linear_qkv") && error.contains("possible: 1, 2"), "{error}");
}

#[test]
fn prime_sizes() {
    let config =
        Config { heads: 105, groups: 105, head: 1, ffn: 105, hidden: 3, layers: 5, ..Config::default() };
    let cuts: Vec<_> = [(3, 5), (5, 3), (7, 1), (1, 2)]
        .into_iter()
        .map(|(tp, pp)| Cut::new(tp, &stages(5, &(0..pp - 1).collect::<Vec<_>>())))
        .collect();
    for source in &cuts {
        check(&Checkpoint::new(&config, source), &cuts);
    }
}

#[test]
fn tied_copies_come_and_go() {
    for kind in [Kind::Core, Kind::Legacy] {
        let config = Config { kind, groups: 4, tied: true, ..Config::default() };
        let targets = [Cut::new(1, &[4]), Cut::new(2, &[1, 3]), Cut::new(4, &[1, 1, 1, 1])];
        for source in &targets {
            check(&Checkpoint::new(&config, source), &targets);
        }
    }
}

#[test]
fn every_dtype() {
    for dtype in Dtype::all() {
        let config = Config { dtype, layers: 1, ..Config::default() };
        check(&Checkpoint::new(&config, &Cut::new(2, &[1])), &[Cut::new(1, &[1]), Cut::new(4, &[1])]);
    }
}

#[test]
fn vocabulary_padding_grows_and_shrinks() {
    // True size 11, multiple 4: 12 rows at TP 1, 16 at TP 2 and 4.
    let config = Config { ffn: 24, heads: 24, groups: 24, vocab: 25, ..Config::default() };
    let cuts: Vec<_> = [1, 2, 3, 4, 8].iter().map(|tp| Cut::new(*tp, &[4])).collect();
    let rows: Vec<_> = cuts.iter().map(|cut| config.padded(cut.tp)).collect();
    assert_eq!(rows, [28, 32, 36, 32, 32]);
    let dir = tempfile::tempdir().unwrap();
    for source in &cuts {
        let root = dir.path().join(source.tp.to_string());
        Checkpoint::new(&config, source).write(&root);
        for target in &cuts {
            check_view(&root, &config, source, target, Fill::Zero);
            check_view(&root, &config, source, target, Fill::LastRow);
        }
    }
}

#[test]
fn an_unknown_true_size_is_asked_for_only_where_it_matters() {
    let config = Config { vocab_in_args: false, ..Config::default() };
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::new(&config, &Cut::new(1, &[4])).write(dir.path());
    let view =
        |tp, given| View::of(dir.path(), &Cut::new(tp, &[4]), Fill::Zero, given).map(|view| view.ranks());
    // 12 rows at TP 1 came of 9 to 12 true ones, all of which are 16 rows at TP 2 and 4.
    assert!(view(1, None).is_ok() && view(2, None).is_ok());
    let root = dir.path().join("tp2");
    Checkpoint::new(&config, &Cut::new(2, &[4])).write(&root);
    let error = View::of(&root, &Cut::new(1, &[4]), Fill::Zero, None).err().unwrap();
    assert!(error.contains("--vocab-size") && error.contains("16 rows"), "{error}");
    check_view(&root, &config, &Cut::new(2, &[4]), &Cut::new(1, &[4]), Fill::Zero);
    for (wrong, words) in [(17, "more than the 16 rows"), (8, "padded to 8"), (0, "--vocab-size 0")] {
        let error = View::of(&root, &Cut::new(1, &[4]), Fill::Zero, Some(wrong)).err().unwrap();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn an_args_vocabulary_that_does_not_give_the_stored_rows_is_not_believed() {
    let config = Config::default();
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::new(&config, &Cut::new(2, &[4])).arg("vocab_size", &Value::Int(3)).write(dir.path());
    let error = View::of(dir.path(), &Cut::new(1, &[4]), Fill::Zero, None).err().unwrap();
    assert!(error.contains("--vocab-size"), "{error}");
}

#[test]
fn any_storage_is_read_as_it_is_laid_out() {
    let config = Config { bias: true, qk_norm: true, tied: true, ..Config::default() };
    for keep in [Keep::Own, Keep::Shared, Keep::Transposed, Keep::Loose] {
        let mut checkpoint = Checkpoint::new(&config, &Cut::new(2, &[2, 2]));
        checkpoint.keep = keep;
        check(&checkpoint, &[Cut::new(1, &[4]), Cut::new(4, &[1, 3]), Cut::new(2, &[2, 2])]);
    }
}

#[test]
fn parameters_and_tensors_on_a_gpu_are_tensors() {
    let mut checkpoint = Checkpoint::new(&Config::default(), &Cut::new(2, &[2, 2]));
    checkpoint.location = "cuda:3".into();
    checkpoint.parameters = true;
    check(&checkpoint, &[Cut::new(1, &[4]), Cut::new(4, &[1, 3])]);
    let dir = tempfile::tempdir().unwrap();
    checkpoint.write(dir.path());
    for (path, bytes) in View::of(dir.path(), &Cut::new(1, &[4]), Fill::Zero, None).unwrap().files() {
        assert!(!String::from_utf8_lossy(&bytes).contains("cuda"), "{path}");
    }
}

#[test]
fn there_and_back_is_the_identity() {
    let config = Config { bias: true, tied: true, vocab: 12, ..Config::default() };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let source = Cut::new(2, &[1, 3]);
    Checkpoint::new(&config, &source).write(&path("source"));
    // At TP 1 the padding rows 12 to 15 do not fit: zeros come back in their place.
    let there = ckpt!("materialize", path("source"), path("there"), "--tp", "1", "--pp", "4");
    there.ok();
    ckpt!("materialize", path("there"), path("back"), "--tp", "2", "--pp-layers", "1,3").ok();
    let mut files = 0;
    for (tp, pp) in source.ranks() {
        let rank = Path::new("iter_0000100").join(source.rank_dir(tp, pp)).join("model_optim_rng.pt");
        let (before, after) =
            (read_pt_file(&path("source").join(&rank)), read_pt_file(&path("back").join(&rank)));
        for ((name, before), (again, after)) in before.tensors.iter().zip(&after.tensors) {
            assert_eq!((name, &before.shape), (again, &after.shape));
            let rows = if name.contains("word_embeddings") || name == "output_layer.weight" {
                config.vocab.saturating_sub(tp * before.shape[0]).min(before.shape[0])
            } else {
                before.shape[0]
            };
            assert_eq!(before.rows(0, rows), after.rows(0, rows), "{name}");
            assert!(after.rows(rows, after.shape[0]).bytes.iter().all(|byte| *byte == 0), "{name}");
        }
        files += 1;
    }
    assert_eq!(files, 4);
    let tracker = fs::read_to_string(path("back").join("latest_checkpointed_iteration.txt")).unwrap();
    assert_eq!(tracker, "100");
    ckpt!("verify", path("source"), path("back")).ok();
}
