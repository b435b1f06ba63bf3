//! Views as torch_dist against the naive answer: the tensors of a rank with everything, stacked by name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod again;
mod naive;
mod optimizer;
mod sizes;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::common::cases::cases;
use crate::common::choose::{pick, stages};
use crate::common::hf::{self, Arch};
use crate::common::naive::{Config, Cut, Kind, Mla, Moe, Written};
use crate::common::source::Checkpoint;
use crate::common::{Array, read_pt};
use crate::dcp_write::archive::Archive;
use crate::dcp_write::read::{self, Loaded};
use crate::dcp_write::unpickle::Node;
use ckpt_fs::family::Families;
use ckpt_fs::layout::Format;
use ckpt_fs::reader::{Checksums, CrcMode, Reader};
use ckpt_fs::source::{Options, open};
use ckpt_fs::store::FileStore;
use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::Value;
use ckpt_fs::view::{ConversionOptions, Conversions, ModelFiles, Origin, View, ViewOptions};
use proptest::prelude::*;

/// A view with its reader.
struct Opened {
    view: Arc<dyn View>,
    reader: Reader,
}

impl Opened {
    fn new(root: &Path, conversion: ConversionOptions, options: ViewOptions) -> Result<Self, String> {
        let store = Arc::new(FileStore::new());
        let families = Families::default();
        let divisible_by = Some(conversion.divisible_by);
        let source = Options { families: families.clone(), divisible_by, ..Options::default() };
        let source = open(root, &source, &store).map_err(|error| error.to_string())?;
        let origin = Origin {
            catalog: source.catalog,
            model: source.model,
            format: source.format,
            inexpressible: source.inexpressible,
            files: ModelFiles {
                name: root.display().to_string(),
                config: source.config,
                aux_files: source.aux_files,
            },
            template: None,
        };
        let text = |error: ckpt_fs::view::ViewError| error.to_string();
        let conversions = Conversions::new(origin, families, options, conversion).map_err(text)?;
        let layout = conversions.layout(Format::TorchDist, &Default::default()).map_err(text)?;
        Ok(Self {
            view: conversions.view(Format::TorchDist, &layout).map_err(text)?,
            reader: Reader::new(store),
        })
    }

    /// Every file with its bytes.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let read = |(number, file): (usize, &ckpt_fs::view::ViewFile)| {
            let plan = self.view.plan(number).unwrap().plan;
            let mut bytes = vec![0; plan.len() as usize];
            let read = self.reader.read(&plan, &Checksums::new(CrcMode::Exact), 0, &mut bytes).unwrap();
            assert_eq!(read, bytes.len());
            (file.path.clone(), bytes)
        };
        self.view.files().iter().enumerate().map(read).collect()
    }
}

/// The files of the one iteration in a directory, and its name.
fn iteration(files: &BTreeMap<String, Vec<u8>>) -> (String, BTreeMap<String, Vec<u8>>) {
    let of = |(path, bytes): (&String, &Vec<u8>)| {
        let (folder, name) = path.split_once('/')?;
        Some((folder.to_owned(), name.to_owned(), bytes.clone()))
    };
    let all: Vec<_> = files.iter().filter_map(of).collect();
    let folder = all[0].0.clone();
    assert!(all.iter().all(|(other, ..)| *other == folder));
    (folder, all.into_iter().map(|(_, name, bytes)| (name, bytes)).collect())
}

/// Tensors of a directory are these, by key.
fn same(found: &Loaded, wanted: &BTreeMap<String, Array>, what: &str) {
    let kinds = |all: Vec<(&String, String, &Vec<u64>)>| {
        all.into_iter().map(|(key, dtype, shape)| format!("{key} {dtype} {shape:?}")).collect::<Vec<_>>()
    };
    let own = found.tensors.iter().map(|(key, (dtype, shape, _))| (key, dtype.clone(), shape)).collect();
    let naive =
        wanted.iter().map(|(key, array)| (key, format!("torch.{}", array.dtype), &array.shape)).collect();
    assert_eq!(kinds(own), kinds(naive), "{what}");
    for (key, array) in wanted {
        assert!(found.tensors[key].2 == array.bytes, "{what}: {key} differs");
    }
}

