//! Trees by hand: what is lifted, what is refused, what is written. That torch's own files come out as they went in is tested in
//! `tests/it/torch_files.rs`.

use std::sync::Arc;

use super::*;
use crate::format::zip::Entry;
use crate::tensor::{Dtype, Shape};
use crate::value::{Construct, Object, Storage, TensorRef};

fn call(module: &str, name: &str, args: Vec<Value>) -> Value {
    Value::Object(Arc::new(Object {
        construct: Construct::Call,
        callable: global(module, name),
        args: tuple(args),
        appended: vec![],
        items: vec![],
        state: None,
    }))
}

fn tuple(items: Vec<Value>) -> Value {
    Value::Tuple(items.into())
}

fn ints(numbers: &[i64]) -> Value {
    tuple(numbers.iter().copied().map(Value::Int).collect())
}

fn storage(class: &str, key: &str, location: &str, elements: i64) -> Value {
    let id = [Value::str("storage"), global("torch", class), Value::str(key), Value::str(location)];
    Value::Persistent(Arc::new(tuple([id.to_vec(), vec![Value::Int(elements)]].concat())))
}

fn hooks() -> Value {
    call("collections", "OrderedDict", vec![])
}

fn arguments(storage: Value, offset: i64, sizes: &[i64], strides: &[i64]) -> Vec<Value> {
    vec![storage, Value::Int(offset), ints(sizes), ints(strides), Value::Bool(false), hooks()]
}

fn v2(storage: Value, offset: i64, sizes: &[i64], strides: &[i64]) -> Value {
    call("torch._utils", "_rebuild_tensor_v2", arguments(storage, offset, sizes, strides))
}

fn lifted(value: &Value) -> Result<Value, TorchError> {
    decode_pickle(&pickle::encode(value).unwrap(), &Limits::default())
}

fn dict(items: Vec<(&str, Value)>) -> Value {
    Value::Dict(items.into_iter().map(|(key, value)| (Value::str(key), value)).collect())
}

fn tensor(dtype: Dtype, key: &str, elements: u64) -> Arc<TensorRef> {
    Arc::new(TensorRef {
        dtype,
        shape: Shape(vec![elements]),
        strides: vec![1],
        offset: 0,
        storage: Storage { key: key.into(), bytes: elements * dtype.size() },
        requires_grad: false,
    })
}

#[test]
fn tensors_must_fit_their_storage() {
    let float = |elements| storage("FloatStorage", "0", "cpu", elements);
    for (offset, sizes, strides) in [
        (0, [2, 3].as_slice(), [3, 1].as_slice()),
        (5, &[1], &[100]),
        (5, &[], &[]),
        (0, &[1000], &[0]),
        (1000, &[0, 1000], &[7, 7]),
    ] {
        let value = lifted(&v2(float(6), offset, sizes, strides)).unwrap();
        assert!(value.tensor().is_some(), "{offset} {sizes:?}");
    }
    for (offset, sizes, strides, expected) in [
        (1, [2, 3].as_slice(), [3, 1].as_slice(), "does not fit storage 0 of 6 elements"),
        (6, &[], &[], "does not fit"),
        (0, &[2], &[i64::MAX], "does not fit"),
        (0, &[i64::MAX, i64::MAX, i64::MAX], &[0, 0, 0], "does not fit"),
        (0, &[i64::MAX, i64::MAX], &[i64::MAX, i64::MAX], "does not fit"),
        (0, &[2, 3], &[1], "one stride per dimension"),
        (-1, &[1], &[1], "expected an offset"),
        (0, &[-1], &[1], "expected sizes"),
        (0, &[1], &[-1], "expected strides"),
    ] {
        let error = lifted(&v2(float(6), offset, sizes, strides)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} instead of {expected}");
    }
    let error = lifted(&v2(float(-1), 0, &[1], &[1])).unwrap_err().to_string();
    assert!(error.contains("a number of elements"), "{error}");
    let huge = storage("DoubleStorage", "0", "cpu", i64::MAX);
    assert!(lifted(&v2(huge, 0, &[1], &[1])).is_err());
}

#[test]
fn errors_name_the_tensor() {
    let bad = v2(storage("FloatStorage", "0", "cpu", 1), 0, &[2], &[1]);
    let tree = dict(vec![("model", dict(vec![("layers.0.weight", bad)]))]);
    let error = lifted(&tree).unwrap_err().to_string();
    assert!(error.starts_with("model.layers.0.weight: a tensor of shape [2]"), "{error}");
}

