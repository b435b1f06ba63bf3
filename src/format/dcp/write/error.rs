//! Why a checkpoint cannot be written as it was asked for.

use std::sync::Arc;

use crate::format::pickle::PickleError;
use crate::format::torch::TorchError;
use crate::format::zip::ZipError;
use crate::tensor::Shape;

/// Why a checkpoint cannot be written as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Two entries under one key.
    #[error("{key} is the key of two entries")]
    DuplicateKey {
        /// The key.
        key: Arc<str>,
    },
    /// A data file that has the name of another one, or of `.metadata`, or none.
    #[error("{name:?} cannot be the name of a data file here: it is empty, stands twice, or is .metadata")]
    FileName {
        /// The name.
        name: String,
    },
    /// An entry in a data file that is not there.
    #[error("{key} is in data file number {file}, and there are {files}")]
    NoFile {
        /// The entry.
        key: Arc<str>,
        /// The number.
        file: usize,
        /// How many there are.
        files: usize,
    },
    /// Paths are given, and not one for each key.
    #[error("{key} has {paths} paths in the nested state; every entry has one")]
    Paths {
        /// The key.
        key: Arc<str>,
        /// How many.
        paths: usize,
    },
    /// A path of an entry that is not there.
    #[error("{key} has a path in the nested state, and there is no such entry")]
    UnknownPath {
        /// The key.
        key: Arc<str>,
    },
    /// A chunk with another number of axes than its tensor.
    #[error("a chunk has {found:?} offsets and sizes; its tensor has {expected} axes")]
    ChunkAxes {
        /// Axes of the tensor.
        expected: usize,
        /// Offsets and sizes of the chunk.
        found: [usize; 2],
    },
    /// A chunk that reaches beyond its tensor.
    #[error("chunk {chunk} of {key} reaches from {offsets:?} over {sizes:?}, beyond the shape {shape}")]
    Outside {
        /// The tensor.
        key: Arc<str>,
        /// Number of the chunk.
        chunk: usize,
        /// Its offsets.
        offsets: Vec<u64>,
        /// Its sizes.
        sizes: Vec<u64>,
        /// Shape of the tensor.
        shape: Shape,
    },
    /// A hole, which no loader would notice.
    #[error("no chunk of {key} holds position {at:?} of its shape {shape}")]
    Hole {
        /// The tensor.
        key: Arc<str>,
        /// The first such position.
        at: Vec<u64>,
        /// Shape of the tensor.
        shape: Shape,
    },
    /// Chunks that overlap.
    #[error("{times} chunks of {key} hold position {at:?} of its shape {shape}")]
    Overlap {
        /// The tensor.
        key: Arc<str>,
        /// The first such position.
        at: Vec<u64>,
        /// How many hold it.
        times: i64,
        /// Shape of the tensor.
        shape: Shape,
    },
    /// Two chunks at one place, of which loaders would find one: they look for a chunk by its offsets.
    #[error("chunks of {key} begin at {at:?} twice")]
    SamePlace {
        /// The tensor.
        key: Arc<str>,
        /// Where.
        at: Vec<u64>,
    },
    /// A tensor cut along more axes than can be checked.
    #[error("{key} is cut along {axes} axes; at most {most} can be")]
    Axes {
        /// The tensor.
        key: Arc<str>,
        /// Axes that it is cut along.
        axes: usize,
        /// The bound.
        most: usize,
    },
    /// More bytes than 64 bits can count.
    #[error("{what} would have more than 2^63 bytes")]
    TooLarge {
        /// A tensor or a data file.
        what: String,
    },
    /// More entries than 32 bits can count.
    #[error("more than 2^32 chunks and objects")]
    TooMany,
    /// An object that refers to a storage nobody gave.
    #[error("object {key} refers to storage {storage}, of which nothing is said")]
    NoStorage {
        /// The object.
        key: Arc<str>,
        /// Key of the storage.
        storage: Arc<str>,
    },
    /// A storage with other bytes than its tensors say.
    #[error("storage {storage} of object {key} has {found} bytes; its tensors make it {expected}")]
    StorageSize {
        /// The object.
        key: Arc<str>,
        /// Key of the storage.
        storage: Arc<str>,
        /// What its tensors say.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
    /// A piece cannot be pickled.
    #[error("{key}: {error}")]
    Torch {
        /// The entry.
        key: Arc<str>,
        /// Why.
        error: TorchError,
    },
    /// A piece cannot be laid out.
    #[error("{key}: {error}")]
    Zip {
        /// The entry.
        key: Arc<str>,
        /// Why.
        error: ZipError,
    },
    /// `.metadata` cannot be pickled.
    #[error(".metadata: {0}")]
    Metadata(#[from] PickleError),
}
