//! Tensors that reach beyond their bytes, or stand for more than there are.

use std::fs;

use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::Value;

use crate::bounds::{MB, Victim, alone, opened_within};
use crate::ckpt;
use crate::common::source::Checkpoint;
use crate::common::{Storages, call, dict, tuple};

/// A checkpoint with one tensor pickled as `make` says, in place of its embedding.
fn with_embedding(make: impl Fn(&mut Storages) -> Value) -> Victim {
    let checkpoint = Checkpoint::small_as(1, &[4]);
    let bytes = checkpoint.with_embedding("mp_rank_00", make);
    let victim = Victim::of(&checkpoint);
    fs::write(victim.file(), bytes).unwrap();
    victim
}

const BYTES: u64 = 12 * 6 * 4;

/// A tensor of torch's with other numbers in it: `(storage, offset, sizes, strides, requires_grad, hooks)`.
fn with_numbers(change: impl Fn(&mut Vec<Value>)) -> Victim {
    with_embedding(|storages| {
        let number = storages.add(vec![0; BYTES as usize]);
        let plain = storages.tensor_at(Dtype::Float32, number, BYTES, 0, &[12, 6], &[6, 1]);
        let Value::Object(object) = &plain else { panic!() };
        let mut args = object.args.elements().unwrap().to_vec();
        change(&mut args);
        call("torch._utils", "_rebuild_tensor_v2", args)
    })
}

fn ints(numbers: &[i64]) -> Value {
    tuple(numbers.iter().copied().map(Value::Int).collect())
}

#[test]
fn numbers_below_zero_and_beyond_64_bits() {
    let _alone = alone();
    let long = || Value::Long([0, 0, 0, 0, 0, 0, 0, 0, 1].as_slice().into());
    for (at, value) in [
        (1, Value::Int(-1)),
        (1, Value::Int(i64::MIN)),
        (1, long()),
        (1, Value::Bool(true)),
        (1, Value::Float(0.0)),
        (2, ints(&[-12, 6])),
        (2, ints(&[-12, -6])),
        (2, tuple(vec![long(), Value::Int(6)])),
        (3, ints(&[-6, 1])),
        (3, ints(&[6])),
        (3, ints(&[6, 1, 1])),
        (3, tuple(vec![long(), Value::Int(1)])),
        (3, Value::None),
        (4, Value::Int(1)),
    ] {
        let bad = with_numbers(|args| args[at] = value.clone());
        bad.refused(8 * MB, &["embedding.word_embeddings.weight"]);
    }
    for (offset, sizes, strides) in [
        (i64::MAX, [12, 6], [6, 1]),
        (0, [i64::MAX, i64::MAX], [0, 0]),
        (0, [i64::MAX, 2], [i64::MAX, i64::MAX]),
        (0, [1 << 33, 1 << 33], [1 << 33, 1]),
        (0, [12, 6], [i64::MAX, 1]),
        (67, [12, 6], [0, 1]),
    ] {
        let bad = with_numbers(|args| {
            args[1] = Value::Int(offset);
            args[2] = ints(&sizes);
            args[3] = ints(&strides);
        });
        bad.refused(8 * MB, &["embedding.word_embeddings.weight", "does not fit storage"]);
    }
    // A million dimensions, and calls of too few and too many arguments.
    let many = vec![1; 1_000_000];
    let bad = with_numbers(|args| {
        args[2] = ints(&many);
        args[3] = ints(&many);
    });
    bad.refused(300 * MB, &["embedding.word_embeddings.weight"]);
    ckpt!("inspect", bad.src()).refused(3, &["embedding.word_embeddings.weight"]);
    with_numbers(|args| args.truncate(3)).refused(8 * MB, &["its arguments"]);
    with_numbers(|args| args.extend(vec![Value::None; 5])).refused(8 * MB, &["its arguments"]);
}