#[test]
fn storages_must_agree_about_their_size() {
    let one = v2(storage("FloatStorage", "0", "cpu", 1), 0, &[1], &[1]);
    let two = v2(storage("FloatStorage", "0", "cpu", 2), 0, &[1], &[1]);
    let error = lifted(&tuple(vec![one, two])).unwrap_err();
    assert_eq!(error, TorchError::StorageDisagrees { key: "0".into(), first: 4, second: 8 });
    let tree = tuple(vec![
        Value::Tensor(tensor(Dtype::Float32, "a", 1)),
        Value::Tensor(tensor(Dtype::Float32, "a", 2)),
    ]);
    assert!(matches!(encode_pickle(&tree), Err(TorchError::StorageDisagrees { .. })));
}

#[test]
fn other_spellings_are_read() {
    // The first version of the call has four arguments; GPU files name their device.
    let mut args = arguments(storage("HalfStorage", "7", "cuda:3", 6), 2, &[4], &[1]);
    args.truncate(4);
    let value = lifted(&call("torch._utils", "_rebuild_tensor", args)).unwrap();
    let found = value.tensor().unwrap();
    assert_eq!((found.dtype, found.offset, &*found.storage.key), (Dtype::Float16, 2, "7"));
    // An untyped storage is counted in bytes; without a dtype of its own its tensor is uint8.
    let mut args = arguments(storage("UntypedStorage", "0", "cpu", 6), 0, &[3], &[1]);
    let value = lifted(&call("torch._utils", "_rebuild_tensor_v2", args.clone())).unwrap();
    assert_eq!(value.tensor().unwrap().dtype, Dtype::Uint8);
    args.push(global("torch", "uint16"));
    let value = lifted(&call("torch._utils", "_rebuild_tensor_v3", args.clone())).unwrap();
    assert_eq!(value.tensor().unwrap().dtype, Dtype::Uint16);
    // Metadata that says nothing changes nothing.
    args.push(Value::None);
    assert!(lifted(&call("torch._utils", "_rebuild_tensor_v3", args)).unwrap().tensor().is_some());
}

#[test]
fn what_is_not_plain_stays_an_object() {
    let plain = || arguments(storage("FloatStorage", "0", "cpu", 6), 0, &[3], &[1]);
    let with_metadata = [plain(), vec![dict(vec![("conj", Value::Bool(true))])]].concat();
    let mut hooked = plain();
    hooked[5] = dict(vec![("hook", global("m", "f"))]);
    let bits = [plain(), vec![global("torch", "bits8")]].concat();
    let of_class = vec![
        global("torch._utils", "_rebuild_tensor_v2"),
        global("my", "Tensor"),
        tuple(plain()),
        Value::None,
    ];
    for (module, name, args) in [
        ("torch._utils", "_rebuild_tensor_v2", with_metadata),
        ("torch._utils", "_rebuild_tensor_v2", hooked),
        ("torch._utils", "_rebuild_tensor_v3", bits),
        ("torch._tensor", "_rebuild_from_type_v2", of_class),
        ("torch._utils", "_rebuild_qtensor", plain()),
    ] {
        let value = lifted(&call(module, name, args)).unwrap();
        assert!(value.tensor().is_none() && matches!(value, Value::Object(_)));
        // Its storage is listed all the same.
        let encoded = encode_pickle(&value).unwrap();
        assert_eq!(encoded.storages, [Storage { key: "0".into(), bytes: 24 }]);
    }
}

#[test]
fn storages_are_numbered_as_they_are_met() {
    let tree = dict(vec![
        ("b", Value::Tensor(tensor(Dtype::Float32, "shard/b", 2))),
        ("a", Value::Tensor(tensor(Dtype::Uint16, "shard/a", 3))),
        ("again", Value::Tensor(tensor(Dtype::Float32, "shard/b", 2))),
    ]);
    let encoded = encode_pickle(&tree).unwrap();
    let keys: Vec<_> = encoded.storages.iter().map(|storage| (&*storage.key, storage.bytes)).collect();
    assert_eq!(keys, [("shard/b", 8), ("shard/a", 6)]);
    let back = decode_pickle(&encoded.pickle, &Limits::default()).unwrap();
    let key = |name: &str| back.get(name).unwrap().tensor().unwrap().storage.key.to_string();
    assert_eq!((key("b"), key("a"), key("again")), ("0".into(), "1".into(), "0".into()));
}

#[test]
fn places_become_the_cpu() {
    for tree in [
        v2(storage("FloatStorage", "0", "cuda:0", 1), 0, &[1], &[1]),
        call("torch._utils", "_rebuild_qtensor", vec![storage("QInt8Storage", "3", "cuda:0", 1)]),
    ] {
        let encoded = encode_pickle(&lifted(&tree).unwrap()).unwrap();
        let text = String::from_utf8_lossy(&encoded.pickle).into_owned();
        assert!(text.contains("cpu") && !text.contains("cuda"), "{text}");
    }
}

