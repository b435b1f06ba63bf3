//! `ckpt-fs`: a training checkpoint in any parallel layout, without rewriting it.
//!
//! Data flows one way: `store` -> `format` -> `source` (with a `family`) -> `catalog` -> `view` -> `plan` -> `reader` -> `fuse`,
//! `materialize`, `verify`, `digest`. `docs/architecture.md` draws it on one page; `tests/it/architecture.rs` fails on any other edge.

#![deny(clippy::indexing_slicing)]

pub mod aligned;
pub mod cache;
pub mod catalog;
pub mod cli;
pub mod digest;
pub mod extent;
pub mod family;
pub mod format;
pub mod fuse;
pub mod inspect;
pub mod layout;
pub mod materialize;
pub mod parallel;
pub mod plan;
pub mod reader;
pub mod source;
pub mod store;
pub mod sys;
pub mod tensor;
pub mod value;
pub mod verify;
pub mod vfs;
pub mod view;
pub mod weights;
