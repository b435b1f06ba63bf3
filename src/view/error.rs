//! Why a view cannot be made.

use crate::family::{ArrangeError, LimitError, VocabularyError};
use crate::format::{torch::TorchError, zip::ZipError};
use crate::layout::LayoutError;
use crate::plan::GatherError;

/// Why a view cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The stages do not fit the model.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The tensor-parallel size does not fit the model.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The padded size of the vocabulary is not known.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// A tensor does not divide.
    #[error("tensor {tensor}: {source}")]
    Arrange {
        /// The tensor.
        tensor: String,
        /// What does not divide.
        source: ArrangeError,
    },
    /// A tensor cannot be made of what the source has.
    #[error("tensor {tensor}: {source}")]
    Gather {
        /// The tensor.
        tensor: String,
        /// What is missing.
        source: GatherError,
    },
    /// What the source saved beside the weights cannot be written again.
    #[error("{file}: {source}")]
    Pickle {
        /// The source file whose values are carried over.
        file: String,
        /// What cannot be written.
        source: TorchError,
    },
    /// A value that is carried over refers to bytes in a way that is not understood.
    #[error("{file}: storage data/{key} is referred to in a way that cannot be carried over to a view")]
    Storage {
        /// The source file.
        file: String,
        /// Key of the storage.
        key: String,
    },
    /// A record would not have the size that the file says.
    #[error("record {record} would have {planned} bytes instead of {wanted}; this is a bug")]
    RecordSize {
        /// The record.
        record: String,
        /// Bytes it must have.
        wanted: u64,
        /// Bytes it would have.
        planned: u64,
    },
    /// The file cannot be laid out as a zip archive.
    #[error(transparent)]
    Zip(#[from] ZipError),
    /// The source has no file to take `args` from.
    #[error("the source has no rank file")]
    NoRank,
}
