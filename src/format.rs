//! Codecs on byte slices, each encoder beside its decoder. No I/O: what to read next is told to the caller.
//!
//! Not here: files and mappings (`store`), what tensors are called (`family`), which files a layout has (`view`).

pub mod dcp;
pub mod hf;
pub mod instead;
pub mod megatron;
pub mod pickle;
pub mod ranks;
pub mod safetensors;
pub mod torch;
pub mod zip;
