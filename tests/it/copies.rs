//! Parameters that several tensors hold: which of them counts, that it does not depend on the order of files, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use crate::common::hf::{self, Arch};
use crate::common::naive::{Config, Cut, Fill, Moe};
use crate::common::run::{Said, View, program};
use crate::common::source::{Checkpoint, rank_file};
use crate::common::{Array, read_pt_file};

const SOURCE: i32 = 3;
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn tied() -> Config {
    Config { tied: true, ..Config::default() }
}

fn get<'a>(tensors: &'a [(String, Array)], name: &str) -> &'a Array {
    &tensors.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name} is missing")).1
}

/// A tied model with this head.
struct Model {
    dir: TempDir,
    config: Config,
    tensors: Vec<(String, Array)>,
}

impl Model {
    fn of(arch: Arch, head: impl FnOnce(&Array) -> Array) -> Self {
        let config = Config { qkv_bias: arch == Arch::Qwen2, ..tied() };
        let mut tensors = hf::tensors(arch, &config);
        let head = head(get(&tensors, EMBEDDING));
        tensors.push((HEAD.into(), head));
        Self { dir: tempfile::tempdir().unwrap(), config, tensors }
    }

    fn write(&self, arch: Arch, shards: usize) -> PathBuf {
        let path = self.dir.path().join(format!("in{shards}"));
        hf::write(&path, &hf::config(arch, &self.config), &self.tensors, shards);
        path
    }
}

fn another(array: &Array) -> Array {
    let mut other = array.clone();
    *other.bytes.last_mut().unwrap() ^= 1;
    other
}

fn with(words: &[&str], path: &Path, more: &[&str]) -> Said {
    let path = path.as_os_str().to_owned();
    let words = words.iter().map(OsString::from).chain([path]).chain(more.iter().map(OsString::from));
    program(&words.collect::<Vec<_>>())
}

/// Files of a materialized view with tensors, in one list.
fn made(source: &Path, format: &str, more: &[&str]) -> (Vec<(String, Array)>, String) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let said =
        with(&["materialize"], source, &[&[out.to_str().unwrap(), "--as", format], more].concat()).ok();
    let mut all = Vec::new();
    let mut todo = vec![out];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|ending| ending == "pt") {
            all.extend(read_pt_file(&path).tensors);
        } else if path.extension().is_some_and(|ending| ending == "safetensors") {
            all.extend(hf::read(&fs::read(path).unwrap()));
        }
    }
    (all, said.err)
}

