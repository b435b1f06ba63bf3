//! Optimizer state in any layout and encoding: views of synthetic checkpoints against the naive answer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::common::cases::cases;
use crate::common::choose::{pick, stages};
use crate::common::manifest::{first_difference, tree};
use crate::common::naive::{Config, Cut, Fill, Kind, Moe};
use crate::common::optimizer::{Encoding, Era, RankFiles, Steps, Trained};
use crate::common::run::View;
use crate::common::{open_pt, pt};
use ckpt_fs::tensor::Dtype;
use ckpt_fs::view::{OptimizerChoice, ViewOptions, VocabularyFill};
use proptest::prelude::*;
use serde_json::Value as Json;

fn choices(encoding: Encoding, fill: Fill) -> ViewOptions {
    ViewOptions {
        optimizer: match encoding {
            Encoding::Mixed => OptimizerChoice::Mixed,
            Encoding::Distributed => OptimizerChoice::Distributed,
        },
        fill: if fill == Fill::Zero { VocabularyFill::Zero } else { VocabularyFill::LastRow },
        ..ViewOptions::default()
    }
}

/// Files of a view, by their paths.
fn view(root: &Path, cut: &Cut, encoding: Encoding, fill: Fill) -> HashMap<String, Vec<u8>> {
    View::choosing(root, cut, &choices(encoding, fill)).unwrap().files().into_iter().collect()
}

/// Every entry of a rank file that holds tensors, with their digests.
fn entries(bytes: &[u8]) -> Vec<Json> {
    let (value, storages) = open_pt(bytes);
    let items = value.items().unwrap().iter().filter_map(|(key, value)| Some((key.as_str()?, value)));
    let wanted = items.filter(|(name, _)| {
        name.starts_with("model") || ["optimizer", "opt_param_scheduler", "rng_state"].contains(name)
    });
    wanted.map(|(name, value)| serde_json::json!([name, tree(value, &storages)])).collect()
}

/// The tree of a file with flat buffers.
fn whole(bytes: &[u8]) -> Json {
    let (value, storages) = open_pt(bytes);
    tree(&value, &storages)
}

/// Holds a view against the files that it is to have.
fn check(found: &HashMap<String, Vec<u8>>, wanted: &[RankFiles], what: &str) {
    let mut files = 1;
    for rank in wanted {
        let path = |name: &str| format!("iter_0000100/{}/{name}", rank.dir);
        let (found_entries, bytes) =
            (entries(&found[&path("model_optim_rng.pt")]), pt(&rank.model.0, &rank.model.1));
        let wanted_entries = entries(&bytes);
        assert_eq!(found_entries.len(), wanted_entries.len(), "{what}: {}", rank.dir);
        for (found, wanted) in found_entries.iter().zip(wanted_entries) {
            assert_eq!(first_difference(found, &wanted, ""), None, "{what}: {}", rank.dir);
        }
        files += 1;
        if let Some((tree, storages)) = &rank.buffers {
            let found = &found[&path("distrib_optim.pt")];
            let differs = first_difference(&whole(found), &whole(&pt(tree, storages)), "");
            assert_eq!(differs, None, "{what}: {}: buffers", rank.dir);
            files += 1;
        }
    }
    assert_eq!(found.len(), files, "{what}: files");
}

/// Checks views of the run in these layouts, in both encodings.
fn check_all(run: &Trained, targets: &[Cut], fill: Fill) {
    let dir = tempfile::tempdir().unwrap();
    run.write(dir.path());
    for target in targets.iter().chain([&run.cut]) {
        for encoding in [Encoding::Mixed, Encoding::Distributed] {
            let wanted = run.retold(target, encoding).shown(run.cut.tp, fill);
            check(&view(dir.path(), target, encoding, fill), &wanted, &format!("{run:?} as {target:?}"));
        }
    }
}

fn lay(root: &Path, files: &HashMap<String, Vec<u8>>) {
    for (path, bytes) in files {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), bytes).unwrap();
    }
}

/// The view in one layout and encoding, written, seen in the first ones again: what the source is, and bit for bit the files of its own view.
fn there_and_back(run: &Trained, through: &Cut, encoding: Encoding) {
    let dir = tempfile::tempdir().unwrap();
    run.write(&dir.path().join("src"));
    lay(&dir.path().join("there"), &view(&dir.path().join("src"), through, encoding, Fill::Zero));
    let back = view(&dir.path().join("there"), &run.cut, run.encoding, Fill::Zero);
    let what = format!("{run:?} through {through:?} {encoding:?}");
    let wanted = run.retold(through, encoding).retold(&run.cut, run.encoding);
    check(&back, &wanted.shown(run.cut.tp, Fill::Zero), &what);
    // Attributes are lost in buffers, a layout may need more replicas, and settings of two optimizers that were one are the same objects.
    let there = run.retold(through, encoding);
    let merged = run.experts_apart() && !there.experts_apart();
    if wanted.attributes == run.attributes && there.replicas() == run.replicas() && !merged {
        let own = view(&dir.path().join("src"), &run.cut, run.encoding, Fill::Zero);
        let other = own.iter().find(|(path, bytes)| back.get(*path) != Some(bytes));
        assert!(other.is_none(), "{what}: {} has other bytes", other.unwrap().0);
    }
}

