//! Why a `.metadata` cannot be read.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use crate::format::pickle::PickleError;

/// Text of a checkpoint as a message can hold it: its beginning, in quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The beginning of `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        /// Names of parameters are shorter.
        const MOST: usize = 200;
        Self(text.chars().take(MOST).collect())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Why a `.metadata` cannot be read, or several not be put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DcpError {
    /// The pickle itself.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// Longer than [`super::metadata::MAX_LEN`].
    #[error("it has {len} bytes, more than {most}")]
    TooLong {
        /// Its length.
        len: u64,
        /// The bound.
        most: u64,
    },
    /// A pickle of a few bytes that stands for very many.
    #[error("its objects refer to the same texts and lists so often that together they are far larger than the file")]
    Shared,
    /// A pickle of something else.
    #[error("not the metadata of a distributed checkpoint: the pickle holds {found}")]
    NotMetadata {
        /// What it holds.
        found: String,
    },
    /// An error about one tensor or object.
    #[error("{key}: {error}")]
    At {
        /// Its key.
        key: Name,
        /// What is wrong there.
        error: Box<DcpError>,
    },
    /// Something else where one of DCP's objects must be.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// One of DCP's objects without a field.
    #[error("a {class} has no {field}")]
    NoField {
        /// Its class.
        class: &'static str,
        /// The field.
        field: &'static str,
    },
    /// One of DCP's objects with a field that this version does not know.
    #[error("a {class} has a field {field}, which this version of ckpt-fs does not know")]
    UnknownField {
        /// Its class.
        class: &'static str,
        /// The field.
        field: Name,
    },
    /// A field or key that is set twice.
    #[error("{what} {name} occurs twice")]
    Twice {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: Name,
    },
    /// An element type that is not known.
    #[error("its dtype is {found}, which is not supported")]
    Dtype {
        /// The dtype.
        found: Name,
    },
    /// A layout other than `torch.strided`.
    #[error("its layout is {found}; only torch.strided is supported")]
    Layout {
        /// The layout.
        found: Name,
    },
    /// A number that must not be negative.
    #[error("{what} is {number}")]
    Negative {
        /// What it is.
        what: &'static str,
        /// The number.
        number: i64,
    },
    /// Sizes or places whose sums or products do not fit 64 bits.
    #[error("{what} of {numbers:?} does not fit 64 bits")]
    Overflow {
        /// What was computed.
        what: &'static str,
        /// Of which numbers.
        numbers: Vec<u64>,
    },
    /// More axes than a tensor of torch has.
    #[error("{found} axes, more than any tensor has")]
    Axes {
        /// How many.
        found: usize,
    },
    /// A path to a file outside of the checkpoint, or to none.
    #[error("a piece is said to be in the file {path}, which is no path within the checkpoint")]
    Path {
        /// The path.
        path: Name,
    },
    /// A way of storing pieces that is not known.
    #[error("a piece was stored through {found}, which this version of ckpt-fs does not know")]
    Transforms {
        /// Names of the transformations.
        found: Name,
    },
    /// A chunk with another number of axes than its tensor.
    #[error("a chunk has {offsets} offsets and {sizes} sizes, the tensor has {axes} axes")]
    Rank {
        /// Offsets of the chunk.
        offsets: usize,
        /// Its sizes.
        sizes: usize,
        /// Axes of the tensor.
        axes: usize,
    },
    /// A chunk that is not inside its tensor.
    #[error("the chunk of sizes {sizes:?} at {offsets:?} reaches beyond the tensor of {shape:?}")]
    Outside {
        /// Where it begins, per axis.
        offsets: Vec<u64>,
        /// Its sizes.
        sizes: Vec<u64>,
        /// Shape of the tensor.
        shape: Vec<u64>,
    },
    /// Two chunks at one place.
    #[error("two chunks begin at {offsets:?}")]
    SameOffsets {
        /// Where they begin, per axis.
        offsets: Vec<u64>,
    },
    /// A chunk of which it is not said where it is stored.
    #[error("it is not said where the chunk at {offsets:?} is stored")]
    NoStorage {
        /// Where it begins, per axis.
        offsets: Vec<u64>,
    },
    /// An object of which it is not said where it is stored.
    #[error("it is not said where it is stored")]
    NoObjectStorage,
    /// A stored piece of a chunk that the tensor does not have.
    #[error("a piece is stored for a chunk at {offsets:?}, which the tensor does not have")]
    NoChunk {
        /// Where the chunk would begin, per axis.
        offsets: Vec<u64>,
    },
    /// A stored piece of nothing that is described.
    #[error("a piece of it is stored, and it is not described")]
    NoEntry,
    /// A piece of a tensor without its place in the tensor.
    #[error("a piece of it is stored without the offsets of its chunk")]
    NoOffsets,
    /// An object that has offsets as a tensor would.
    #[error("it is no tensor, and a piece of it is stored with offsets")]
    Offsets,
    /// A chunk or object that is said to be stored twice.
    #[error("two places are given for {what}")]
    TwoPlaces {
        /// The chunk at its offsets, or the object.
        what: String,
    },
    /// Several files that say different things of one tensor.
    #[error("{what} is {first} in the file of rank {first_rank} and {second} in that of rank {second_rank}")]
    Disagree {
        /// What they say.
        what: &'static str,
        /// The one says.
        first: String,
        /// Which one.
        first_rank: u32,
        /// The other says.
        second: String,
        /// Which other.
        second_rank: u32,
    },
    /// Two files of one rank.
    #[error("there are two files of rank {rank}")]
    SameRank {
        /// The rank.
        rank: u32,
    },
    /// No files at all.
    #[error("there is no file to put together")]
    Nothing,
    /// Tensors in a format that is not read.
    #[error("its tensors are in the format {name} (version {version}), which this version of ckpt-fs does not read: {advice}")]
    Backend {
        /// The format.
        name: Name,
        /// Its version.
        version: u64,
        /// The way on.
        advice: &'static str,
    },
    /// A `metadata.json` that is none.
    #[error("{what}")]
    Json {
        /// What is wrong.
        what: String,
    },
}

impl DcpError {
    /// This error, about what is called `key`.
    pub(super) fn of(self, key: &str) -> Self {
        Self::At { key: Name::new(key), error: Box::new(self) }
    }
}
