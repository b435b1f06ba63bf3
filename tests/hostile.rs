//! Attacks by a checkpoint: files that want to run something, to fill memory, to take for ever, to be read as something else, or to show
//! what is none of theirs. Each is refused by an error that names the file and what is wrong, within bounds of time and memory, or is
//! shown to be harmless.
//!
//! Files that are merely broken are in `bad_input` and `bad_model`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

#[path = "hostile/archives.rs"]
mod archives;
#[path = "hostile/bounds.rs"]
mod bounds;
#[path = "hostile/globals.rs"]
mod globals;
#[path = "hostile/headers.rs"]
mod headers;
#[path = "hostile/links.rs"]
mod links;
#[path = "hostile/pickles.rs"]
mod pickles;
#[path = "hostile/tensors.rs"]
mod tensors;