/// A tensor with attributes keeps them when its dtype, and with it the function that rebuilds it, is another.
#[test]
fn attributes_stay_with_a_tensor() {
    for (dtype, function) in
        [(Dtype::Float32, "_rebuild_tensor_v2"), (Dtype::Float8E5m2, "_rebuild_tensor_v3")]
    {
        let args = vec![
            global("torch._utils", "_rebuild_tensor_v2"),
            global("torch", "Tensor"),
            Value::Tensor(tensor(dtype, "x", 4)),
            dict(vec![("partition_dim", Value::Int(1))]),
        ];
        let tree = call("torch._tensor", "_rebuild_from_type_v2", args);
        let encoded = encode_pickle(&tree).unwrap();
        let Value::Object(object) = pickle::decode(&encoded.pickle, &Limits::default()).unwrap() else {
            panic!()
        };
        let Value::Tuple(args) = &object.args else { panic!() };
        assert!(matches!(&args[0], Value::Global(global) if &*global.name == function));
        assert!(matches!(&args[2], Value::Tuple(_)));
        let back = decode_pickle(&encoded.pickle, &Limits::default()).unwrap();
        assert_eq!(back.tensor().unwrap().dtype, dtype);
    }
}

#[test]
fn what_cannot_be_written_is_named() {
    let mut odd = (*tensor(Dtype::Float32, "x", 1)).clone();
    odd.storage.bytes = 6;
    let tree = dict(vec![("weight", Value::Tensor(Arc::new(odd)))]);
    let error = encode_pickle(&tree).unwrap_err().to_string();
    assert_eq!(error, "weight: storage x of 6 bytes does not hold a whole number of float32 elements");
    let unknown = storage("NoStorage", "0", "cpu", 1);
    assert_eq!(
        encode_pickle(&unknown).unwrap_err(),
        TorchError::StorageClass { class: "torch.NoStorage".into() }
    );
}

/// One text as the key of each dict on the way down would make a message longer than the file.
#[test]
fn a_message_does_not_repeat_long_keys() {
    let mut odd = (*tensor(Dtype::Float32, "x", 1)).clone();
    odd.storage.bytes = 6;
    let key: Arc<str> = "k".repeat(1 << 16).into();
    let inner = Value::Tensor(Arc::new(odd));
    let tree = (0..100).fold(inner, |inner, _| Value::Dict([(Value::Str(key.clone()), inner)].into()));
    assert!(encode_pickle(&tree).unwrap_err().to_string().len() < 1 << 16);
}

#[test]
fn small_records_are_checked() {
    for good in [b"3\n".as_slice(), b"1", b"10\n"] {
        check_version(good).unwrap();
    }
    for bad in [b"0".as_slice(), b"11", b"", b"x", b"\xff"] {
        assert!(matches!(check_version(bad), Err(TorchError::Version { .. })));
    }
    check_byteorder(b"little").unwrap();
    assert_eq!(check_byteorder(b"big"), Err(TorchError::Byteorder { found: "big".into() }));
}

#[test]
fn archives_are_recognised() {
    let archive = |names: &[&str]| {
        let entry = |name: &&str| {
            let name = (*name).into();
            Entry { name, header_offset: 0, size: 1, crc: 0, described: true, limit: 0 }
        };
        Archive::new(names.iter().map(entry).collect())
    };
    let good = archive(&["a/data.pkl", "a/data/0", "a/version", "b/data/1"]).unwrap();
    assert_eq!((good.prefix.as_str(), good.storages().count(), good.byteorder.is_none()), ("a", 1, true));
    assert!(archive(&["a/.data/version", "a/data.pkl"]).is_ok());
    assert!(matches!(archive(&[]), Err(TorchError::NoPickle { first: None })));
    assert!(matches!(archive(&["data.pkl", "version"]), Err(TorchError::NoPickle { .. })));
    assert!(matches!(archive(&["a/x", "b/data.pkl"]), Err(TorchError::NoPickle { .. })));
    assert_eq!(archive(&["a/data.pkl"]).unwrap_err(), TorchError::NoVersion);
    assert_eq!(archive(&["a/data.pkl", "a/constants.pkl"]).unwrap_err(), TorchError::TorchScript);
}

#[test]
fn the_id_of_a_layout_is_always_the_same() {
    let id = |sizes: &[u64]| match records(7, sizes).pop().map(|record| record.content) {
        Some(Content::Bytes(id)) => String::from_utf8(id).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(id(&[1, 2]), id(&[1, 2]));
    assert_ne!(id(&[1, 2]), id(&[2, 1]));
    assert!(id(&[]).len() == 40 && id(&[]).bytes().all(|digit| digit.is_ascii_digit()));
}
