//! Views: the files that a checkpoint would have in another layout, each as a plan.
//!
//! Catalog + model + layout in, file names and plans out. Not here: bytes of tensors, any I/O, the shape of a mount (`vfs`).

mod error;
pub mod megatron;
mod stock;
mod target;
mod vocabulary;

use std::ops::Range;
use std::sync::Arc;

pub use error::ViewError;
pub use stock::{Choices, OptimizerChoice, Stock};
pub use target::{TargetTensor, tensors_at};
pub use vocabulary::VocabularyFill;

use crate::plan::FilePlan;
use crate::tensor::{Dtype, Shape};

/// A file of a view, laid out.
#[derive(Debug, Clone)]
pub struct PlannedFile {
    /// Where every byte comes from.
    pub plan: FilePlan,
    /// Tensors in the file, in file order.
    pub tensors: Vec<PlacedTensor>,
}

/// A tensor and the bytes of the file that it is.
#[derive(Debug, Clone)]
pub struct PlacedTensor {
    /// Name in the file.
    pub name: Arc<str>,
    /// Element type.
    pub dtype: Dtype,
    /// Shape on this rank.
    pub shape: Shape,
    /// Its bytes in the file.
    pub bytes: Range<u64>,
}
