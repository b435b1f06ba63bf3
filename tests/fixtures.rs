//! Real checkpoints: every one as a source of every layout of its kind, against what training wrote in that layout.
//!
//! `tests/fixtures/expected` describes the files that training wrote (see the README there). `CKPT_FS_FIXTURES=<folder>` names the full set,
//! whose checkpoints then are sources too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use ckpt_fs::value::{Construct, Value};
use common::naive::{Cut, Fill};
use common::run::View;
use common::{Array, read_pt};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use sha2::{Digest, Sha256};

/// Fields of args that say where one run read and wrote: a view carries the source's.
const RUN_FIELDS: &[&str] = &["save", "load", "exit_on_missing_checkpoint", "iteration"];

/// A JSON object in the order of its text.
#[derive(Debug, Clone, PartialEq)]
struct Ordered<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
            type Value = Ordered<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Ordered(pairs))
            }
        }
        deserializer.deserialize_map(Pairs(std::marker::PhantomData))
    }
}

#[derive(Debug, serde::Deserialize)]
struct Manifest {
    latest: String,
    args: Ordered<String>,
    ranks: Vec<Rank>,
}

#[derive(Debug, serde::Deserialize)]
struct Rank {
    path: String,
    keys: Vec<String>,
    /// All fields, where they are not those of the first rank.
    args: Option<Ordered<String>>,
    args_changed: Option<BTreeMap<String, String>>,
    scalars: Ordered<String>,
    metadata: Ordered<Vec<String>>,
    other: Vec<(String, String)>,
    tensors: Vec<(String, String, Vec<u64>, String)>,
}

