//! The index of a model in several files: what was read is written so that it reads the same.

use crate::bounded;
use ckpt_fs::format::hf::{decode_index, encode_index};

/// Holds one input against what must be so.
pub fn run(text: &[u8]) {
    if let Ok(index) = bounded(text.len(), 100, 1 << 14, || decode_index(text)) {
        assert_eq!(decode_index(&encode_index(&index, 1, 2)).as_ref(), Ok(&index));
    }
}
