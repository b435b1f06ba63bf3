//! Views of one format over sources of another, against the naive answer: random models of every architecture, random layouts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use crate::common::cases::cases;
use crate::common::choose::{pick, stages};
use crate::common::hf::{self, ARCHS, Arch};
use crate::common::naive::{Config, Cut, Kind, Moe, Written};
use crate::common::source::Checkpoint;
use crate::common::{Array, Pt, read_pt};
use ckpt_fs::catalog::AuxFile;
use ckpt_fs::family::Families;
use ckpt_fs::layout::{Format, LayoutSpec, Stages};
use ckpt_fs::reader::{Checksums, CrcMode, Reader};
use ckpt_fs::source::{Options, open};
use ckpt_fs::store::FileStore;
use ckpt_fs::tensor::Dtype;
use ckpt_fs::view::{ConversionOptions, Conversions, ModelFiles, Origin, ViewOptions};
use proptest::prelude::*;

/// A source, opened by the library, and everything that it can be shown as.
struct Opened {
    conversions: Conversions,
    reader: Reader,
}

impl Opened {
    fn new(root: &Path, conversion: ConversionOptions) -> Result<Self, String> {
        let store = Arc::new(FileStore::new());
        let families = Families::default();
        let divisible_by = Some(conversion.divisible_by);
        let options = Options { families: families.clone(), divisible_by, ..Options::default() };
        let source = open(root, &options, &store).map_err(|error| error.to_string())?;
        let aux_files: Vec<AuxFile> = source.aux_files.clone();
        let given = Origin {
            catalog: source.catalog,
            model: source.model,
            format: source.format,
            inexpressible: source.inexpressible,
            files: ModelFiles { name: root.display().to_string(), config: source.config, aux_files },
            template: None,
        };
        let conversions = Conversions::new(given, families, ViewOptions::default(), conversion);
        let conversions = conversions.map_err(|error| error.to_string())?;
        Ok(Self { conversions, reader: Reader::new(store) })
    }

    /// Every file of a view with its bytes.
    fn files(&self, format: Format, spec: &LayoutSpec) -> Result<Vec<(String, Vec<u8>)>, String> {
        let text = |error: ckpt_fs::view::ViewError| error.to_string();
        let layout = self.conversions.layout(format, spec).map_err(text)?;
        let view = self.conversions.view(format, &layout).map_err(text)?;
        let read = |(number, file): (usize, &ckpt_fs::view::ViewFile)| {
            let plan = view.plan(number).map_err(text)?.plan;
            let mut bytes = vec![0; plan.len() as usize];
            let read = self.reader.read(&plan, &Checksums::new(CrcMode::Exact), 0, &mut bytes).unwrap();
            assert_eq!(read, bytes.len());
            Ok((file.path.clone(), bytes))
        };
        view.files().iter().enumerate().map(read).collect()
    }

