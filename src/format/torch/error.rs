//! Why a torch checkpoint cannot be read or written.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::format::pickle::PickleError;
use crate::format::zip::ZipError;
use crate::value::Value;

/// Why a torch checkpoint cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// The pickle itself.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// The archive itself.
    #[error(transparent)]
    Zip(#[from] ZipError),
    /// An error within a value.
    #[error("{path}: {error}")]
    At {
        /// Keys that lead to the value, joined by dots.
        path: String,
        /// What is wrong there.
        error: Box<TorchError>,
    },
    /// No `<prefix>/data.pkl` in the archive.
    #[error("not a torch checkpoint: the archive has no data.pkl{}", .first.as_ref().map(|name| format!(" (it starts with {name:?})")).unwrap_or_default())]
    NoPickle {
        /// First entry of the archive, if it has one.
        first: Option<String>,
    },
    /// A compiled program.
    #[error("a TorchScript program, not a checkpoint: save its state_dict() with torch.save")]
    TorchScript,
    /// No `version` record, without which torch refuses the file.
    #[error("the archive has no version record: the file is damaged or was not written by torch")]
    NoVersion,
    /// A `version` record with another number.
    #[error("file format version {found:?} is not supported (1 to 10 are)")]
    Version {
        /// Content of the record.
        found: String,
    },
    /// Big-endian data.
    #[error("the tensors are stored in {found:?} byte order, only \"little\" is supported")]
    Byteorder {
        /// Content of the record.
        found: String,
    },
    /// A tensor refers to a record that is not there.
    #[error("the archive has no record data/{key}")]
    NoStorage {
        /// Key of the storage.
        key: String,
    },
    /// A record has another size than its storage.
    #[error("record data/{key} has {found} bytes, its storage has {expected}")]
    StorageSize {
        /// Key of the storage.
        key: String,
        /// Bytes that the pickle says.
        expected: u64,
        /// Bytes of the record.
        found: u64,
    },
    /// Two tensors say different sizes for one storage.
    #[error("storage {key} has {first} bytes for one tensor and {second} for another")]
    StorageDisagrees {
        /// Key of the storage.
        key: String,
        /// Size in bytes met first.
        first: u64,
        /// The other one.
        second: u64,
    },
    /// A persistent id of a storage that does not read as one.
    #[error("bad storage: expected {expected}, found {found}")]
    Storage {
        /// What the persistent id should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// A storage class without a known element size.
    #[error("storages of class {class} are not supported")]
    StorageClass {
        /// Module and name.
        class: String,
    },
    /// A call that rebuilds a tensor, with arguments it does not take.
    #[error("bad tensor: expected {expected}, found {found}")]
    Tensor {
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A tensor that reaches beyond its storage.
    #[error(
        "a tensor of shape {shape} and strides {strides:?} from element {offset} on does not fit storage {key} of {elements} elements"
    )]
    OutsideStorage {
        /// Shape as torch prints it.
        shape: String,
        /// Strides in elements.
        strides: Vec<u64>,
        /// First element.
        offset: u64,
        /// Key of the storage.
        key: String,
        /// Elements in the storage.
        elements: u64,
    },
    /// A number that a pickle of a tensor cannot hold.
    #[error("{number} is too large for a tensor")]
    Number {
        /// The number.
        number: u64,
    },
    /// A storage size that is not a whole number of elements.
    #[error("storage {key} of {bytes} bytes does not hold a whole number of {dtype} elements")]
    NotWhole {
        /// Key of the storage.
        key: String,
        /// Its size.
        bytes: u64,
        /// Element type.
        dtype: &'static str,
    },
}

impl TorchError {
    /// This error, found under `key` of a dict.
    pub(super) fn within(self, key: &Value) -> Self {
        match key {
            Value::Str(key) => self.under(key),
            Value::Int(key) => self.under(&key.to_string()),
            _ => self,
        }
    }

    /// This error, found under `key`.
    fn under(self, key: &str) -> Self {
        // A text is in a pickle once and may be the key of many dicts within each other.
        let key: String = key.chars().take(200).collect();
        match self {
            Self::At { path, error } => Self::At { path: format!("{key}.{path}"), error },
            error => Self::At { path: key, error: Box::new(error) },
        }
    }
}