/// These stages, so many on each rank as `choice` says of what is possible.
fn cut(kind: Kind, tp: u64, stages: &[u32], choice: usize) -> Cut {
    let count = stages.len() as u32;
    // The training code of older models says virtual stages by their one length.
    let even = kind.is_core() || stages.iter().all(|layers| *layers == stages[0]);
    let fits = |vpp: &u32| *vpp == 1 || (even && count.is_multiple_of(*vpp) && count > *vpp);
    Cut::new(tp, stages).virtually(pick(&(1..=count).filter(fits).collect::<Vec<_>>(), choice))
}

prop_compose! {
    /// Experts of a model, expert ranks of two layouts, and which part of TP cuts experts in each.
    fn any_experts()(
        moe in prop::option::weighted(0.7, (0usize..3, 1u64..3, 1u32..4, any::<[bool; 2]>())),
        eps in (0usize..3, 0usize..3), etps in (0usize..3, 0usize..3),
    ) -> (Option<Moe>, [(u64, usize); 2]) {
        let moe = moe.map(|(experts, ffn, every, [shared, grouped])| Moe {
            experts: pick(&[4, 8, 12], experts), ffn: ffn * 4, every, shared: shared.then_some(4), grouped, ..Moe::default()
        });
        (moe, [(pick(&[1, 2, 4], eps.0), etps.0), (pick(&[1, 2, 4], eps.1), etps.1)])
    }
}

prop_compose! {
    /// A run, another layout, and what new rows of the vocabulary hold.
    fn any_case()(
        kind in 0usize..6, tps in (0usize..3, 0usize..3), heads in 1u64..3, fewer_groups in any::<bool>(),
        head in 1u64..4, ffn in 1u64..5, layers in 1u32..5, hidden in 1u64..30, vocab in (1u64..60, 1u64..7),
        ends in (prop::collection::vec(0u32..5, 0..4), prop::collection::vec(0u32..5, 0..4)),
        flags in any::<[bool; 8]>(), dtype in 0usize..3, positions in prop::option::of(1u64..4), full in 0usize..4,
        encoding in any::<bool>(), step in prop::option::of(0u16..2000), replicas in 1u64..6,
        bucket in prop::option::of(1u64..2000), last_row in any::<bool>(),
        (chunks, era, (moe, experts)) in ((0usize..4, 0usize..4), 0usize..3, any_experts()),
    ) -> (Trained, Cut, Fill) {
        let kinds = [Kind::Core, Kind::CoreTe, Kind::Legacy, Kind::LegacyNewNorms, Kind::Core, Kind::CoreTe];
        let kind = pick(&kinds, kind);
        let heads = heads * 4;
        let config = Config {
            kind, layers, hidden, heads, groups: if fewer_groups { 4 } else { heads }, head, ffn: ffn * 4, vocab: vocab.0,
            multiple: vocab.1, vocab_in_args: true, dtype: pick(&[Dtype::Bfloat16, Dtype::Float16, Dtype::Float32], dtype),
            gated: flags[0], bias: flags[1], qkv_bias: false, norm_bias: flags[2], qk_norm: flags[3] && kind.is_core(), tied: flags[4],
            positions, moe: moe.filter(|_| kind.is_core()), mla: None, predictions: 0, salt: 0,
        };
        let cut = |tp: u64, ends: &[u32], chunks: usize, (ep, etp): (u64, usize)| {
            let cut = cut(kind, tp, &stages(layers, ends), chunks);
            let etps: Vec<u64> = [tp, 1, 2].into_iter().filter(|etp| tp.is_multiple_of(*etp)).collect();
            if config.moe.is_some() { cut.experts(ep, pick(&etps, etp)) } else { cut }
        };
        let fulls = [None, None, Some("norm"), Some("fc2")];
        let run = Trained {
            cut: cut(pick(&[1, 2, 4], tps.0), &ends.0, chunks.0, experts[0]),
            encoding: if encoding { Encoding::Distributed } else { Encoding::Mixed },
            steps: step.map_or(Steps::InGroups(77), |step| Steps::WithParameters(step.into())),
            scaler: flags[5] && config.dtype != Dtype::Float32,
            full: pick(&fulls, full),
            replicas,
            bucket: bucket.filter(|_| kind.is_core()),
            in_buffers: encoding && flags[6] && kind.is_core(),
            era: pick(&[Era::Early, Era::Aligned, Era::Newest], era),
            attributes: flags[7] && !encoding,
            config: config.clone(),
        };
        let target = cut(pick(&[1, 2, 4], tps.1), &ends.1, chunks.1, experts[1]);
        (run, target, if last_row { Fill::LastRow } else { Fill::Zero })
    }
}

