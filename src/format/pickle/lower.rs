//! What stands in a pickle for values that pickles cannot hold.
//!
//! Not here: what that is for tensors (`torch`), and how it is written (`encode`).

use super::PickleError;
use crate::value::Value;

/// Puts other values in the place of some, as they are met. The whole tree that is written never exists: it is several times the size of the
/// one it is made of.
pub trait Lower {
    /// Why a value cannot be replaced.
    type Error: From<PickleError>;

    /// What is written for a tensor, an object or a persistent id; `None` for the value itself. A shared one is asked for once. What is within
    /// the answer is asked for in its turn.
    ///
    /// Within the answer nothing may be shared but what lives as long as the tree or `self`: answers are dropped when they are written, and
    /// things are told apart by their addresses.
    ///
    /// # Errors
    /// [`Self::Error`]
    fn lower(&mut self, value: &Value) -> Result<Option<Value>, Self::Error>;

    /// This error, found under `key` of a dict.
    fn within(error: Self::Error, key: &Value) -> Self::Error;
}

/// Replaces nothing.
#[cfg(feature = "internals")]
pub(super) struct AsIs;

#[cfg(feature = "internals")]
impl Lower for AsIs {
    type Error = PickleError;

    fn lower(&mut self, _: &Value) -> Result<Option<Value>, PickleError> {
        Ok(None)
    }

    fn within(error: PickleError, _: &Value) -> PickleError {
        error
    }
}