impl Manifest {
    fn read(path: &Path) -> Self {
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    fn args_of(&self, rank: &Rank) -> Vec<(String, String)> {
        if let Some(args) = &rank.args {
            return args.0.clone();
        }
        let changed = rank.args_changed.as_ref().unwrap();
        let field =
            |(name, value): &(String, String)| (name.clone(), changed.get(name).unwrap_or(value).clone());
        self.args.0.iter().map(field).collect()
    }

    /// The layout, read off names and tensors.
    fn cut(&self) -> Cut {
        let (mut tps, mut stages): (BTreeSet<&str>, BTreeMap<&str, BTreeSet<u32>>) = Default::default();
        for rank in &self.ranks {
            let name = rank.path.split('/').nth(1).unwrap().strip_prefix("mp_rank_").unwrap();
            let (tp, pp) = name.split_once('_').unwrap_or((name, "000"));
            tps.insert(tp);
            let layers = rank.tensors.iter().filter_map(|tensor| {
                tensor.0.split(['.', '/']).skip_while(|part| *part != "layers").nth(1)?.parse::<u32>().ok()
            });
            stages.entry(pp).or_default().extend(layers);
        }
        let stages: Vec<u32> = stages.values().map(|layers| layers.len() as u32).collect();
        Cut::new(tps.len() as u64, &stages)
    }
}

/// One text per value, as `scripts/fixture-manifest` writes it.
fn canonical(value: &Value) -> String {
    let list = |items: &[Value]| items.iter().map(canonical).collect::<Vec<_>>().join(", ");
    let pairs = |items: &[(Value, Value)]| {
        let text = |(key, value): &(Value, Value)| format!("{}: {}", canonical(key), canonical(value));
        format!("{{{}}}", items.iter().map(text).collect::<Vec<_>>().join(", "))
    };
    match value {
        Value::None => "None".into(),
        Value::Bool(flag) => if *flag { "True" } else { "False" }.into(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => python_float(*number),
        Value::Str(text) => json_ascii(text),
        Value::Bytes(bytes) => {
            format!("bytes({})", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
        Value::List(items) | Value::Tuple(items) => format!("[{}]", list(items)),
        Value::Global(global) => format!("{}.{}", global.module, global.name),
        Value::Tensor(tensor) => format!("tensor({}, {:?})", tensor.dtype, tensor.shape.0),
        _ if value.items().is_some() => pairs(value.items().unwrap()),
        Value::Object(object) => {
            assert!(matches!(object.construct, Construct::Call | Construct::New));
            let Value::Tuple(args) = &object.args else { panic!("arguments of {value:?}") };
            let mut text = format!("{}({})", canonical(&object.callable), list(args));
            let appended = object.appended.iter().enumerate();
            let items: Vec<_> = appended
                .map(|(index, item)| (Value::Int(index as i64), item.clone()))
                .chain(object.items.iter().cloned())
                .collect();
            if !items.is_empty() {
                text += &pairs(&items);
            }
            if let Some(state) = &object.state {
                text += &format!("={}", canonical(state));
            }
            text
        }
        other => panic!("no canonical text for {other:?}"),
    }
}

/// `repr` of a Python float.
fn python_float(number: f64) -> String {
    if !number.is_finite() {
        return format!("{number}").to_lowercase();
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap();
    let exponent: i32 = exponent.parse().unwrap();
    if (-4..16).contains(&exponent) {
        return format!("{number:?}");
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// `json.dumps` of a Python text.
fn json_ascii(text: &str) -> String {
    let plain = serde_json::to_string(text).unwrap();
    let escape = |c: char| {
        if c.is_ascii() && c != '\u{7f}' {
            return c.to_string();
        }
        c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    };
    plain.chars().map(escape).collect()
}

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

fn sha256(array: &Array) -> String {
    Sha256::digest(&array.bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Differences between a view of the checkpoint at `root` and what training wrote.
fn differences(root: &Path, expected: &Manifest) -> Vec<String> {
    let mut problems = Vec::new();
    let mut same = |what: String, found: &dyn fmt::Debug, wanted: &dyn fmt::Debug| {
        let (found, wanted) = (format!("{found:?}"), format!("{wanted:?}"));
        if found != wanted {
            problems.push(format!("{what}: found {found:.300}, expected {wanted:.300}"));
        }
    };
    let files = View::of(root, &expected.cut(), Fill::Zero, None).unwrap().files();
    let paths: Vec<_> = files.iter().map(|(path, _)| path.as_str()).collect();
    let mut wanted: Vec<_> = expected.ranks.iter().map(|rank| rank.path.as_str()).collect();
    wanted.push("latest_checkpointed_iteration.txt");
    same("files".into(), &paths, &wanted);
    let content = |name: &str| files.iter().find(|(path, _)| path == name).map(|(_, bytes)| bytes);
    let tracker = content("latest_checkpointed_iteration.txt").map(|bytes| String::from_utf8_lossy(bytes));
    same("tracker".into(), &tracker, &Some(&expected.latest));
    for rank in &expected.ranks {
        let Some(bytes) = content(&rank.path) else { continue };
        let found = read_pt(bytes);
        let top = found.tree.items().unwrap();
        let keys: Vec<_> = top.iter().map(|(key, _)| key.as_str().unwrap()).collect();
        same(format!("{}: keys", rank.path), &keys, &rank.keys);
        let Value::Object(args) = found.tree.get("args").unwrap() else { panic!("args") };
        let args = args.state.as_ref().unwrap().items().unwrap();
        let args: Vec<_> = args.iter().map(|(k, v)| (k.as_str().unwrap().to_owned(), canonical(v))).collect();
        let fields = |args: &[(String, String)]| {
            let names = args.iter().map(|(name, _)| name.clone());
            names.filter(|name| !RUN_FIELDS.contains(&name.as_str())).collect::<Vec<_>>()
        };
        let wanted_args = expected.args_of(rank);
        same(format!("{}: fields of args", rank.path), &fields(&args), &fields(&wanted_args));
        let by_name: BTreeMap<_, _> = args.iter().cloned().collect();
        for (name, wanted) in wanted_args.iter().filter(|(name, _)| !RUN_FIELDS.contains(&name.as_str())) {
            same(format!("{}: args.{name}", rank.path), &by_name.get(name), &Some(wanted));
        }
        let scalar = |value: &Value| {
            matches!(value, Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_))
        };
        let scalars = top.iter().filter(|(_, value)| scalar(value));
        let scalars: Vec<_> = scalars.map(|(k, v)| (k.as_str().unwrap().to_owned(), canonical(v))).collect();
        same(format!("{}: scalars", rank.path), &scalars, &rank.scalars.0);
        let mut lists = Vec::new();
        modules(found.tree.get("model").unwrap(), "", &mut lists);
        same(format!("{}: modules", rank.path), &lists, &rank.metadata.0);
        let others: Vec<_> =
            found.others.iter().map(|(path, value)| (path.clone(), canonical(value))).collect();
        same(format!("{}: entries that are no tensors", rank.path), &others, &rank.other);
        let tensor = |(path, array): &(String, Array)| {
            (path.clone(), array.dtype.name().to_owned(), array.shape.clone(), sha256(array))
        };
        let tensors: Vec<_> = found.tensors.iter().map(tensor).collect();
        let names = |list: &[(String, String, Vec<u64>, String)]| {
            list.iter().map(|tensor| tensor.0.clone()).collect::<Vec<_>>()
        };
        same(format!("{}: tensors", rank.path), &names(&tensors), &names(&rank.tensors));
        for (found, wanted) in tensors.iter().zip(&rank.tensors).filter(|(found, wanted)| found.0 == wanted.0)
        {
            same(format!("{}: {}", rank.path, found.0), &found, &wanted);
        }
    }
    problems
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
        for (name, _) in &manifests {
            let source = root.join(kind).join(name);
            if !source.is_dir() {
                continue;
            }
            for (target, expected) in &manifests {
                let found = differences(&source, expected);
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
    // The fourth kind has its files in the full set only.
    assert!(checked > 0 || kind.ends_with("tied_padvocab"), "no source of {kind}");
}

#[test]
fn yuan() {
    check_kind("yuan-tiny");
}

#[test]
fn legacy_gpt() {
    check_kind("gpt-tiny");
}

#[test]
fn megatron_core_untied() {
    check_kind("megatron-tiny/untied");
}

#[test]
fn megatron_core_tied_with_padded_vocabulary() {
    check_kind("megatron-tiny/tied_padvocab");
}

#[test]
fn sources_with_an_optimizer_are_the_same_weights() {
    let Some(full) = std::env::var_os("CKPT_FS_FIXTURES").map(PathBuf::from) else { return };
    for kind in ["yuan-tiny", "gpt-tiny"] {
        for source in listed(&full.join(kind)) {
            let name = source.file_name().unwrap().to_string_lossy().into_owned();
            let Some(stem) = name.strip_suffix("_f16").or_else(|| name.strip_suffix("_dist")) else {
                continue;
            };
            let expected = fixtures().join("expected").join(kind).join(format!("{stem}_none.json"));
            let expected = Manifest::read(&expected);
            let ranks = View::of(&source, &expected.cut(), Fill::Zero, None).unwrap().ranks();
            for ((path, found), wanted) in ranks.iter().zip(&expected.ranks) {
                assert_eq!(*path, wanted.path);
                let found: Vec<_> = found.tensors.iter().map(|(path, array)| (path, sha256(array))).collect();
                let wanted: Vec<_> = wanted.tensors.iter().map(|t| (&t.0, t.3.clone())).collect();
                assert_eq!(found, wanted, "{name}: {path}");
            }
        }
    }
}

/// One storage that all tensors of a file look into, as the distributed optimizer saves them.
#[test]
fn views_into_one_storage_are_the_tensors_they_show() {
    let Some(full) = std::env::var_os("CKPT_FS_FIXTURES").map(PathBuf::from) else { return };
    let source = full.join("megatron-tiny/optim/legacy_distopt_tp1pp1");
    let path = find_rank_file(&source);
    let before = common::read_pt_file(&path);
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