#[test]
fn storages_that_are_not_what_tensors_say() {
    let _alone = alone();
    let id = |word: &str, class: (&str, &str), key: Value, elements: Value| {
        let class = crate::common::global(class.0, class.1);
        let parts = vec![Value::str(word), class, key, Value::str("cpu"), elements];
        Value::Persistent(tuple(parts).into())
    };
    let float = ("torch", "FloatStorage");
    let zero = || Value::str("0");
    for (storage, word) in [
        (id("storage", float, zero(), Value::Int(-1)), "a number of elements"),
        (id("storage", float, zero(), Value::Int(i64::MAX)), "a number of elements"),
        (id("storage", float, zero(), Value::Int(1)), "does not fit storage"),
        (id("storage", float, zero(), Value::Int(1 << 40)), "its storage has"),
        (
            id("storage", float, Value::str("../../etc/shadow"), Value::Int(72)),
            "no record data/../../etc/shadow",
        ),
        (id("storage", float, Value::str("0\0"), Value::Int(72)), "no record"),
        (id("storage", float, Value::Int(0), Value::Int(72)), "bad tensor"),
        (id("module", float, zero(), Value::Int(72)), "bad tensor"),
        (id("storage", ("os", "system"), zero(), Value::Int(72)), "storages of class os.system"),
        (id("storage", ("torch", "QInt8Storage"), zero(), Value::Int(288)), "expected a tensor"),
        (Value::Persistent(Value::Int(7).into()), "bad tensor"),
    ] {
        with_numbers(|args| args[0] = storage.clone()).refused(8 * MB, &[word]);
    }
    // One storage, of one size for one tensor and of another for the next.
    let two = with_embedding(|storages| {
        let number = storages.add(vec![0; BYTES as usize]);
        let whole = storages.tensor_at(Dtype::Float32, number, BYTES, 0, &[12, 6], &[6, 1]);
        let half = storages.tensor_at(Dtype::Float16, number, BYTES / 2, 0, &[12, 6], &[6, 1]);
        dict(vec![("a".into(), whole), ("b".into(), half)])
    });
    two.refused(8 * MB, &["storage 0 has"]);
}

#[test]
fn a_storage_that_is_shared_by_element_types_is_read_as_each_says() {
    let _alone = alone();
    let victim = with_embedding(|storages| {
        // The same bytes as numbers of 32 and of 16 bits, where torch shows them so.
        let number = storages.add((0..=255).chain(0..32).collect());
        storages.tensor_at(Dtype::Float32, number, BYTES, 0, &[12, 6], &[6, 1])
    });
    opened_within(&victim.src(), 8 * MB).unwrap();
}

/// A checkpoint whose vocabulary has that many rows, all of them the one that is stored.
fn with_vocabulary(rows: u64) -> Victim {
    let checkpoint = Checkpoint::small_as(1, &[4]);
    let bytes = checkpoint.with_tensors("mp_rank_00", |path, storages| {
        ["embedding.word_embeddings.weight", "output_layer.weight"].contains(&path).then(|| {
            let number = storages.add(vec![0; 24]);
            storages.tensor_at(Dtype::Float32, number, 24, 0, &[rows, 6], &[0, 1])
        })
    });
    Victim::with_file(&bytes)
}

#[test]
fn tensors_that_stand_for_far_more_than_the_files_have() {
    let _alone = alone();
    // Some of it is what torch would show.
    let real = with_vocabulary(12 << 10);
    assert_eq!(opened_within(&real.src(), 8 * MB), Ok(()));
    ckpt!("digest", real.src()).ok();
    for rows in [1 << 26, 1 << 36, 1 << 40] {
        let bad = with_vocabulary(rows);
        let words = ["parameter output.weight", "expanded", &format!("[{rows}, 6]")];
        bad.refused(8 * MB, &words);
        for command in ["digest", "verify", "inspect", "ls"] {
            ckpt!(command, bad.src()).refused(3, &words);
        }
        ckpt!("materialize", bad.src(), bad.path("out")).refused(3, &words);
        assert!(!bad.path("out").exists());
    }
}
