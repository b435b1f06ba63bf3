//! Views: the files that a checkpoint would have in another layout or format, each as a plan.
//!
//! Catalog + model + layout in, file names and plans out. Not here: bytes of tensors, any I/O, the shape of a mount (`vfs`).

mod rename;
mod conversions;
mod dcp;
mod dcp_files;
mod engine;
mod error;
mod hf;
pub mod megatron;
mod optimizer;
mod ranks;
mod basis;
mod target;
mod tensors;
mod torch_dist;
mod vocabulary;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

pub use conversions::{Conversions, Origin, ModelFiles, ConversionOptions, keeps_parameter_groups};
pub use dcp::{DcpLayout, DcpNames};
pub use error::ViewError;
pub use optimizer::OptimizerChoice;
pub use basis::{ViewOptions, RngChoice, Basis};
pub use target::{TargetTensor, tensors_at};
pub use vocabulary::VocabularyFill;

use crate::layout::{Format, Layout, Rank};
use crate::plan::{Builder, FilePlan};
use crate::tensor::{Dtype, Shape};

/// The files of a checkpoint in one format and layout.
pub trait View: Debug + Send + Sync {
    /// Its format.
    fn format(&self) -> Format;

    /// Its layout.
    fn layout(&self) -> &Layout;

    /// Every file, in the order of a listing.
    fn files(&self) -> &[ViewFile];

    /// Lays out file `number` of [`View::files`]. Grows with its tensors, not with their bytes.
    ///
    /// # Errors
    /// [`ViewError`] where a tensor cannot be made of what the source has.
    fn plan(&self, number: usize) -> Result<PlannedFile, ViewError>;

    /// Whether `path` is a file that a view of this source in this format has in some layout: one that a new copy may take the place of.
    fn may_replace(&self, path: &str) -> bool;
}

/// A file of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewFile {
    /// Path within the view, `/`-separated.
    pub path: String,
    /// The rank that it belongs to, where it belongs to one.
    pub rank: Option<Rank>,
    /// Loaders map it and do not read it.
    pub is_mapped: bool,
    /// Laid out by rules that no other file of its rank shows: worth trying before anything is promised.
    pub is_probe: bool,
}

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

impl PlannedFile {
    /// A file of these bytes.
    #[must_use]
    pub(crate) fn of_bytes(bytes: Vec<u8>) -> Self {
        let mut builder = Builder::new();
        builder.literal(bytes);
        Self { plan: builder.finish(), tensors: Vec::new() }
    }
}
