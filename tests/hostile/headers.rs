//! Safetensors headers, indices and configs of Hugging Face models that lie or grow.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::bounds::{MB, alone, opened_within};
use crate::ckpt;
use crate::common::hf::{self, Arch};
use crate::common::naive::Config;

const SOURCE: i32 = 3;
const INDEX: &str = "model.safetensors.index.json";

/// A small model, to be spoiled.
pub(crate) struct Model {
    pub(crate) dir: TempDir,
}

impl Model {
    pub(crate) fn new(shards: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::default();
        let tensors = hf::tensors(Arch::Llama, &config);
        hf::write(&dir.path().join("model"), &hf::config(Arch::Llama, &config), &tensors, shards);
        Self { dir }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("model")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Refused by the library with these words and the name of the file.
    #[track_caller]
    fn refused(&self, most: usize, words: &[&str]) {
        let error = opened_within(&self.path(), most).expect_err("it was opened");
        for word in words {
            assert!(error.contains(word), "'{word}' is missing in: {error:.2000}");
        }
    }
}

/// A safetensors file with this header, whatever it says, and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

#[track_caller]
fn header_is_refused(header: &str, data: usize, most: usize, words: &[&str]) {
    let model = Model::new(1);
    fs::write(model.file("model.safetensors"), file(header, data)).unwrap();
    model.refused(most, &[words, &["model.safetensors"]].concat());
}

fn entry(name: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}"#)
}

#[test]
fn ranges_that_overlap_leave_gaps_or_run_backwards() {
    let _alone = alone();
    let of = |entries: &[String]| format!("{{{}}}", entries.join(","));
    for (entries, word) in [
        (vec![entry("a", "[4]", "[0,16]"), entry("b", "[4]", "[8,24]")], "they overlap"),
        (vec![entry("a", "[4]", "[0,16]"), entry("b", "[2]", "[24,32]")], "a hole"),
        (vec![entry("a", "[4]", "[16,32]")], "a hole"),
        (vec![entry("a", "[4]", "[0,16]"), entry("a", "[4]", "[16,32]")], "stands in it twice"),
        (vec![entry("a", "[4]", "[16,0]")], "a hole"),
        (vec![entry("a", "[4]", "[0,16]"), entry("b", "[4]", "[0,16]")], "they overlap"),
        (vec![entry("a", "[4]", "[-16,0]")], "not that of a safetensors file"),
        (vec![entry("a", "[4]", "[0,18446744073709551616]")], "not that of a safetensors file"),
        (vec![entry("a", "[4]", "[0,1e300]")], "not that of a safetensors file"),
        (vec![entry("a", "[4]", "[0,18446744073709551615]")], "has 18446744073709551615 bytes"),
        (vec![entry("a", "[-4]", "[0,16]")], "not that of a safetensors file"),
        (vec![entry("a", "[4294967296,4294967296]", "[0,0]")], "a size beyond reason"),
        (vec![entry("a", "[0,18446744073709551615]", "[0,0]")], "32"),
        (vec![entry("a", "[8]", "[0,16]")], "takes 32"),
        (vec![entry("a", "[4]", "[0,16]")], "32 follow the header"),
    ] {
        header_is_refused(&of(&entries), 32, 8 * MB, &[word]);
    }
}

