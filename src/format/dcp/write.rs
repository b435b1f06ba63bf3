//! What a DCP directory is, byte for byte, before a byte of any tensor is known: a [`Spec`] becomes a [`Directory`], which lists the parts
//! of each data file and writes `.metadata`.
//!
//! Source: torch 2.15.0 (`torch/distributed/checkpoint/filesystem.py`, `metadata.py`), and what torch 2.6.0 and 2.9.1 take. docs/formats.md
//! says what is written and why.
//!
//! Not here: bytes of tensors and where they come from (`plan`), which boxes to cut tensors into (`view`).

#![deny(clippy::disallowed_methods)]

mod cover;
mod directory;
mod error;
mod metadata;
mod piece;
mod spec;
#[cfg(test)]
mod tests;
mod torch_dist;

pub use directory::{Directory, Part, Payload};
pub use error::WriteError;
pub use spec::{Chunk, Chunks, Content, Object, Path, Spec, Step, Tensor};
pub use torch_dist::{METADATA_JSON, metadata_json, object_content};

/// The pickle that says where everything is.
pub const METADATA: &str = ".metadata";

/// What torch calls the data file number `number` of a rank.
#[must_use]
pub fn data_file(rank: usize, number: usize) -> String {
    format!("__{rank}_{number}.distcp")
}
