//! Files that belong to a model and hold none of its tensors.

use crate::extent::Extent;

/// A tokenizer, a chat template, a generation config, code of the model's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// Its name in the directory.
    pub name: String,
    /// Its bytes.
    pub extent: Extent,
}
