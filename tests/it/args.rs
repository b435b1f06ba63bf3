//! What `args` may be beside a namespace of UTF-8: a dict, as some forks save it, and text with lone surrogates, as Python has it of odd paths.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use crate::common::hf::{self, Arch};
use crate::common::naive::{Config, Cut, Fill, Written};
use crate::common::run::View;
use crate::common::source::{Checkpoint, ITERATION};
use crate::common::{dict, namespace, ordered_dict, read_pt_file};
use ckpt_fs::value::Value;
use proptest::prelude::*;

type SavedAs = fn(&[(String, Value)]) -> Value;

fn saved_as(args_as: SavedAs, cut: &Cut, extra: &Value) -> Checkpoint {
    let mut checkpoint = Checkpoint::new(&Config::default(), cut).arg("extra", extra);
    for (field, value) in hf::args(Arch::Llama, &Config::default()) {
        checkpoint = checkpoint.arg(field, &value);
    }
    checkpoint.args_as = args_as;
    checkpoint
}

/// The same names in the same order, and the same values but for those that say the layout.
fn check_args(found: &Value, source: &[(String, Value)], tp: i64, what: &str) {
    let fields = found.fields().unwrap();
    let names = |pairs: &[(Value, Value)]| {
        pairs.iter().map(|(key, _)| key.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(fields), source.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), "{what}");
    assert_eq!(found.attribute("tensor_model_parallel_size").and_then(Value::as_int), Some(tp), "{what}");
    for field in ["extra", "lr", "save", "hidden_size"] {
        let (_, wanted) = source.iter().find(|(name, _)| name == field).unwrap();
        assert_eq!(format!("{:?}", found.attribute(field)), format!("{:?}", Some(wanted)), "{what}: {field}");
    }
}

fn form(args: &Value) -> &'static str {
    match args {
        Value::Dict(_) => "dict",
        Value::Object(object) if object.state.is_some() => "namespace",
        Value::Object(_) => "ordered dict",
        _ => "something else",
    }
}

#[test]
fn args_may_be_a_dict_and_stay_one() {
    let all: [(&str, SavedAs); 3] = [
        ("namespace", namespace),
        ("dict", |fields| dict(fields.to_vec())),
        ("ordered dict", |fields| ordered_dict(fields.to_vec())),
    ];
    let (source, target) = (Cut::new(2, &[2, 2]), Cut::new(4, &[4]));
    for (name, args_as) in all {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let checkpoint = saved_as(args_as, &source, &Value::str("kept"));
        checkpoint.write(&path("source"));
        let written = Written::new(&checkpoint.config, &source);
        let check = |root: &Path| {
            for (tp, pp) in target.ranks() {
                let file = root.join(ITERATION).join(target.rank_dir(tp, pp)).join("model_optim_rng.pt");
                let rank = read_pt_file(&file);
                let args = rank.tree.get("args").unwrap();
                assert_eq!(form(args), name);
                check_args(args, &checkpoint.files[0].args, 4, name);
                assert_eq!(rank.tensors, written.rank(&target, tp, pp), "{name}");
            }
        };
        ckpt!("materialize", path("source"), path("tp4"), "--tp", "4", "--pp", "1").ok();
        check(&path("tp4"));
        // By way of this tool's own files, whose args are JSON.
        ckpt!("materialize", path("source"), path("ranks"), "--as", "safetensors").ok();
        ckpt!("materialize", path("ranks"), path("again"), "--as", "megatron", "--tp", "4", "--pp", "1").ok();
        check(&path("again"));
        // Another format reads its fields all the same.
        ckpt!("materialize", path("source"), path("hf"), "--as", "hf").ok();
        let model = hf::read(&std::fs::read(path("hf").join("model.safetensors")).unwrap());
        assert_eq!(model, hf::sorted(hf::tensors(Arch::Llama, &checkpoint.config)), "{name}");
        ckpt!("verify", path("source"), path("hf")).ok();
    }
}

#[test]
fn args_that_are_neither_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    saved_as(|_| Value::List([].into()), &Cut::new(1, &[4]), &Value::None).write(dir.path());
    ckpt!("inspect", dir.path()).refused(3, &["its 'args' are a list, neither a namespace nor a dict"]);
}

/// A text of Python with at least one lone surrogate, as pickle writes it.
fn odd_text() -> impl Strategy<Value = Value> {
    let plain = "[a-z/\u{e9}\u{20ac}\u{1f600}]{0,3}";
    (plain, prop::collection::vec((0xd800u16..=0xdfff, plain), 1..3)).prop_map(|(first, rest)| {
        let mut bytes = first.into_bytes();
        for (code, text) in rest {
            let [high, low] = code.to_be_bytes();
            bytes.extend([0xed, 0x80 | (high & 0x0f) << 2 | low >> 6, 0x80 | low & 0x3f]);
            bytes.extend(text.into_bytes());
        }
        Value::Surrogates(bytes.into())
    })
}

proptest! {
    #![proptest_config(crate::common::cases::cases(24))]

    /// As a field, in a list, and as the key of a dict; in Megatron's views and by way of this tool's own files.
    #[test]
    fn text_with_lone_surrogates_comes_back_byte_for_byte(text in odd_text()) {
        let items = Value::List([text.clone(), Value::str("plain")].into());
        let extra = Value::Dict([(text.clone(), items), (Value::str("twice"), text.clone())].into());
        let dir = tempfile::tempdir().unwrap();
        let source = Cut::new(2, &[4]);
        let checkpoint = saved_as(namespace, &source, &extra);
        checkpoint.write(&dir.path().join("source"));
        for (path, rank) in View::of(&dir.path().join("source"), &Cut::new(1, &[4]), Fill::Zero, None).unwrap().ranks() {
            check_args(rank.tree.get("args").unwrap(), &checkpoint.files[0].args, 1, &path);
        }
        ckpt!("materialize", dir.path().join("source"), dir.path().join("ranks"), "--as", "safetensors").ok();
        for (path, rank) in View::of(&dir.path().join("ranks"), &Cut::new(1, &[4]), Fill::Zero, None).unwrap().ranks() {
            check_args(rank.tree.get("args").unwrap(), &checkpoint.files[0].args, 1, &path);
        }
    }
}