proptest! {
    // Few suffice where each stands for a whole model.
    #![proptest_config(cases(12))]

    // matrix: naive: megatron-core megatron-core/experts megatron-legacy: megatron -> megatron+optimizer
    #[test]
    fn any_state_in_any_layout_and_encoding_is_the_naive_answer((run, target, fill) in any_case()) {
        check_all(&run, &[target], fill);
    }

    #[test]
    fn there_and_back_is_the_identity((run, through, _) in any_case(), encoding in any::<bool>()) {
        // Rows that a layout has no room for do not come back.
        prop_assume!(run.config.padded(through.tp) >= run.config.padded(run.cut.tp));
        let encoding = if encoding { Encoding::Distributed } else { Encoding::Mixed };
        there_and_back(&run, &through, encoding);
    }

    #[test]
    fn from_one_encoding_to_the_other_and_back_is_the_identity((run, _, _) in any_case()) {
        for encoding in [Encoding::Mixed, Encoding::Distributed] {
            there_and_back(&run, &run.cut, encoding);
        }
    }

    #[test]
    fn any_piece_of_a_file_with_buffers_is_a_piece_of_the_whole(
        (run, target, fill) in any_case(), pieces in prop::collection::vec((0u64..1_000_000, 0usize..3000), 20),
    ) {
        let dir = tempfile::tempdir().unwrap();
        run.write(dir.path());
        let view = View::choosing(dir.path(), &target, &choices(Encoding::Distributed, fill)).unwrap();
        for (path, bytes) in view.files().iter().filter(|(path, _)| path.ends_with("distrib_optim.pt")).take(2) {
            for (offset, len) in &pieces {
                let start = offset % bytes.len() as u64;
                let end = bytes.len().min(start as usize + len);
                prop_assert_eq!(&view.piece(path, start, *len)[..], &bytes[start as usize..end]);
            }
        }
    }
}

/// Megatron-core with sizes that are no multiples of 64, tied embeddings, buckets of a few parameters each.
fn with_buckets() -> Trained {
    let config = Config {
        hidden: 20,
        ffn: 36,
        head: 5,
        vocab: 50,
        multiple: 2,
        tied: true,
        bias: true,
        dtype: Dtype::Bfloat16,
        ..Config::default()
    };
    Trained {
        config,
        cut: Cut::new(1, &[1, 3]),
        encoding: Encoding::Distributed,
        bucket: Some(1000),
        replicas: 3,
        in_buffers: true,
        steps: Steps::WithParameters(2.0),
        ..Trained::default()
    }
}

/// Legacy GPT, whose buffers have no gaps and a tail that shares them out among replicas.
fn with_a_tail() -> Trained {
    let config = Config {
        kind: Kind::Legacy,
        groups: 4,
        hidden: 7,
        tied: true,
        bias: true,
        norm_bias: true,
        positions: Some(3),
        dtype: Dtype::Bfloat16,
        ..Config::default()
    };
    Trained { config, encoding: Encoding::Distributed, replicas: 5, scaler: true, ..Trained::default() }
}

#[test]
fn buckets_and_shared_embeddings() {
    let targets = [Cut::new(1, &[4]), Cut::new(2, &[2, 2]), Cut::new(2, &[4]), Cut::new(1, &[1, 1, 2])];
    check_all(&with_buckets(), &targets, Fill::Zero);
    check_all(&Trained { bucket: None, ..with_buckets() }, &targets, Fill::Zero);
}

/// With predictions the last stage shares the embedding; its head is used by nobody, and has a state like any other parameter.
#[test]
fn predictions_leave_a_head_that_nobody_uses() {
    for tied in [true, false] {
        let config = Config { predictions: 1, tied, ..with_buckets().config };
        let run = Trained { config, ..with_buckets() };
        check_all(&run, &[Cut::new(1, &[4]), Cut::new(2, &[2, 2])], Fill::Zero);
        let one = Trained { cut: Cut::new(1, &[4]), ..run };
        check_all(&one, &[Cut::new(2, &[1, 3])], Fill::Zero);
    }
}