#[test]
fn headers_that_are_long_deep_or_nothing() {
    let _alone = alone();
    let model = Model::new(1);
    for (len, word) in
        [(u64::MAX, "more than the 100000000"), (100_000_001, "more than"), (99_999_999, "cut short")]
    {
        fs::write(model.file("model.safetensors"), len.to_le_bytes()).unwrap();
        model.refused(8 * MB, &["model.safetensors", word]);
    }
    // A header of 100 MB that is a hole.
    fs::write(model.file("model.safetensors"), 99_000_000u64.to_le_bytes()).unwrap();
    fs::File::options().write(true).open(model.file("model.safetensors")).unwrap().set_len(1 << 40).unwrap();
    model.refused(250 * MB, &["not that of a safetensors file"]);
    let deep = |open: &str| open.repeat(1_000_000);
    header_is_refused(&deep("["), 0, 16 * MB, &["not that of a safetensors file"]);
    header_is_refused(&deep(r#"{"a":"#), 0, 16 * MB, &["not that of a safetensors file"]);
    header_is_refused(&format!(r#"{{"a":{{"b":{}"#, deep("[")), 0, 16 * MB, &["EOF"]);
    header_is_refused(r#"{"__metadata__":{"format":"pt"},"__metadata__":null}"#, 0, 8 * MB, &["twice"]);
    header_is_refused(r#"{"__metadata__":{"format":{"a":1}}}"#, 0, 8 * MB, &["invalid type"]);
    header_is_refused("{\"a\u{0}\":1}", 0, 8 * MB, &["not that of a safetensors file"]);
    // Entries of nothing: as many as there is room for.
    let many: Vec<String> = (0..300_000).map(|n| entry(&format!("{n}"), "[0]", "[0,0]")).collect();
    header_is_refused(&format!("{{{}}}", many.join(",")), 0, 250 * MB, &[]);
    // One tensor of a million dimensions.
    let ones = vec!["1"; 1_000_000].join(",");
    header_is_refused(&format!("{{{}}}", entry("a", &format!("[{ones}]"), "[0,4]")), 4, 64 * MB, &[]);
}

#[test]
fn an_index_names_files_of_its_own_directory_alone() {
    let _alone = alone();
    let model = Model::new(2);
    let text = fs::read_to_string(model.file(INDEX)).unwrap();
    let outside = model.dir.path().join("outside.safetensors");
    fs::rename(model.file("shard-0.safetensors"), &outside).unwrap();
    let renamed = |to: &str| {
        let json: Json = serde_json::from_str(&text).unwrap();
        let mut json = json;
        for file in json["weight_map"].as_object_mut().unwrap().values_mut() {
            if file == "shard-0.safetensors" {
                *file = json!(to);
            }
        }
        fs::write(model.file(INDEX), json.to_string()).unwrap();
    };
    let absolute = outside.display().to_string();
    for (name, word) in [
        ("../outside.safetensors", "not in this directory"),
        ("./shard-0.safetensors", "not in this directory"),
        (absolute.as_str(), "not in this directory"),
        ("/etc/shadow", "not in this directory"),
        ("..", "not in this directory"),
        (".", "not in this directory"),
        (".hidden.safetensors", "not in this directory"),
        ("a/../../outside.safetensors", "not in this directory"),
        ("shard-0.safetensors\0", "not there"),
        ("", "not there"),
        ("..\\outside.safetensors", "not in this directory"),
        ("shard-0.safetensors", "not there"),
    ] {
        renamed(name);
        model.refused(8 * MB, &[INDEX, word]);
    }
    renamed("../outside.safetensors");
    ckpt!("inspect", model.path()).refused(SOURCE, &[INDEX, "../outside.safetensors"]);
    // A file of the model that is none of its weights.
    renamed("config.json");
    model.refused(8 * MB, &["config.json", "this is text"]);
}

#[test]
fn an_index_that_says_two_things_or_grows() {
    let _alone = alone();
    let model = Model::new(2);
    let text = fs::read_to_string(model.file(INDEX)).unwrap();
    let map = text.split_once(r#""weight_map":{"#).unwrap().1;
    let first = map.split(',').next().unwrap();
    let name = first.split('"').nth(1).unwrap();
    for twice in [
        text.replacen(r#""weight_map":{"#, &format!(r#""weight_map":{{"{name}":"shard-1.safetensors","#), 1),
        text.replacen('{', r#"{"weight_map":{"a":"b"},"#, 1),
    ] {
        fs::write(model.file(INDEX), twice).unwrap();
        let error = opened_within(&model.path(), 8 * MB).unwrap_err();
        assert!(error.contains(INDEX) && (error.contains("twice") || error.contains("duplicate")), "{error}");
    }
    let deep = "[".repeat(1_000_000);
    for text in ["", "[]", "{}", "null", r#"{"weight_map":[]}"#, r#"{"weight_map":{"a":1}}"#, &deep] {
        fs::write(model.file(INDEX), text).unwrap();
        model.refused(8 * MB, &[INDEX]);
    }
    fs::write(model.file(INDEX), format!(r#"{{"metadata":{deep}"#)).unwrap();
    model.refused(8 * MB, &[INDEX, "EOF"]);
    let names: Vec<String> = (0..300_000).map(|n| format!(r#""{n}":"{n}""#)).collect();
    fs::write(model.file(INDEX), format!(r#"{{"weight_map":{{{}}}}}"#, names.join(","))).unwrap();
    model.refused(150 * MB, &[INDEX, "not there"]);
    fs::File::create(model.file(INDEX)).unwrap().set_len(1 << 40).unwrap();
    model.refused(8 * MB, &[INDEX, "more than"]);
}

#[test]
fn configs_that_grow_or_say_two_things() {
    let _alone = alone();
    let with = |change: &dyn Fn(&Path)| {
        let model = Model::new(1);
        change(&model.file("config.json"));
        model
    };
    let text = |text: String| with(&|path| fs::write(path, &text).unwrap());
    text("[".repeat(1 << 20)).refused(8 * MB, &["config.json"]);
    text("{\"a\":".repeat(1 << 19)).refused(8 * MB, &["config.json", "recursion limit"]);
    text(r#"{"model_type":"llama","model_type":"mixtral"}"#.into())
        .refused(8 * MB, &["config.json", "twice"]);
    // Each of these objects takes a hundred times its text.
    let many = vec![r#"{"a":0}"#; 200_000].join(",");
    text(format!(r#"{{"a":[{many}]}}"#)).refused(250 * MB, &["config.json"]);
    with(&|path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap())
        .refused(8 * MB, &["config.json", "more than"]);
    for (key, values) in [
        ("num_hidden_layers", vec![json!(u64::MAX), json!(1_000_000_000), json!(-1), json!(0), json!(1e308)]),
        ("num_attention_heads", vec![json!(u64::MAX), json!(-4), json!(0), json!("4")]),
        ("hidden_size", vec![json!(u64::MAX), json!(0), json!([6])]),
        ("vocab_size", vec![json!(u64::MAX), json!(1_u64 << 62), json!(-1), json!(0)]),
    ] {
        for value in values {
            let bad = with(&|path| {
                let mut json: Json = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
                json[key] = value.clone();
                fs::write(path, json.to_string()).unwrap();
            });
            let error = opened_within(&bad.path(), 64 * MB).expect_err(key);
            assert!(error.contains("model"), "{key} {value}: {error}");
        }
    }
    let huge = with(&|path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, text.replacen('{', r#"{"rope_theta":1e999,"#, 1)).unwrap();
    });
    huge.refused(8 * MB, &["config.json"]);
}
