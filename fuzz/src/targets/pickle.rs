//! Pickles: memory follows from their length, and what was read is written so that it reads the same again.

use crate::bounded;
use ckpt_fs::format::pickle::{Limits, decode, encode};
use ckpt_fs::format::torch::{decode_pickle, encode_pickle};
use ckpt_fs::value::Value;

/// Both as text, where that is short and protocol 2 has all kinds of values in them.
fn check_same(tree: &Value, again: &Value) {
    let text = format!("{tree:?}");
    // Sets and bytes are written as the calls that make them.
    if !text.contains("Set(") && !text.contains("Bytes(") {
        assert_eq!(format!("{again:?}"), text);
    }
}

/// The bytes of a torch pickle once it was read from these.
fn rewritten(pickle: &[u8]) -> Vec<u8> {
    let tree = decode_pickle(pickle, &Limits::default()).expect("what was written is read");
    encode_pickle(&tree).expect("what was read is written").pickle
}

/// Holds one input against what must be so.
pub fn run(bytes: &[u8]) {
    // 200 is what docs/formats.md promises of the decoder; tensors are made of a tree beside it.
    let limits = Limits { expanded: 1 << 20, ..Limits::default() };
    let small = decode(bytes, &Limits { expanded: 1 << 12, ..limits }).is_ok();
    if let Ok(tree) = bounded(bytes.len(), 200, 1 << 16, || decode(bytes, &limits))
        && let Ok(written) = encode(&tree)
    {
        let again = decode(&written, &Limits::default()).expect("what was written is read");
        if small {
            check_same(&tree, &again);
        }
        assert!(encode(&again).expect("twice") == written, "written otherwise the second time");
    }
    if let Ok(tree) = bounded(bytes.len(), 400, 1 << 16, || decode_pickle(bytes, &limits))
        && let Ok(written) = encode_pickle(&tree)
    {
        // No pickler refers to a persistent id twice, it makes it anew; written once it is anew here too.
        let once = rewritten(&written.pickle);
        assert!(rewritten(&once) == once, "written otherwise the third time");
    }
}