#[test]
fn the_tail_of_a_buffer_is_in_no_view() {
    let run = with_a_tail();
    let dir = tempfile::tempdir().unwrap();
    run.write(dir.path());
    // As it is stored there are tails, and what is in them is told from numbers.
    let source = fs::read(dir.path().join("iter_0000100/mp_rank_00_000/distrib_optim.pt")).unwrap();
    assert!(source.windows(4).any(|bytes| bytes == [0xEE; 4]));
    let targets = [Cut::new(1, &[4]), Cut::new(4, &[1, 2, 1]), Cut::new(2, &[2, 2])];
    check_all(&run, &targets, Fill::Zero);
    for target in &targets {
        for bytes in view(dir.path(), target, Encoding::Distributed, Fill::Zero).values() {
            assert!(!bytes.windows(4).any(|bytes| bytes == [0xEE; 4]));
        }
    }
}

#[test]
fn weights_of_two_widths_have_buffers_of_their_own() {
    for full in ["norm", "fc2"] {
        let run = Trained { full: Some(full), ..with_buckets() };
        check_all(&run, &[Cut::new(2, &[2, 2]), Cut::new(1, &[4])], Fill::Zero);
    }
}

#[test]
fn rows_of_the_vocabulary_that_nobody_trained() {
    // At TP 4 the last two ranks hold nothing but padding. Their parameters still have a step.
    let config = Config { vocab: 1, multiple: 1, dtype: Dtype::Bfloat16, ..Config::default() };
    let run =
        Trained { config, cut: Cut::new(1, &[4]), steps: Steps::WithParameters(9.0), ..Trained::default() };
    for fill in [Fill::Zero, Fill::LastRow] {
        check_all(&run, &[Cut::new(4, &[4]), Cut::new(2, &[1, 3])], fill);
    }
    // And what a smaller padding has no room for is gone.
    let run = Trained { cut: Cut::new(4, &[2, 2]), ..run };
    check_all(&run, &[Cut::new(1, &[4]), Cut::new(2, &[1, 3])], Fill::LastRow);
}

#[test]
fn ranks_without_queries_still_have_the_step() {
    // Two groups of six heads: at TP 12 some ranks hold keys or values alone.
    let config =
        Config { heads: 12, groups: 2, head: 3, ffn: 12, dtype: Dtype::Bfloat16, ..Config::default() };
    let run =
        Trained { config, cut: Cut::new(1, &[4]), steps: Steps::WithParameters(3.0), ..Trained::default() };
    check_all(&run, &[Cut::new(12, &[4]), Cut::new(4, &[2, 2])], Fill::Zero);
    check_all(&Trained { cut: Cut::new(12, &[4]), ..run }, &[Cut::new(2, &[4])], Fill::Zero);
}

/// Experts in every second layer, with one for all tokens.
fn with_experts(era: Era) -> Trained {
    let moe = Some(Moe { experts: 4, ffn: 8, every: 2, shared: Some(4), grouped: false, ..Moe::default() });
    let config = Config { moe, bias: true, tied: true, dtype: Dtype::Bfloat16, ..Config::default() };
    Trained { config, era, attributes: true, ..Trained::default() }
}

// matrix: naive: megatron-core/experts: megatron -> megatron+optimizer
#[test]
fn experts_and_virtual_stages() {
    let cuts = [
        Cut::new(1, &[4]),
        Cut::new(2, &[1, 1, 1, 1]).virtually(2).experts(2, 1),
        Cut::new(2, &[2, 2]).experts(1, 1),
        Cut::new(1, &[1, 1, 1, 1]).experts(4, 1),
    ];
    for era in [Era::Early, Era::Aligned, Era::Newest] {
        for (source, encoding) in [(&cuts[0], Encoding::Mixed), (&cuts[1], Encoding::Distributed)] {
            let run = with_experts(era).retold(source, encoding);
            check_all(&run, &cuts[1..], Fill::Zero);
        }
    }
}

#[test]
fn groups_in_the_order_of_their_first_parameters() {
    // On the first stage that is the embedding, on others a norm, which has no weight decay.
    let run = Trained { cut: Cut::new(1, &[4]), era: Era::Early, ..Trained::default() };
    check_all(&run, &[Cut::new(1, &[2, 2])], Fill::Zero);
    check_all(&Trained { cut: Cut::new(2, &[1, 3]), ..run }, &[Cut::new(1, &[4])], Fill::Zero);
}

#[test]
fn the_loss_scale_of_an_optimizer_that_the_nearest_rank_lacks() {
    // The second stage of the source has no experts, and so no optimizer of theirs. The second stage of the view has.
    let run =
        Trained { scaler: true, cut: Cut::new(1, &[1, 1, 2]).experts(2, 1), ..with_experts(Era::Early) };
    check_all(&run, &[Cut::new(1, &[1, 3]).experts(2, 1)], Fill::Zero);
}
