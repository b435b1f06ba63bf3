//! Attacks by a checkpoint: files that want to run something, to fill memory, to take for ever, to be read as something else, or to show
//! what is none of theirs. Each is refused by an error that names the file and what is wrong, within bounds of time and memory, or is
//! shown to be harmless.
//!
//! Files that are merely broken are in `bad_input` and `bad_model`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../it/common/mod.rs"]
mod common;

mod archives;
mod bounds;
mod distributed;
mod globals;
mod headers;
mod links;
mod pickles;
mod tensors;
