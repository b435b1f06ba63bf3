//! Torch checkpoints (`.pt`) on top of `zip` and `pickle`: which record holds what, and tensors instead of the calls that rebuild them.
//!
//! Reading: [`Archive::new`] on the entries of the zip file, then [`decode_pickle`] on its `data.pkl`. Writing: [`encode_pickle`], then
//! [`records`] for the order and the small records. A tree read from a file that torch wrote encodes to the same bytes.
//!
//! Not here: what the tree means (`family`), which bytes a storage gets (`plan`).

mod archive;
mod class;
mod error;
mod lift;
mod lower;
mod record;
mod rewrite;
#[cfg(test)]
mod tests;

pub use archive::{Archive, check_byteorder, check_version};
pub use error::TorchError;
pub use lower::{Encoded, encode_pickle};
pub use record::{Content, Record, records};

use std::sync::{Arc, LazyLock};

use super::pickle::{self, Limits};
use crate::value::{Global, Value};

/// First item of the persistent id of a storage. Python interns this text, so a tree that holds it elsewhere too holds the same object;
/// one `Arc` for it keeps that so, from decoding to encoding.
static STORAGE: LazyLock<Arc<str>> = LazyLock::new(|| "storage".into());

/// Where storages are, as a file should say: on the CPU. Interned in Python like [`STORAGE`].
static CPU: LazyLock<Arc<str>> = LazyLock::new(|| "cpu".into());

/// Decodes a `data.pkl`.
///
/// The calls `torch._utils._rebuild_tensor`, `_v2` and `_v3` on a storage become [`Value::Tensor`]s. Parameters and tensors that carry
/// Python attributes stay objects, with the tensor where [`Value::tensor`] finds it. Tensors whose bytes are not plain elements
/// (quantized, sparse, conjugated, of other classes) stay objects as they are.
///
/// # Errors
/// What `pickle::decode` refuses, and tensors that do not fit their storage. The error names the keys that lead there.
pub fn decode_pickle(bytes: &[u8], limits: &Limits) -> Result<Value, TorchError> {
    lift::lift(&pickle::decode(bytes, limits)?)
}

/// The global `module.name` as a value.
fn global(module: &str, name: &str) -> Value {
    Value::Global(Arc::new(Global { module: module.into(), name: name.into() }))
}
