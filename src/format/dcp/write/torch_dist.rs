//! What Megatron puts beside and into a DCP directory to make it `torch_dist`.
//!
//! Source: megatron-core 0.12 to 0.16 and Megatron-LM after it (`dist_checkpointing/core.py`, `mapping.py`). Not here: keys of tensors, and
//! `common.pt`, which is a file of `torch.save`.

use std::sync::Arc;

use crate::value::Value;

/// The file without which Megatron takes a directory for none of its own.
pub const METADATA_JSON: &str = "metadata.json";

/// Its content, the same for all: versions up to 0.16 write it so, later ones have only the first two entries and ignore the others.
#[must_use]
pub fn metadata_json() -> &'static str {
    r#"{"sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch", "common_backend_version": 1}"#
}

/// What is saved of an object: a list of it alone.
#[must_use]
pub fn object_content(value: Value) -> Value {
    Value::List(Arc::from([value]))
}
