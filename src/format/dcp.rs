//! Directories of `torch.distributed.checkpoint` (DCP) and of Megatron's `torch_dist`, which is the same container: a `.metadata` pickle that
//! says which tensors there are, how they are cut into chunks and where each lies, and files of pieces, each a whole `torch.save` archive.
//!
//! Not here: files (`source`), what tensors are called (`family`), how chunks become parameters (`catalog`).

pub mod error;
pub mod merge;
pub mod metadata;
pub mod metadata_json;
pub mod names;
pub mod piece;
#[cfg_attr(not(feature = "internals"), allow(dead_code, unused_imports, reason = "the views come next"))]
pub mod write;
