//! Checkpoints of torch DCP (`torch.distributed.checkpoint`), which Megatron's `torch_dist` is too: a directory with a pickle `.metadata`
//! that says which piece of which file holds which box of which tensor, and files of such pieces, each a whole `torch.save` archive.
//!
//! Not here: which tensors a model has (`family`), names of Megatron's or anybody's keys (`source`, `view`), reading files (`store`).

#[cfg_attr(not(feature = "internals"), expect(dead_code, unused_imports, reason = "the views come next"))]
pub mod write;