#[derive(Debug, Clone)]
struct Case {
    config: Config,
    source: Cut,
    piece: u64,
    file: u64,
}

prop_compose! {
    fn any_case()(
        (te, half, gated, bias) in any::<(bool, bool, bool, bool)>(),
        (qkv_bias, qk_norm, tied, norm_bias) in any::<(bool, bool, bool, bool)>(),
        (layers, groups, tp) in (1u32..4, 0usize..3, 0usize..3), ends in prop::collection::vec(0u32..6, 0..3),
        moe in prop::option::of((1u32..3, any::<[bool; 3]>(), 0usize..3)),
        latent in prop::option::weighted(0.3, prop::option::of(1u64..4)), predictions in prop_oneof![3 => Just(0u32), 1 => 1u32..3],
        (vocab, piece, file) in (1u64..90, prop_oneof![Just(1u64), Just(64), Just(1 << 20)], 1u64..6000),
    ) -> Case {
        let tp = pick(&[1, 2, 4], tp);
        let groups = pick(&[1, 2, 4], groups).max(tp);
        let mla = latent.map(|rank| Mla { q_rank: rank.map(|rank| 4 * rank), kv_rank: 8, position: 4, value: 6, te });
        let moe = moe.map(|(every, [grouped, bias, shared], _)| Moe {
            experts: 4, ffn: 8, every, grouped: grouped && te, expert_bias: bias, shared: shared.then_some(12),
            ..Moe::default()
        });
        let config = Config {
            kind: if te { Kind::CoreTe } else { Kind::Core }, layers, heads: 4, groups, ffn: 16, hidden: 8, vocab,
            multiple: 4, dtype: if half { Dtype::Bfloat16 } else { Dtype::Float32 }, gated, bias: bias && mla.is_none(),
            qkv_bias: qkv_bias && mla.is_none(), qk_norm: qk_norm && mla.is_none(), norm_bias: norm_bias && mla.is_none(),
            tied: tied && predictions == 0, moe, mla, predictions, ..Config::default()
        };
        let source = Cut::new(tp, &stages(layers, &ends));
        let source = if config.moe.is_some() { source.experts(2, tp.min(2)) } else { source };
        Case { config, source, piece, file }
    }
}

proptest! {
    #![proptest_config(cases(80))]

    // matrix: naive: megatron-core megatron-core/experts megatron-core/latent megatron-core/predictions: megatron -> torch_dist
    /// Whatever the layout of the source and the sizes of pieces and files.
    #[test]
    fn a_checkpoint_is_one_of_tensors(case in any_case()) {
        let dir = tempfile::tempdir().unwrap();
        let Case { config, source, piece, file } = &case;
        let mut checkpoint = Checkpoint::new(config, source);
        let implementation = if config.kind == Kind::CoreTe { "transformer_engine" } else { "local" };
        for (field, value) in [("transformer_impl", Value::str(implementation)), ("ckpt_format", Value::str("torch"))] {
            checkpoint = checkpoint.arg(field, &value);
        }
        checkpoint = checkpoint.arg("mla_down_proj_fusion", &Value::Bool(false));
        checkpoint.write(dir.path());
        let conversion = ConversionOptions { piece_size: *piece, shard_size: *file, ..ConversionOptions::default() };
        let opened = Opened::new(dir.path(), conversion, ViewOptions::default()).unwrap();
        let (folder, files) = iteration(&opened.files());
        prop_assert_eq!(folder, "iter_0000100");
        let loaded = read::load(&files);
        let whole = Written::new(config, source).whole_rank(&Cut::new(1, &[config.layers]), (0, 0, 0));
        let naive = naive::Dist::of(config, &whole);
        same(&loaded, &naive.tensors, &format!("{case:?}"));
        naive.check_objects(&loaded, &files);
        check_common(&files["common.pt"], config);
    }
}

