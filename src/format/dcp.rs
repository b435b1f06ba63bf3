//! Directories of `torch.distributed.checkpoint` (DCP) and of Megatron's `torch_dist`, which is the same container: a `.metadata` pickle that
//! says which tensors there are, how they are cut into chunks and where each lies, and files of pieces, one a chunk.
//!
//! Not here: files (`source`), what tensors are called (`family`), how chunks become parameters (`catalog`).

pub mod error;
pub mod merge;
pub mod metadata;
pub mod metadata_json;
pub mod names;
pub mod piece;