    /// Writes a view to disk.
    fn write(&self, format: Format, spec: &LayoutSpec, root: &Path) {
        for (path, bytes) in self.files(format, spec).unwrap() {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}

fn spec(cut: &Cut) -> LayoutSpec {
    LayoutSpec {
        tp: Some(cut.tp as u32),
        pp: Some(cut.pp()),
        vpp: Some(cut.vpp),
        ep: Some(cut.ep as u32),
        etp: Some(cut.etp as u32),
        stages: Stages::new(cut.stages.clone()),
        ..LayoutSpec::default()
    }
}

/// Compares names first and then each tensor: what differs is said by name, not by its bytes.
fn same(found: &[(String, Array)], wanted: &[(String, Array)], what: &str) {
    let kinds = |list: &[(String, Array)]| {
        list.iter()
            .map(|(name, array)| format!("{name} {} {:?}", array.dtype, array.shape))
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds(found), kinds(wanted), "{what}");
    for ((name, a), (_, b)) in found.iter().zip(wanted) {
        assert!(a.bytes == b.bytes, "{what}: {name} differs");
    }
}

fn same_tensors(found: &Pt, wanted: &[(String, Array)], what: &str) {
    same(&hf::sorted(found.tensors.clone()), &hf::sorted(wanted.to_vec()), what);
}

/// Rank files of Megatron are the naive ones.
fn check_megatron(files: &[(String, Vec<u8>)], written: &Written, cut: &Cut, what: &str) {
    let ranks: Vec<_> = files.iter().filter(|(path, _)| path.ends_with(".pt")).collect();
    let mut expected = cut.all_ranks();
    expected.sort_unstable();
    assert_eq!(ranks.len(), expected.len(), "{what}");
    for ((path, bytes), rank) in ranks.into_iter().zip(expected) {
        assert!(path.contains(&format!("/{}/", cut.dir(rank))), "{what}: {path}");
        same_tensors(&read_pt(bytes), &written.whole_rank(cut, rank), &format!("{what}: {path}"));
    }
}

/// The weights of a model directory.
fn model(files: &[(String, Vec<u8>)]) -> Vec<(String, Array)> {
    let weights = files.iter().filter(|(path, _)| path.ends_with(".safetensors"));
    hf::sorted(weights.flat_map(|(_, bytes)| hf::read(bytes)).collect())
}

#[derive(Debug, Clone)]
struct Case {
    arch: Arch,
    config: Config,
    source: Cut,
    target: Cut,
    te: bool,
    shards: usize,
    shard_size: u64,
    engine_tp: u64,
}

fn divisors(whole: u64) -> Vec<u64> {
    (1..=whole).filter(|n| whole.is_multiple_of(*n)).collect()
}

prop_compose! {
    fn any_case()(
        arch in 0usize..7, tps in (0usize..8, 0usize..8, 0usize..8), layers in 1u32..5,
        ends in (prop::collection::vec(0u32..6, 0..3), prop::collection::vec(0u32..6, 0..3)),
        sizes in (1u64..3, 1u64..3, 1u64..4, 1u64..4), vocab in 1u64..200, groups in 0usize..8,
        flags in any::<[bool; 4]>(), experts in (0usize..4, 0usize..4, 1u32..3, 0usize..4), shards in 1usize..4, shard_size in 0u64..4000,
    ) -> Case {
        let arch = pick(&ARCHS, arch);
        let (heads, head) = (4 * sizes.0, 2 * sizes.1);
        let groups = pick(&divisors(heads), groups);
        let moe = arch.has_experts().then(|| Moe {
            experts: 4, ffn: 8 * sizes.2, every: if arch == Arch::Mixtral { 1 } else { experts.2 },
            shared: (arch == Arch::Qwen2Moe).then_some(4 * sizes.3), grouped: flags[1], expert_bias: false,
            shared_gate: arch == Arch::Qwen2Moe,
        });
        let config = Config {
            kind: if flags[1] { Kind::CoreTe } else { Kind::Core }, layers, hidden: 6, heads, groups, head,
            ffn: if arch == Arch::Mixtral { 8 * sizes.2 } else { 8 * sizes.3 }, vocab, multiple: 8, vocab_in_args: true,
            dtype: if flags[2] { Dtype::Bfloat16 } else { Dtype::Float32 },
            qkv_bias: matches!(arch, Arch::Qwen2 | Arch::Qwen2Moe), qk_norm: matches!(arch, Arch::Qwen3 | Arch::Qwen3Moe),
            tied: flags[3], moe, ..Config::default()
        };
        // Megatron lets several ranks share a query group only where the fused rows divide.
        let possible: Vec<u64> = divisors(4).into_iter().filter(|tp| groups.is_multiple_of(*tp) || (tp.is_multiple_of(groups) && ((heads + 2 * groups) * head).is_multiple_of(*tp))).collect();
        let cut = |tp, ends: &[u32], ep| {
            let cut = Cut::new(pick(&possible, tp), &stages(layers, ends));
            if arch.has_experts() { let etp = pick(&divisors(cut.tp), experts.3); cut.experts(pick(&divisors(4), ep), etp) } else { cut }
        };
        let (source, target) = (cut(tps.0, &ends.0, experts.0), cut(tps.1, &ends.1, experts.1));
        let engine: Vec<u64> = divisors(4).into_iter().filter(|tp| groups.is_multiple_of(*tp) || tp.is_multiple_of(groups)).collect();
        Case { arch, config, source, target, te: flags[1], shards, shard_size, engine_tp: pick(&engine, tps.2) }
    }
}

proptest! {
    #![proptest_config(cases(60))]

    // matrix: naive: ARCHS: hf -> megatron hf vllm
    // matrix: naive: ARCHS: safetensors megatron -> hf
    /// A model directory as rank files of Megatron, and those as a model directory again.
    #[test]
    fn a_model_becomes_rank_files_and_comes_back(case in any_case()) {
        let Case { arch, config, target, .. } = &case;
        let dir = tempfile::tempdir().unwrap();
        let tensors = hf::tensors(*arch, config);
        hf::write(&dir.path().join("src"), &hf::config(*arch, config), &tensors, case.shards);
        let dialect = if case.te { "te" } else { "local" };
        let conversion = ConversionOptions { dialect: dialect.into(), divisible_by: config.multiple, shard_size: case.shard_size.max(1), ..ConversionOptions::default() };
        let opened = Opened::new(&dir.path().join("src"), conversion.clone()).unwrap();
        let files = opened.files(Format::Megatron, &spec(target)).unwrap();
        check_megatron(&files, &from_model(config), target, &format!("{case:?}"));
        // Its own format, in other files.
        same(&model(&opened.files(Format::Hf, &LayoutSpec::default()).unwrap()), &hf::sorted(tensors.clone()), "own format");
        // What vLLM loads, and each rank in a file of this tool, which is a source again.
        check_vllm(&opened, &case, &from_model(config));
        // A query group is no less than one rank's here.
        let tp = if config.groups.is_multiple_of(target.tp) { target.tp } else { 1 };
        let tp = LayoutSpec { tp: Some(tp as u32), ..LayoutSpec::default() };
        opened.write(Format::Safetensors, &tp, &dir.path().join("ranks"));
        let ranks = Opened::new(&dir.path().join("ranks"), conversion.clone()).unwrap();
        same(&model(&ranks.files(Format::Hf, &LayoutSpec::default()).unwrap()), &hf::sorted(tensors.clone()), "by rank and back");
        // There and back.
        opened.write(Format::Megatron, &spec(target), &dir.path().join("megatron"));
        let there = Opened::new(&dir.path().join("megatron"), conversion).unwrap();
        same(&model(&there.files(Format::Hf, &LayoutSpec::default()).unwrap()), &hf::sorted(tensors), "back again");
    }

    // matrix: naive: ARCHS: megatron -> hf vllm
    // matrix: naive: ARCHS: safetensors -> megatron
    /// A training checkpoint as a model directory, as files of this tool and as those of vLLM.
    #[test]
    fn a_checkpoint_becomes_everything(case in any_case()) {
        let Case { arch, config, source, target, .. } = &case;
        let dir = tempfile::tempdir().unwrap();
        let mut checkpoint = Checkpoint::new(config, source);
        for (field, value) in hf::args(*arch, config) {
            checkpoint = checkpoint.arg(field, &value);
        }
        checkpoint.write(&dir.path().join("src"));
        let opened = Opened::new(&dir.path().join("src"), ConversionOptions { shard_size: case.shard_size.max(1), ..ConversionOptions::default() }).unwrap();
        let files = opened.files(Format::Hf, &LayoutSpec::default()).unwrap();
        same(&model(&files), &hf::sorted(hf::tensors(*arch, config)), "as a model directory");
        let (_, text) = files.iter().find(|(path, _)| path == "config.json").unwrap();
        let said: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).unwrap();
        for (key, value) in hf::config(*arch, config) {
            if key != "intermediate_size" || !arch.has_experts() || *arch == Arch::Mixtral {
                prop_assert_eq!(said.get(&key).unwrap_or(&serde_json::Value::Null).as_f64(), value.as_f64(), "{}", key);
            }
        }
        // Each rank in a file of this tool, and Megatron's rank files of those.
        opened.write(Format::Safetensors, &spec(source), &dir.path().join("ranks"));
        let ranks = Opened::new(&dir.path().join("ranks"), ConversionOptions::default()).unwrap();
        let back = ranks.files(Format::Megatron, &spec(target)).unwrap();
        check_megatron(&back, &Written::new(config, source), target, &format!("{case:?}"));
        check_vllm(&opened, &case, &Written::new(config, source));
    }
}

fn check_vllm(opened: &Opened, case: &Case, written: &Written) {
    let tp = case.engine_tp;
    let asked = LayoutSpec { tp: Some(tp as u32), ..LayoutSpec::default() };
    let files = opened.files(Format::Vllm, &asked).unwrap();
    for rank in 0..tp {
        let name = format!("model-rank-{rank}-part-0.safetensors");
        let (_, bytes) = files.iter().find(|(path, _)| *path == name).unwrap();
        let wanted = hf::sorted(hf::vllm(case.arch, written, tp, rank));
        same(&hf::read(bytes), &wanted, &format!("rank {rank} of {tp}: {case:?}"));
    }
}

/// A model without padding, which Megatron pads with zeros.
fn from_model(config: &Config) -> Written {
    Written { unpadded: true, ..Written::new(config, &Cut::new(1, &[config.layers])) }
}

/// What a run does not take from a checkpoint is printed, ready to paste; what is left out is said.
#[test]
fn flags_for_a_run_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { qk_norm: true, dtype: Dtype::Bfloat16, ..Config::default() };
    let mut said = hf::config(Arch::Qwen3, &config);
    said.insert(
        "rope_scaling".into(),
        serde_json::json!({ "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192 }),
    );
    let source = dir.path().join("model");
    hf::write(&source, &said, &hf::tensors(Arch::Qwen3, &config), 1);
    let wanted = [
        "--use-checkpoint-args",
        "--tensor-model-parallel-size 2",
        "--norm-epsilon 2e-6",
        "--qk-layernorm",
        "--use-rope-scaling",
        "--rope-scaling-factor 32",
        "--bf16",
        "--transformer-impl transformer_engine",
        "pretrain_gpt.py does not look at --rope-scaling-factor",
    ];
    let listed = ckpt!("ls", source, "--as", "megatron", "--tp", "2").ok();
    for flag in wanted {
        assert!(listed.err.contains(flag), "{flag} is missing in {}", listed.err);
    }
    assert!(!ckpt!("ls", source, "--as", "vllm", "--tp", "2").ok().err.contains("--norm-epsilon"));
    let local = ckpt!("inspect", source, "--as", "megatron", "--megatron-spec", "local").ok().out;
    assert!(local.contains("--transformer-impl local"), "{local}");
    let trained = dir.path().join("trained");
    Checkpoint::new(&Config::default(), &Cut::new(1, &[4])).write(&trained);
    let kept = ckpt!("materialize", trained, dir.path().join("ranks"), "--as", "safetensors").ok().err;
    assert!(kept.contains("left out: rng_state (only Megatron views have it)"), "{kept}");
}

/// Formats, and why not, as data for programs.
#[test]
fn inspect_says_which_formats_are_possible() {
    let dir = tempfile::tempdir().unwrap();
    let plain = Config { gated: false, ..Config::default() };
    Checkpoint::new(&plain, &Cut::new(1, &[4])).write(dir.path());
    let formats = ckpt!("inspect", dir.path(), "--json").ok().json()["formats"].clone();
    let of =
        |name: &str| formats.as_array().unwrap().iter().find(|row| row["format"] == name).unwrap().clone();
    assert_eq!(of("megatron")["possible_tp"], serde_json::json!([1, 2, 4]));
    assert!(of("megatron")["refused"].is_null() && of("safetensors")["refused"].is_null());
    for format in ["hf", "vllm", "sglang"] {
        assert!(of(format)["refused"].as_str().unwrap().contains("args."), "{}", of(format));
    }
}

/// Experts that stand in one tensor for each layer, as transformers 5 holds them in memory, are the same experts.
#[test]
fn experts_stacked_in_one_tensor() {
    stacked_experts(Arch::Qwen3Moe, "mlp", ["gate_proj", "up_proj", "down_proj"]);
    stacked_experts(Arch::Mixtral, "block_sparse_moe", ["w1", "w3", "w2"]);
    stacked_experts(Arch::Qwen2Moe, "mlp", ["gate_proj", "up_proj", "down_proj"]);
}

fn stacked_experts(arch: Arch, block: &str, [gate, up, down]: [&str; 3]) {
    let of_qwen2 = arch == Arch::Qwen2Moe;
    let shared = of_qwen2.then_some(4);
    let moe = Moe {
        experts: 4,
        ffn: 8,
        expert_bias: false,
        grouped: true,
        shared,
        shared_gate: of_qwen2,
        ..Moe::default()
    };
    let (qk_norm, qkv_bias) = (arch == Arch::Qwen3Moe, of_qwen2);
    let config =
        Config { kind: Kind::CoreTe, qk_norm, qkv_bias, moe: Some(moe), multiple: 8, ..Config::default() };
    let mut tensors = hf::tensors(arch, &config);
    let whole = tensors.clone();
    tensors.retain(|(name, _)| !name.contains(".experts."));
    // In memory the block has one name in every model.
    for (name, _) in &mut tensors {
        *name = name.replace(&format!(".{block}.gate."), ".mlp.gate.");
    }
    for layer in 0..config.layers {
        let expert = |e: u64, name: &str| {
            let name = format!("model.layers.{layer}.{block}.experts.{e}.{name}.weight");
            whole.iter().find(|(known, _)| *known == name).unwrap().1.clone()
        };
        let stacked = |parts: Vec<Array>, rows: u64| {
            let mut all = Array::join(&parts);
            all.shape = vec![moe.experts, rows, all.shape[1]];
            all
        };
        let gated = (0..moe.experts).flat_map(|e| [expert(e, gate), expert(e, up)]).collect();
        let down = (0..moe.experts).map(|e| expert(e, down)).collect();
        let of = |name: &str| format!("model.layers.{layer}.mlp.experts.{name}_proj");
        tensors.push((of("gate_up"), stacked(gated, 2 * moe.ffn)));
        tensors.push((of("down"), stacked(down, config.hidden)));
    }
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("model");
    hf::write(&source, &hf::config(arch, &config), &tensors, 2);
    let opened =
        Opened::new(&source, ConversionOptions { divisible_by: 8, ..ConversionOptions::default() }).unwrap();
    let cut = Cut::new(2, &[2, 2]).experts(2, 1);
    check_megatron(
        &opened.files(Format::Megatron, &spec(&cut)).unwrap(),
        &from_model(&config),
        &cut,
        "stacked",
    );
    // Not every loader reads stacked experts.
    same(
        &model(&opened.files(Format::Hf, &LayoutSpec::default()).unwrap()),
        &hf::sorted(whole.clone()),
        "expert by expert",
    );
    let asked = LayoutSpec { tp: Some(2), ..LayoutSpec::default() };
    for (rank, (_, bytes)) in (0..).zip(
        opened.files(Format::Vllm, &asked).unwrap().iter().filter(|(path, _)| path.ends_with(".safetensors")),
    ) {
        same(&hf::read(bytes), &hf::sorted(hf::vllm(arch, &from_model(&config), 2, rank)), "vllm");
    }
    // Ranks in files of this tool keep the source's names, and are a source again.
    opened.write(Format::Safetensors, &asked, &dir.path().join("ranks"));
    let ranks = Opened::new(&dir.path().join("ranks"), ConversionOptions::default()).unwrap();
    same(
        &model(&ranks.files(Format::Hf, &LayoutSpec::default()).unwrap()),
        &hf::sorted(whole.clone()),
        "by rank",
    );
    opened.write(Format::Megatron, &spec(&cut), &dir.path().join("there"));
    let there = Opened::new(&dir.path().join("there"), ConversionOptions::default()).unwrap();
    same(
        &model(&there.files(Format::Hf, &LayoutSpec::default()).unwrap()),
        &hf::sorted(whole),
        "there and back",
    );
}