/// What loaders read first.
fn check_common(bytes: &[u8], config: &Config) {
    let common = read_pt(bytes).tree;
    let args = common.get("args").unwrap();
    let int = |name: &str| args.attribute(name).unwrap().as_int();
    for size in ["tensor_model_parallel_size", "pipeline_model_parallel_size", "expert_model_parallel_size"] {
        assert_eq!(int(size), Some(1), "{size}");
    }
    assert_eq!(int("padded_vocab_size"), Some(config.padded(1) as i64));
    assert_eq!(args.attribute("ckpt_format").unwrap().as_str(), Some("torch_dist"));
    assert_eq!(common.get("iteration").unwrap().as_int(), Some(100));
    assert_eq!(common.get("checkpoint_version").unwrap().as_number(), Some(3.0));
    let content = common.get("content_metadata").unwrap();
    assert!(!content.get("singleton_local_shards").unwrap().is_truthy());
    assert!(common.get("model").is_none() && common.get("rng_state").is_none());
}

// matrix: naive: qwen3: hf -> torch_dist
/// The model of a directory of Hugging Face's, in both spellings.
#[test]
fn a_model_directory_becomes_one() {
    for (spec, kind) in [("te", Kind::CoreTe), ("local", Kind::Core)] {
        let config = Config { kind, qk_norm: true, vocab: 37, multiple: 8, ..Config::default() };
        let dir = tempfile::tempdir().unwrap();
        hf::write(dir.path(), &hf::config(Arch::Qwen3, &config), &hf::tensors(Arch::Qwen3, &config), 2);
        let conversion =
            ConversionOptions { dialect: spec.into(), divisible_by: 8, ..ConversionOptions::default() };
        let opened = Opened::new(dir.path(), conversion, ViewOptions::default()).unwrap();
        let all = opened.files();
        let (folder, files) = iteration(&all);
        assert_eq!(
            (folder.as_str(), &all["latest_checkpointed_iteration.txt"][..]),
            ("release", &b"release"[..])
        );
        let one = Cut::new(1, &[config.layers]);
        let written = Written { unpadded: true, ..Written::new(&config, &one) };
        let naive = naive::Dist::of(&config, &written.whole_rank(&one, (0, 0, 0)));
        let loaded = read::load(&files);
        same(&loaded, &naive.tensors, spec);
        naive.check_objects(&loaded, &files);
        assert_eq!(
            read_pt(&files["common.pt"])
                .tree
                .get("args")
                .unwrap()
                .attribute("transformer_impl")
                .unwrap()
                .as_str(),
            Some(if spec == "te" { "transformer_engine" } else { "local" })
        );
    }
}

/// Where the size of the vocabulary is not said, its rows are the source's.
#[test]
fn a_vocabulary_of_unknown_size_keeps_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { vocab_in_args: false, vocab: 11, multiple: 4, ..Config::default() };
    let cut = Cut::new(4, &[4]);
    let config = Config { groups: 4, ..config };
    Checkpoint::new(&config, &cut).write(dir.path());
    let opened = Opened::new(dir.path(), ConversionOptions::default(), ViewOptions::default()).unwrap();
    let (_, files) = iteration(&opened.files());
    assert_eq!(read::load(&files).tensors["embedding.word_embeddings.weight"].1, [16, config.hidden]);
}

