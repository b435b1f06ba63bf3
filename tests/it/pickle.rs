//! Pickles of real checkpoints: decoding and encoding gives the same bytes, and damage never panics.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use std::path::Path;

use ckpt_fs::format::pickle::{Limits, decode, encode};
use proptest::prelude::*;

const NAMES: [&str; 5] =
    ["yuan_none", "yuan_f16", "yuan_distrib_optim", "megatron_optimizer_rng", "megatron_shared_storage"];

fn real(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pickles");
    std::fs::read(folder.join(name).with_extension("pkl")).unwrap()
}

#[test]
fn real_pickles_come_out_as_they_went_in() {
    for name in NAMES {
        let bytes = real(name);
        let value = decode(&bytes, &Limits::default()).unwrap();
        assert!(encode(&value).unwrap() == bytes, "{name}");
    }
}

#[test]
fn real_trees_are_small_and_shallow() {
    for name in NAMES {
        decode(&real(name), &Limits { depth: 20, expanded: 100_000 }).unwrap();
    }
}

#[test]
fn a_pickle_cut_anywhere_is_an_error() {
    for name in ["yuan_distrib_optim", "yuan_none"] {
        let bytes = real(name);
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len], &Limits::default()).is_err(), "{name} at {len}");
        }
    }
}

proptest! {
    #[test]
    fn damaged_pickles_never_panic(
        name in proptest::sample::select(NAMES.to_vec()),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = real(name);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(value) = decode(&bytes, &Limits::default()) {
            let _ = encode(&value);
        }
    }
}
