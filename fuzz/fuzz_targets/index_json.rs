//! The index of a model in several files: what was read is written so that it reads the same.

#![no_main]

use ckpt_fs::format::hf::{decode_index, encode_index};
use harness::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Ok(index) = bounded(text.len(), 100, 1 << 14, || decode_index(text)) {
        assert_eq!(decode_index(&encode_index(&index, 1, 2)).as_ref(), Ok(&index));
    }
});