/// What a module of a source without tensor parallelism keeps goes along.
#[test]
fn extra_states_are_carried() {
    let dir = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::small_as(1, &[2, 2]);
    let name = "self_attention.linear_qkv._extra_state";
    let blob = |layer: u8| Array { dtype: Dtype::Uint8, shape: vec![3], bytes: vec![layer, 0xe5, 7] };
    for pp in 0..2u8 {
        let file = checkpoint.file(&Cut::new(1, &[2, 2]).rank_dir(0, pp.into()));
        let states = (0..2u8).map(|local| (format!("decoder.layers.{local}.{name}"), blob(2 * pp + local)));
        file.tensors.extend(states);
    }
    checkpoint.write(dir.path());
    let opened = Opened::new(dir.path(), ConversionOptions::default(), ViewOptions::default()).unwrap();
    let (_, files) = iteration(&opened.files());
    let loaded = read::load(&files);
    for layer in 0..4 {
        let key = format!("decoder.layers.{name}/shard_{layer}_4");
        let (file, start, len) = &loaded.objects[&key];
        let archive = Archive::of(&files[file], *start, *len);
        let pickle = archive.pickle();
        let [state] = pickle.elements(pickle.root) else { panic!("{key}") };
        assert_eq!(archive.tensor(&pickle, *state).bytes, blob(layer).bytes);
    }
    // Others hold nothing.
    let (file, start, len) = &loaded.objects["decoder.layers.mlp.linear_fc1._extra_state/shard_0_4"];
    let pickle = Archive::of(&files[file], *start, *len).pickle();
    assert_eq!(*pickle.node(pickle.elements(pickle.root)[0]), Node::None);
}

/// Layers of several types, and models that such a checkpoint has no keys for.
#[test]
fn what_cannot_be_stacked_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |checkpoint: Checkpoint, words: &[&str]| {
        let root = dir.path().join(words.len().to_string());
        checkpoint.write(&root);
        ckpt!("ls", root, "--as", "torch_dist").refused(4, words);
    };
    let mut one_is_wide = Checkpoint::small_as(1, &[4]);
    let (_, norm) = one_is_wide.files[0].tensor("layers.2.input_layernorm.weight");
    *norm = Array { dtype: Dtype::Bfloat16, shape: norm.shape.clone(), bytes: vec![0; norm.bytes.len() / 2] };
    refused(one_is_wide, &["decoder.layers.self_attention.linear_qkv.layer_norm_weight", "bfloat16"]);
    let legacy = Checkpoint::new(&Config { kind: Kind::Legacy, ..Config::default() }, &Cut::new(1, &[4]));
    refused(legacy, &["cannot be shown as torch_dist", "has no key there", "language_model", "Megatron"]);
}

/// It has no layout, and its files are those of a directory for `--load`.
#[test]
fn the_program_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("src"), dir.path().join("out"));
    Checkpoint::small().write(&source);
    ckpt!("ls", source, "--as", "torch_dist", "--tp", "2").refused(5, &["has no layout"]);
    let listed = ckpt!("ls", source, "--as", "torch_dist", "--tensors").ok();
    for name in
        [".metadata", "__0_0.distcp", "common.pt", "metadata.json", "latest_checkpointed_iteration.txt"]
    {
        assert!(listed.out.contains(name), "{name} is missing in {}", listed.out);
    }
    assert!(listed.out.contains("decoder.layers.mlp.linear_fc1.weight[3:4, "), "{}", listed.out);
    assert!(listed.err.contains("left out: rng_state"), "{}", listed.err);
    ckpt!("materialize", source, out, "--as", "torch_dist").ok();
    let files: BTreeMap<String, Vec<u8>> = std::fs::read_dir(out.join("iter_0000100"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    let written = Written::new(&Config::default(), &Cut::new(2, &[2, 2]));
    let naive = naive::Dist::of(&Config::default(), &written.whole_rank(&Cut::new(1, &[4]), (0, 0, 0)));
    same(&read::load(&files), &naive.tensors, "materialized");
    let flags = |spec: &str| {
        let model = dir.path().join("model");
        hf::write(
            &model,
            &hf::config(Arch::Llama, &Config::default()),
            &hf::tensors(Arch::Llama, &Config::default()),
            1,
        );
        ckpt!("ls", model, "--as", "torch_dist", "--megatron-spec", spec).ok().err
    };
    for (spec, flag) in
        [("te", "--transformer-impl transformer_engine"), ("local", "--transformer-impl local")]
    {
        let said = flags(spec);
        assert!(said.contains("--ckpt-format torch_dist") && said.contains(flag), "{said}");
    }
}
