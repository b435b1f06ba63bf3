//! What the safe language cannot say: a mapping that outlives its file, going into the background, signals.
//!
//! One concern per file, each with its argument for why it is sound. Not here: anything that knows of checkpoints.

pub mod daemon;
mod fault;
pub mod inherited;
pub mod limits;
pub mod local_time;
pub mod mapping;
pub mod memory;
pub mod memory_file;
pub mod memory_left;
pub mod namespaces;
pub mod process;
pub mod residency;
pub mod signals;
