//! Directories of `torch.distributed.checkpoint` (DCP) and of Megatron's `torch_dist`, which is the same container: a `.metadata` pickle that
//! says which tensors there are, how they are cut into chunks and where each lies, and files of pieces, each a whole `torch.save` archive.
//!
//! Not here: files (`source`), what tensors are called (`family`), how chunks become parameters (`catalog`).

#[cfg_attr(not(feature = "internals"), allow(dead_code, reason = "tests and fuzz targets alone ask for all of it so far"))]
pub mod error;
pub mod merge;
#[cfg_attr(not(feature = "internals"), allow(dead_code, reason = "tests and fuzz targets alone ask for all of it so far"))]
pub mod metadata;
#[cfg_attr(not(feature = "internals"), allow(dead_code, reason = "tests and fuzz targets alone ask for all of it so far"))]
pub mod metadata_json;
pub mod names;
pub mod piece;
#[cfg_attr(not(feature = "internals"), allow(dead_code, reason = "views of torch DCP, which have paths, come next"))]
pub mod write;