fn digest(source: &Path, more: &[&str]) -> String {
    with(&["digest"], source, more).ok().out.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_head_that_differs_from_the_embedding_is_refused() {
    for arch in [Arch::Llama, Arch::Qwen2] {
        let model = Model::of(arch, another);
        for shards in [1, 3] {
            let source = model.write(arch, shards);
            let words = [
                "tensor lm_head.weight: from element [10, 5] on it is not the same as model.embed_tokens.weight",
                "tie_word_embeddings",
                "--tied-head ignore",
            ];
            for command in ["inspect", "ls", "digest", "verify"] {
                with(&[command], &source, &[]).refused(SOURCE, &words);
            }
            let out = model.dir.path().join("out");
            ckpt!("materialize", source, out, "--as", "megatron").refused(SOURCE, &words);
        }
    }
}

#[test]
fn a_head_of_another_shape_is_refused_with_the_same_advice() {
    let model = Model::of(Arch::Llama, |embedding| embedding.rows(0, 8));
    let words = ["lm_head.weight: it is float32 [8, 6], but model.embed_tokens.weight is float32 [11, 6]"];
    ckpt!("inspect", model.write(Arch::Llama, 1)).refused(SOURCE, &[words[0], "--tied-head ignore"]);
    let (tensors, _) = made(&model.write(Arch::Llama, 2), "hf", &["--tied-head", "ignore"]);
    assert_eq!(get(&tensors, EMBEDDING), get(&model.tensors, EMBEDDING));
}

/// All of both is read, however large they are.
#[test]
fn heads_that_differ_in_the_last_byte_are_found() {
    let mut model = Model::of(Arch::Llama, Clone::clone);
    model.config.vocab = 30_000;
    model.tensors = hf::tensors(Arch::Llama, &model.config);
    let head = get(&model.tensors, EMBEDDING).clone();
    assert!(head.bytes.len() > 5 * (128 << 10));
    model.tensors.push((HEAD.into(), another(&head)));
    ckpt!("inspect", model.write(Arch::Llama, 1))
        .refused(SOURCE, &["from element [29999, 5] on it is not the same"]);
}

#[test]
fn a_head_can_be_left_out_or_kept() {
    let model = Model::of(Arch::Llama, another);
    let (embedding, head) = (get(&model.tensors, EMBEDDING), get(&model.tensors, HEAD));
    let ignore = ["--tied-head", "ignore"];
    let mut digests = Vec::new();
    for shards in [1, 3] {
        let source = model.write(Arch::Llama, shards);
        for (format, name) in [
            ("hf", EMBEDDING),
            ("safetensors", EMBEDDING),
            ("megatron", "embedding.word_embeddings.weight"),
            ("vllm", HEAD),
            ("sglang", HEAD),
        ] {
            let (tensors, said) = made(&source, format, &ignore);
            assert!(said.contains("left out: lm_head.weight (--tied-head ignore"), "{format}: {said}");
            assert_eq!(&get(&tensors, name).rows(0, 11), embedding, "{format}");
            let tables = tensors.iter().filter(|(_, array)| array.shape.len() == 2 && array.shape[0] >= 11);
            let heads = tables.filter(|(name, _)| name.contains("lm_head") || name.contains("output_layer"));
            assert!(heads.into_iter().all(|(_, array)| &array.rows(0, 11) == embedding), "{format}");
        }
        digests.push(digest(&source, &ignore));
        for command in ["verify", "digest"] {
            let said = ckpt!(command, source, "--tied-head", "ignore").ok().err;
            assert!(said.contains("not looked at: lm_head.weight"), "{command}: {said}");
        }
        // The way on: a model with both.
        let mut config = hf::config(Arch::Llama, &model.config);
        config.insert("tie_word_embeddings".into(), json!(false));
        fs::write(source.join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
        let (tensors, _) = made(&source, "hf", &[]);
        assert_eq!((get(&tensors, EMBEDDING), get(&tensors, HEAD)), (embedding, head));
    }
    let without = Model { tensors: hf::tensors(Arch::Llama, &model.config), ..model };
    digests.push(digest(&without.write(Arch::Llama, 2), &[]));
    assert_eq!((&digests[0], &digests[1]), (&digests[2], &digests[2]));
}

/// The digest is one, whichever tensor stands first and in how many files.
#[test]
fn a_head_that_is_the_embedding_is_a_copy() {
    let mut model = Model::of(Arch::Llama, Clone::clone);
    let mut digests = vec![digest(&model.write(Arch::Llama, 1), &[])];
    digests.push(digest(&model.write(Arch::Llama, 4), &[]));
    model.tensors.reverse();
    digests.push(digest(&model.write(Arch::Llama, 3), &[]));
    let (tensors, said) = made(&model.write(Arch::Llama, 1), "hf", &[]);
    assert!(said.contains("left out: lm_head.weight (the same as model.embed_tokens.weight)"), "{said}");
    let plain = hf::tensors(Arch::Llama, &model.config);
    assert_eq!(hf::sorted(tensors), hf::sorted(plain.clone()));
    model.tensors = plain;
    digests.push(digest(&model.write(Arch::Llama, 2), &[]));
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

/// transformers 5 fills both from whichever is there; a view has the name that every loader knows.
#[test]
fn a_head_without_an_embedding_is_the_embedding() {
    let mut model = Model::of(Arch::Llama, Clone::clone);
    model.tensors.retain(|(name, _)| name != EMBEDDING);
    let source = model.write(Arch::Llama, 2);
    let head = get(&model.tensors, HEAD);
    for (format, name) in [("hf", EMBEDDING), ("safetensors", EMBEDDING), ("vllm", HEAD)] {
        let (tensors, said) = made(&source, format, &[]);
        assert_eq!(&get(&tensors, name).rows(0, 11), head, "{format}");
        assert!(!said.contains("left out"), "{said}");
    }
    // There is nothing that it could be ignored for.
    ckpt!("ls", source, "--tied-head", "ignore").ok();
}

/// Families in which both are saved always.
#[test]
fn a_family_that_saves_the_embedding_twice() {
    let dir = tempfile::tempdir().unwrap();
    let family = dir.path().join("twice.toml");
    let text = "name = 'twice'\ntitle = 'Twice'\nextends = 'llama'\n[config]\nmodel_type = 'twice'\narchitectures = ['Twice']\n\
                [[tensor]]\nname = 'lm_head.weight'\nholds = ['embedding.weight']\nstage = 'last'\ncopy = true\n";
    fs::write(&family, text).unwrap();
    let family = ["--family", family.to_str().unwrap()];
    let config = Config { vocab: 12, multiple: 1, ..tied() };
    let mut said = hf::config(Arch::Llama, &config);
    said.insert("model_type".into(), json!("twice"));
    let mut tensors = hf::tensors(Arch::Llama, &config);
    tensors.push((HEAD.into(), get(&tensors, EMBEDDING).clone()));
    let source = dir.path().join("source");
    hf::write(&source, &said, &tensors, 1);
    assert_eq!(hf::sorted(made(&source, "hf", &family).0), hf::sorted(tensors.clone()));
    // In a file for each rank the head stands before the embedding.
    let ranks = dir.path().join("ranks");
    let unpadded = ["--make-vocab-size-divisible-by", "1"];
    let more = [&[ranks.to_str().unwrap(), "--as", "safetensors", "--tp", "2"], &unpadded[..]].concat();
    with(&["materialize"], &source, &[&more[..], &family].concat()).ok();
    assert_eq!(hf::sorted(made(&ranks, "hf", &family).0), hf::sorted(tensors.clone()));
    let file = ranks.join("mp_rank_01.safetensors");
    let bytes = fs::read(&file).unwrap();
    let part = get(&tensors, HEAD).row_part(2, 1).bytes;
    let at = bytes.windows(part.len()).position(|window| window == part).unwrap();
    let mut spoilt = bytes.clone();
    spoilt[at] ^= 1;
    fs::write(&file, spoilt).unwrap();
    let refused = with(&["inspect"], &ranks, &family);
    refused.refused(SOURCE, &["lm_head.weight", "model.embed_tokens.weight", "carries one of the two"]);
}

/// Experts one by one and stacked: no rule says which are the model's.
#[test]
fn experts_that_stand_in_a_file_twice_are_refused() {
    let moe = Moe { experts: 4, ffn: 8, expert_bias: false, ..Moe::default() };
    let config = Config { qk_norm: true, moe: Some(moe), ..Config::default() };
    let dir = tempfile::tempdir().unwrap();
    for layer in [0, 3] {
        let mut tensors = hf::tensors(Arch::Qwen3Moe, &config);
        let stacked = Array { shape: vec![4, 16, 6], ..config.whole("stacked", &[4 * 16, 6]) };
        tensors.push((format!("model.layers.{layer}.mlp.experts.gate_up_proj"), stacked));
        hf::write(dir.path(), &hf::config(Arch::Qwen3Moe, &config), &tensors, 1);
        let single = format!("model.layers.{layer}.mlp.experts.0.gate_proj.weight");
        let stacked = format!("model.layers.{layer}.mlp.experts.gate_up_proj");
        ckpt!("inspect", dir.path()).refused(SOURCE, &[&stacked, &single, "which one counts?"]);
        ckpt!("digest", dir.path()).refused(SOURCE, &["which one counts?"]);
    }
}

const OUTPUT: &str = "output_layer.weight";
const WORDS: &str = "embedding.word_embeddings.weight";

/// A rank of one stage that has saved the head too, before the embedding.
fn one_stage(change: impl Fn(&Array) -> Array) -> (TempDir, Config) {
    let config = tied();
    let mut checkpoint = Checkpoint::new(&config, &Cut::new(2, &[4]));
    for file in &mut checkpoint.files {
        let head = change(&file.tensor(WORDS).1);
        file.tensors.insert(0, (OUTPUT.to_owned(), head));
    }
    let dir = tempfile::tempdir().unwrap();
    checkpoint.write(dir.path());
    (dir, config)
}

#[test]
fn a_megatron_rank_with_both_is_compared_too() {
    let (same, config) = one_stage(Clone::clone);
    let (_, said) = made(same.path(), "megatron", &[]);
    assert!(said.contains("output_layer.weight (the same as embedding.word_embeddings.weight)"), "{said}");
    let (differs, _) = one_stage(another);
    let words = [OUTPUT, WORDS, "untie_embeddings_and_output_weights", "--tied-head ignore"];
    ckpt!("inspect", differs.path()).refused(SOURCE, &words);
    let (made, _) = made(differs.path(), "megatron", &["--tp", "1", "--tied-head", "ignore"]);
    let plain = tempfile::tempdir().unwrap();
    Checkpoint::new(&config, &Cut::new(1, &[4])).write(plain.path());
    let wanted = read_pt_file(&rank_file(plain.path(), "mp_rank_00")).tensors;
    assert_eq!(get(&made, WORDS), get(&wanted, WORDS));
}

/// On another stage a copy is a replica: views have the first stage's, and `verify` says by name what differs.
#[test]
fn a_copy_on_another_stage_is_compared_by_verify() {
    let mut checkpoint = Checkpoint::new(&tied(), &Cut::new(1, &[2, 2]));
    let (_, array) = checkpoint.file("mp_rank_00_001").tensor(OUTPUT);
    *array = another(array);
    let dir = tempfile::tempdir().unwrap();
    checkpoint.write(dir.path());
    let said = ckpt!("verify", dir.path());
    assert_eq!(said.code, 1, "{}", said.err);
    let line = said.out.lines().find(|line| line.contains("embedding.weight differs")).unwrap().to_owned();
    for word in ["mp_rank_00_000", "mp_rank_00_001", &format!("{WORDS} in"), &format!("{OUTPUT} in")] {
        assert!(line.contains(word), "'{word}' is missing in: {line}");
    }
    let (made, _) = made(dir.path(), "megatron", &["--pp", "1"]);
    let wanted = checkpoint.file("mp_rank_00_000").tensor(WORDS).1.clone();
    assert_eq!(get(&made, WORDS), &wanted);
}

fn predicting() -> Config {
    Config { predictions: 1, hidden: 8, ..tied() }
}

/// A run with predictions: its last stage has a head of its own that nobody computes with.
fn with_unused_head(cut: &Cut) -> Checkpoint {
    let config = predicting();
    let whole = config.whole("a head of nobody", &[config.padded(cut.tp), config.hidden]);
    let mut checkpoint = Checkpoint::new(&config, cut);
    let last = cut.pp() - 1;
    for rank in cut.all_ranks().into_iter().filter(|(_, pp, _)| *pp == last) {
        checkpoint.file(&cut.dir(rank)).tensor(OUTPUT).1 = whole.row_part(cut.tp, rank.0);
    }
    checkpoint
}

#[test]
fn a_head_that_nobody_uses_is_no_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    with_unused_head(&Cut::new(2, &[2, 2])).write(&path("run"));
    with_unused_head(&Cut::new(1, &[1, 3])).write(&path("two"));
    Checkpoint::new(&predicting(), &Cut::new(1, &[4])).write(&path("one"));
    ckpt!("verify", path("run")).ok();
    for (first, second) in [("run", "one"), ("one", "run"), ("run", "two")] {
        ckpt!("verify", path(first), path(second)).ok();
        assert_eq!(digest(&path(first), &[]), digest(&path(second), &[]));
    }
    // With the same padding of the vocabulary they are as large.
    let count = |name: &str| ckpt!("inspect", path(name), "--json").ok().json()["elements"].clone();
    assert_eq!(count("two"), count("one"));
}

/// It goes along where there is room for it, cut like any other; one stage has none.
#[test]
fn a_head_that_nobody_uses_goes_along() {
    let dir = tempfile::tempdir().unwrap();
    let source = Cut::new(2, &[2, 2]);
    with_unused_head(&source).write(dir.path());
    let ranks = |cut: &Cut| View::of(dir.path(), cut, Fill::Zero, None).unwrap().ranks();
    let config = predicting();
    let whole = config.whole("a head of nobody", &[config.padded(2), config.hidden]);
    for cut in [Cut::new(2, &[2, 2]), Cut::new(1, &[1, 3]), Cut::new(4, &[1, 1, 1, 1]).virtually(2)] {
        let found: Vec<Array> = ranks(&cut)
            .into_iter()
            .flat_map(|(_, pt)| pt.tensors.into_iter().filter(|(name, _)| name.ends_with(OUTPUT)))
            .map(|(_, array)| array)
            .collect();
        let rows = whole.shape[0].min(config.padded(cut.tp));
        assert_eq!(Array::join(&found).rows(0, rows), whole.rows(0, rows), "{cut:?}");
    }
    let one = ranks(&Cut::new(1, &[4]));
    assert!(one.iter().all(|(_, pt)| pt.tensors.iter().all(|(name, _)| name != OUTPUT)));
    let (_, said) = made(dir.path(), "megatron", &["--pp", "1"]);
    assert!(said.contains("left out: unused_output.weight (a head that"), "{said}");
    assert!(!made(dir.path(), "megatron", &["--tp", "1"]).1.contains("unused_output"));
    // A run that saved none has none in views of several stages either.
    let mut without = Checkpoint::new(&config, &source);
    without.files.iter_mut().for_each(|file| file.tensors.retain(|(name, _)| name != OUTPUT));
    without.write(dir.path());
    let two = ranks(&Cut::new(1, &[1, 3]));
    assert!(two.iter().all(|(_, pt)| pt.tensors.iter().all(|(name, _)| name != OUTPUT)));
}
