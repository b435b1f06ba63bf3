//! Classes and functions that a `.metadata` names, as far as they mean something here.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::format::pickle::Made;
use crate::value::{Construct, Global};

/// Where most of them are.
const METADATA: &str = "torch.distributed.checkpoint.metadata";

/// Where the properties of tensors are in files of torch 2.2 and older.
const SHARDED: &str = "torch.distributed._shard.sharded_tensor.metadata";

/// Where plans are.
const PLANNER: &str = "torch.distributed.checkpoint.planner";

/// A class or function that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// `torch.Size`
    Size,
    /// `torch.serialization._get_layout`
    Layout,
    MemoryFormat,
    Properties,
    Chunk,
    Tensor,
    Bytes,
    Index,
    StorageInfo,
    /// Part of a plan of how something was saved, which says nothing that the rest does not.
    Plan,
}

impl Class {
    /// What was made, when it is finished: called, made without a state, or given one.
    pub(super) fn of(made: &Made<'_>) -> Option<Self> {
        let class = Self::named(made.class)?;
        let (called, has_state) = (made.construct == Construct::Call, made.state.is_some());
        let finished = match class {
            Self::Size | Self::Layout | Self::MemoryFormat => called && !has_state,
            // An object without a field has no state.
            Self::Bytes => !called && !has_state,
            Self::Properties | Self::Chunk | Self::Tensor | Self::Index | Self::StorageInfo => !called && has_state,
            Self::Plan => has_state,
        };
        finished.then_some(class)
    }

    fn named(class: &Global) -> Option<Self> {
        let (known, modules): (Self, &[&str]) = match &*class.name {
            "Size" => (Self::Size, &["torch"]),
            "_get_layout" => (Self::Layout, &["torch.serialization"]),
            "_MEM_FORMAT_ENCODING" => (Self::MemoryFormat, &[METADATA]),
            "MEM_FORMAT_ENCODING" => (Self::MemoryFormat, &[SHARDED]),
            "TensorProperties" => (Self::Properties, &[METADATA, SHARDED]),
            "ChunkStorageMetadata" => (Self::Chunk, &[METADATA]),
            "TensorStorageMetadata" => (Self::Tensor, &[METADATA]),
            "BytesStorageMetadata" => (Self::Bytes, &[METADATA]),
            "MetadataIndex" => (Self::Index, &[METADATA]),
            "_StorageInfo" => (Self::StorageInfo, &["torch.distributed.checkpoint.filesystem"]),
            "SavePlan" | "WriteItem" | "TensorWriteData" | "BytesIOWriteData" => (Self::Plan, &[PLANNER]),
            _ => return None,
        };
        modules.contains(&&*class.module).then_some(known)
    }
}

/// Whether this is the class of the root.
pub(super) fn is_metadata(made: &Made<'_>) -> bool {
    made.class.is(METADATA, "Metadata") && made.construct == Construct::New
}
