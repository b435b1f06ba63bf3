//! Byte vectors by hand, one group of opcodes each, and input made to do harm. Vectors were checked against CPython 3.11.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::value::{Construct, Global, Object};

fn decoded(bytes: &[u8]) -> Result<Value, PickleError> {
    decode(bytes, &Limits::default())
}

fn debug(bytes: &[u8]) -> String {
    match decoded(bytes) {
        Ok(value) => format!("{value:?}"),
        Err(error) => error.to_string(),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::List(a), Value::List(b)) => Arc::ptr_eq(a, b),
        (Value::Str(a), Value::Str(b)) => Arc::ptr_eq(a, b),
        (Value::Object(a), Value::Object(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

/// Decodes, encodes and expects the same bytes.
fn round_trips(bytes: &[u8]) {
    let value = decoded(bytes).unwrap();
    assert_eq!(encode(&value).unwrap(), bytes, "{value:?}");
}

#[test]
fn numbers() {
    let cases: &[(&[u8], &str)] = &[
        (b"\x80\x02K\xff.", "Int(255)"),
        (b"\x80\x02M\x00\x01.", "Int(256)"),
        (b"\x80\x02J\xff\xff\xff\xff.", "Int(-1)"),
        (b"\x80\x02\x8a\x05\x00\x00\x00\x80\x00.", "Int(2147483648)"),
        (b"\x80\x02\x8a\x00.", "Int(0)"),
        (b"\x80\x02\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00.", "Long([0, 0, 0, 0, 0, 0, 0, 128, 0])"),
        (b"\x80\x02\x8b\x01\x00\x00\x00\x07.", "Int(7)"),
        (b"\x80\x02G\xbf\xf8\x00\x00\x00\x00\x00\x00.", "Float(-1.5)"),
        (b"I-12\n.", "Int(-12)"),
        (b"I01\n.", "Bool(true)"),
        (b"L12L\n.", "Int(12)"),
        (b"F1.5\n.", "Float(1.5)"),
        (b"\x80\x02\x88.", "Bool(true)"),
        (b"\x80\x02\x89.", "Bool(false)"),
        (b"N.", "None"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(debug(bytes), *expected);
    }
    assert!(matches!(decoded(b"Ix\n."), Err(PickleError::BadNumber { name: "INT", offset: 1 })));
    assert!(matches!(decoded(b"\x8b\xff\xff\xff\xff."), Err(PickleError::BadNumber { .. })));
}

#[test]
fn text_and_bytes() {
    let cases: &[(&[u8], &str)] = &[
        (b"\x80\x02X\x03\x00\x00\x00\xc3\xa4b.", "Str(\"äb\")"),
        (b"\x80\x04\x8c\x01a.", "Str(\"a\")"),
        (b"\x80\x04\x8d\x01\x00\x00\x00\x00\x00\x00\x00a.", "Str(\"a\")"),
        (b"\x80\x03C\x02\x01\xff.", "Bytes([1, 255])"),
        (b"\x80\x03B\x01\x00\x00\x00\x01.", "Bytes([1])"),
        (b"\x80\x04\x8e\x01\x00\x00\x00\x00\x00\x00\x00\x01.", "Bytes([1])"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(debug(bytes), *expected);
    }
    assert_eq!(decoded(b"X\x01\x00\x00\x00\xff.").unwrap_err(), PickleError::NotUtf8 { offset: 5 });
}

/// As Python writes `'a\udcffb'`, `'\ud83d\ude00'` (two surrogates are no pair to it) and the first once more.
#[test]
fn text_with_lone_surrogates_comes_out_as_it_went_in() {
    let bytes = b"\x80\x02]q\x00(X\x05\x00\x00\x00a\xed\xb3\xbfbq\x01X\x06\x00\x00\x00\xed\xa0\xbd\xed\xb8\x80q\x02h\x01e.";
    let value = decoded(bytes).unwrap();
    let Value::List(items) = &value else { panic!("{value:?}") };
    assert!(matches!(&items[0], Value::Surrogates(text) if **text == *b"a\xed\xb3\xbfb"), "{items:?}");
    assert_eq!(items[0].same_scalar(&items[2]), Some(true));
    assert_eq!(items[0].same_scalar(&items[1]), Some(false));
    assert_eq!(encode(&value).unwrap(), bytes);
    // Only a whole surrogate is one, and nothing else that is no UTF-8.
    for text in [b"\xed\xa0".as_slice(), b"\xed\xa0a", b"\xed\xa0\x80\xff", b"\xc0\x80", b"\xf5\x80\x80\x80"]
    {
        let pickle = [b"\x8c", [text.len() as u8].as_slice(), text, b"."].concat();
        assert_eq!(decoded(&pickle).unwrap_err(), PickleError::NotUtf8 { offset: 2 }, "{text:?}");
    }
    let twice = b"}\x8c\x03\xed\xa0\x80N\x8c\x03\xed\xa0\x80Ns0s.";
    assert!(decoded(twice).is_err());
    let twice = b"}(\x8c\x03\xed\xa0\x80N\x8c\x03\xed\xa0\x80Nu.";
    assert!(matches!(decoded(twice), Err(PickleError::DuplicateKey { .. })));
    // A class is never called so.
    assert!(matches!(decoded(b"\x8c\x03\xed\xa0\x80\x8c\x01a\x93."), Err(PickleError::Operand { .. })));
}

#[test]
fn containers() {
    let cases: &[(&[u8], &str)] = &[
        (b").", "Tuple([])"),
        (b"K\x01\x85.", "Tuple([Int(1)])"),
        (b"K\x01K\x02\x86.", "Tuple([Int(1), Int(2)])"),
        (b"NNN\x87.", "Tuple([None, None, None])"),
        (b"(NNNNt.", "Tuple([None, None, None, None])"),
        (b"(Nl.", "List([None])"),
        (b"]Na(NNe.", "List([None, None, None])"),
        (b"(K\x01Nd.", "Dict([(Int(1), None)])"),
        (b"}K\x01Ns(K\x02NK\x03Nu.", "Dict([(Int(1), None), (Int(2), None), (Int(3), None)])"),
        (b"\x80\x04\x8f(K\x01\x90.", "Set([Int(1)])"),
        (b"\x80\x04(K\x01\x91.", "FrozenSet([Int(1)])"),
        (b"N0N.", "None"),
        (b"N(NN1.", "None"),
        (b"N(0.", "None"),
        (b"K\x01Q.", "Persistent(Int(1))"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(debug(bytes), *expected, "{bytes:?}");
    }
    assert!(matches!(decoded(b"}K\x01NK\x01Nss."), Err(PickleError::Operand { .. })));
    assert!(matches!(decoded(b"(K\x01d."), Err(PickleError::Operand { .. })));
    assert!(matches!(decoded(b"}(K\x01NK\x01Nu."), Err(PickleError::DuplicateKey { .. })));
    assert!(matches!(decoded(b"]\x8f(N\x90."), Err(PickleError::UnbalancedStop { .. })));
    assert!(matches!(decoded(b"\x8fNa."), Err(PickleError::Operand { name: "APPEND", .. })));
}

#[test]
fn memo_makes_one_object_of_two_references() {
    for bytes in [
        b"]q\x00h\x00\x86.".as_slice(),
        b"(]p7\ng7\nt.",
        b"(]r\x00\x01\x00\x00j\x00\x01\x00\x00t.",
        b"(]\x94h\x00t.",
        b"(]2t.",
    ] {
        let Value::Tuple(items) = decoded(bytes).unwrap() else { panic!("{bytes:?}") };
        assert!(same(&items[0], &items[1]));
    }
    // What is appended after the reference was made is seen through it.
    assert_eq!(debug(b"]q\x000h\x00Na."), "List([None])");
    assert!(matches!(decoded(b"h\x05."), Err(PickleError::UnknownMemo { index: 5, .. })));
    assert!(matches!(decoded(b"g-1\n."), Err(PickleError::BadNumber { name: "GET", .. })));
}

#[test]
fn objects_are_described_and_never_made() {
    // os.system('x') is what an attack would look like: here it is a value.
    let value = decoded(b"cos\nsystem\nX\x01\x00\x00\x00x\x85R.").unwrap();
    let Value::Object(object) = value else { panic!() };
    assert_eq!(object.construct, Construct::Call);
    assert!(matches!(&object.callable, Value::Global(global) if global.is("os", "system")));

    let value = decoded(b"\x80\x04\x8c\x01m\x8c\x01n\x93)\x81K\x01aK\x02K\x03s}b.").unwrap();
    let Value::Object(object) = value else { panic!() };
    assert_eq!(object.construct, Construct::New);
    assert_eq!((object.appended.len(), object.items.len()), (1, 1));
    assert!(matches!(object.state, Some(Value::Dict(_))));

    for bytes in
        [b"cm\nn\n)R}b}b.".as_slice(), b"cm\nn\n)R}bK\x01K\x01s.", b"cm\nn\n)R}bNa.", b"]Nb.", b"NN\x93."]
    {
        assert!(matches!(decoded(bytes), Err(PickleError::Operand { .. })), "{bytes:?}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let cases: &[(&[u8], &str)] = &[
        (b"(ios\nsystem\n.", "opcode INST (0x69) at byte 1 is not supported"),
        (b"\x82\x01.", "opcode EXT1 (0x82) at byte 0 is not supported"),
        (b"NNN\x92.", "opcode NEWOBJ_EX (0x92) at byte 3 is not supported"),
        (b"\xff.", "opcode unknown (0xff) at byte 0 is not supported"),
        (b"\x80\x06N.", "pickle protocol 6 at byte 0 is not supported (0 to 5 are)"),
        (b"N.N", "1 bytes follow the end of the pickle at byte 2"),
        (b"NN.", "the pickle ends with 2 values on its stack and 0 open marks instead of one value"),
        (b"t.", "opcode TUPLE at byte 0 needs a mark and there is none"),
        (b"N(\x85.", "opcode TUPLE1 at byte 2 takes more values than there are"),
        (b"N(a.", "opcode APPEND at byte 2 takes more values than there are"),
        (b"", "the pickle is cut short: 1 bytes needed at byte 0, 0 left"),
        (
            b"\x95\x09\x00\x00\x00\x00\x00\x00\x00N.",
            "the pickle is cut short: 9 bytes needed at byte 9, 2 left",
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(debug(bytes), *expected);
    }
}

#[test]
fn declared_lengths_allocate_nothing() {
    for bytes in [
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.".as_slice(),
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"X\xff\xff\xff\xffa.",
        b"\x8b\xff\xff\xff\x7fa.",
        b"\x8a\xffa.",
    ] {
        assert!(matches!(decoded(bytes), Err(PickleError::Truncated { .. })));
    }
    // A memo index is a key, not a position.
    assert_eq!(debug(b"Nr\xff\xff\xff\xff."), "None");
}

#[test]
fn billion_laughs_are_refused() {
    let mut bytes = b"N".to_vec();
    bytes.extend(b"2\x86".repeat(100));
    bytes.push(b'.');
    assert_eq!(decoded(&bytes).unwrap_err(), PickleError::TooLarge { limit: 50_000_000 });
    // One long text, many references: what it weighs counts too.
    let mut bytes = b"(X\x00\x00\x10\x00".to_vec();
    bytes.extend(vec![b'a'; 1 << 20]);
    bytes.extend(vec![b'2'; 1 << 10]);
    bytes.extend(b"t.");
    assert_eq!(decoded(&bytes).unwrap_err(), PickleError::TooLarge { limit: 50_000_000 });
}

#[test]
fn deep_nesting_is_refused() {
    let deep = |open: &[u8], close: &[u8], count| {
        [&open.repeat(count), b"N".as_slice(), &close.repeat(count), b"."].concat()
    };
    let limit = 200;
    for count in [200, 100_000] {
        for (open, close) in
            [(b"".as_slice(), b"\x85".as_slice()), (b"(", b"t"), (b"]", b"a"), (b"", b"Q"), (b"N", b"R")]
        {
            assert_eq!(decoded(&deep(open, close, count)).unwrap_err(), PickleError::TooDeep { limit });
        }
    }
    assert!(decoded(&deep(b"", b"\x85", 199)).is_ok());
    // Protocol 2 writes sets and bytes as calls, which are deeper: what is read can be written and read again.
    for (open, leaf, close, most) in [
        (b"".as_slice(), b"N".as_slice(), b"\x85".as_slice(), 199),
        (b"", b"C\0", b"\x85", 197),
        (b"(", b"N", b"\x91", 66),
    ] {
        let nested = |count| decoded(&[&open.repeat(count), leaf, &close.repeat(count), b"."].concat());
        assert_eq!(nested(most + 1).unwrap_err(), PickleError::TooDeep { limit });
        decoded(&encode(&nested(most).unwrap()).unwrap()).unwrap();
    }
    // Shallow where it is met first, deep where it is referred to last.
    let mut bytes = [b"(N".as_slice(), &b"\x85".repeat(150), b"q\x00h\x00"].concat();
    bytes.extend(b"\x85".repeat(100));
    bytes.extend(b"t.");
    assert_eq!(decoded(&bytes).unwrap_err(), PickleError::TooDeep { limit });
}

#[test]
fn cycles_are_refused() {
    for bytes in
        [b"]q\x00h\x00a.".as_slice(), b"}q\x00Nh\x00s.", b"cm\nn\n)Rq\x00h\x00b.", b"]q\x00h\x00\x85a."]
    {
        assert!(matches!(decoded(bytes), Err(PickleError::Cycle { .. })), "{bytes:?}");
    }
}

#[test]
fn written_as_cpython_writes_them() {
    // pickle.dumps(x, 2) for the comment's x.
    for bytes in [
        // [[a, a, b, (), ()], ['x', 'x']] where a and b are empty lists
        b"\x80\x02]q\x00(]q\x01(]q\x02h\x02]q\x03))e]q\x04(X\x01\x00\x00\x00xq\x05h\x05ee.".as_slice(),
        // [b'', b'ab', b'a']
        b"\x80\x02]q\x00(c__builtin__\nbytes\nq\x01)Rq\x02c_codecs\nencode\nq\x03X\x02\x00\x00\x00abq\x04X\x06\x00\x00\x00latin1q\x05\x86q\x06Rq\x07h\x03X\x01\x00\x00\x00aq\x08h\x05\x86q\x09Rq\x0ae.",
        // OrderedDict([(1, None)])
        b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01K\x01Ns.",
        // [2**31, -2**31-1, -128, 2**63]
        b"\x80\x02]q\x00(\x8a\x05\x00\x00\x00\x80\x00\x8a\x05\xff\xff\xff\x7f\xffJ\x80\xff\xff\xff\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00e.",
    ] {
        round_trips(bytes);
    }
    let bytes = |data: &[u8]| Value::Bytes(data.into());
    let list = Value::List(vec![bytes(b""), bytes(b"ab"), bytes(b"a")].into());
    assert_eq!(
        encode(&list).unwrap(),
        b"\x80\x02]q\x00(c__builtin__\nbytes\nq\x01)Rq\x02c_codecs\nencode\nq\x03X\x02\x00\x00\x00abq\x04X\x06\x00\x00\x00latin1q\x05\x86q\x06Rq\x07h\x03X\x01\x00\x00\x00aq\x08h\x05\x86q\x09Rq\x0ae."
    );
    let set = Value::Set(vec![Value::Int(1), Value::Int(2)].into());
    assert_eq!(encode(&set).unwrap(), b"\x80\x02c__builtin__\nset\nq\x00]q\x01(K\x01K\x02e\x85q\x02Rq\x03.");
    let set = Value::FrozenSet(vec![Value::Int(1)].into());
    assert_eq!(encode(&set).unwrap(), b"\x80\x02c__builtin__\nfrozenset\nq\x00]q\x01K\x01a\x85q\x02Rq\x03.");
}

#[test]
fn batches_are_cpythons() {
    let count = |value: &Value, codes: &[u8]| -> Vec<usize> {
        // Items are None, so no other byte of the output is one of these codes.
        let bytes = encode(value).unwrap();
        codes.iter().map(|code| bytes.iter().filter(|byte| *byte == code).count()).collect()
    };
    let object = |appended, items| {
        let callable = Value::Global(Arc::new(Global { module: "M".into(), name: "M".into() }));
        let args = Value::Tuple(Arc::from(vec![]));
        Value::Object(Arc::new(Object {
            construct: Construct::Call,
            callable,
            args,
            appended,
            items,
            state: None,
        }))
    };
    // (items, APPEND and APPENDS of a list, SETITEM and SETITEMS of a dict, the same of an object)
    for (n, list, dict, other) in [
        (0, [0, 0], [0, 0], [0, 0]),
        (1, [1, 0], [1, 0], [1, 0]),
        (2, [0, 1], [0, 1], [0, 1]),
        (999, [0, 1], [0, 1], [0, 1]),
        (1000, [0, 1], [0, 2], [0, 1]),
        (1001, [0, 2], [0, 2], [1, 1]),
        (2000, [0, 2], [0, 3], [0, 2]),
        (2001, [0, 3], [0, 3], [1, 2]),
    ] {
        let values = vec![Value::None; n];
        let pairs = vec![(Value::None, Value::None); n];
        assert_eq!(count(&Value::List(values.clone().into()), b"ae"), list);
        assert_eq!(count(&Value::Dict(pairs.clone().into()), b"su"), dict);
        assert_eq!(count(&object(values, vec![]), b"ae"), other);
        assert_eq!(count(&object(vec![], pairs), b"su"), other);
    }
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let mut value = Value::None;
    for _ in 0..500 {
        value = Value::Tuple(vec![value].into());
    }
    assert!(matches!(encode(&value), Err(PickleError::TooDeep { .. })));
    let global = Global { module: "a\nb".into(), name: "c".into() };
    assert!(matches!(encode(&Value::Global(global.into())), Err(PickleError::GlobalName { .. })));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decoded(&bytes);
    }

    /// Random programs of valid opcodes get further than random bytes do.
    #[test]
    fn random_opcodes_never_panic(codes in proptest::collection::vec(proptest::sample::select(
        b"().0122NQR]abdelst}\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x93\x94".to_vec()), 0..300)) {
        let mut bytes = codes;
        bytes.push(b'.');
        if let Ok(value) = decoded(&bytes) {
            encode(&value).unwrap();
        }
    }
}
