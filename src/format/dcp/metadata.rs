//! `.metadata`: the tensors and objects of a distributed checkpoint, and where the piece of each chunk lies.
//!
//! One pickle (protocol 4 as torch writes it) of classes of `torch.distributed.checkpoint.metadata`, of torch 2.2 to 2.15 and Megatron-core 0.8
//! and later. Classes are names here like in every pickle; nothing is imported. Taken as read: [`Metadata`], which holds no pickle values.
//!
//! What is there and matters to nobody who reads tensors is passed over: `storage_meta` (it holds a path of the machine that wrote it),
//! Megatron's `all_local_plans`, of a tensor's properties all but dtype and layout. What is not known and could matter is an error.
//!
//! Not here: whether the chunks of a tensor cover it (`catalog`), the pieces themselves ([`super::piece`]).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod classes;
mod extras;
mod interned;
mod join;
mod parts;

use std::sync::Arc;

use super::error::DcpError;
use crate::format::pickle;
use crate::tensor::{Dtype, Shape};

/// Longest `.metadata` that is read: that of 4 million chunks, as Megatron writes it (440 bytes each). What is kept of a chunk is less than a
/// third of that.
pub const MAX_LEN: u64 = 1 << 31;

/// What a `.metadata` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Version of the format, where it is said: `1.0.0` since torch 2.9.
    pub version: Option<Arc<str>>,
    /// Files that hold pieces: paths relative to the directory, sorted. None leads out of it.
    pub files: Vec<Arc<str>>,
    /// The tensors, sorted by key.
    pub tensors: Vec<Tensor>,
    /// The other objects, sorted by key.
    pub objects: Vec<Object>,
    /// How the state dict was nested, where it is said: sorted by key.
    pub paths: Option<KeyPaths>,
    /// Fields of the metadata that this version does not know or could not take apart. Nothing that is read depends on them.
    pub unknown_fields: Vec<Arc<str>>,
}

/// A tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its key: a name in a flat state dict.
    pub key: Arc<str>,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes of the whole tensor.
    pub shape: Shape,
    /// The shape that it has in the model, where it was stored in another one (Megatron 0.8 to 0.14: `nd_reformulated_orig_global_shape`, of
    /// flattened shards whose first axes number the fragments).
    pub original_shape: Option<Shape>,
    /// Its chunks.
    pub chunks: Chunks,
}

/// The chunks of a tensor, sorted by their offsets. No two begin at the same place; they may overlap, and leave something out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunks {
    axes: usize,
    /// Offsets and sizes of every chunk, one after the other.
    numbers: Box<[u64]>,
    places: Box<[Place]>,
}

/// A chunk: a box within a tensor, possibly empty, and the piece that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Where it begins, per axis.
    pub offsets: &'a [u64],
    /// Its sizes, per axis.
    pub sizes: &'a [u64],
    /// Where its piece is.
    pub place: Place,
}

/// Where a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which of [`Metadata::files`].
    pub file: u32,
    /// How it is stored.
    pub encoding: Encoding,
    /// First byte in the file.
    pub offset: u64,
    /// Its length in bytes; the end fits 64 bits.
    pub len: u64,
}

/// How a piece is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As it is.
    Plain,
    /// As one zstd frame (`ZStandard`, which torch calls `stream.zstd/1`).
    Zstd,
}

/// An object that is no tensor: what `torch.save` makes of any value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: Arc<str>,
    /// Where it is.
    pub place: Place,
}

/// Where a value is in a nested state dict. Keys may hold dots, so a flat key does not tell.
pub type KeyPath = Box<[PathItem]>;

/// Where each value is, by its flat key.
pub type KeyPaths = Vec<(Arc<str>, KeyPath)>;

/// A step of a [`KeyPath`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathItem {
    /// Key of a dict.
    Key(Arc<str>),
    /// Position in a list, or a number that is a key.
    Number(i64),
}

/// Reads a `.metadata`.
///
/// Beside the bytes it takes memory for what is kept (about 100 bytes a chunk) and for what is left of the pickle at any time: for a million
/// chunks, under 200 MB together. A hostile one takes under 200 bytes for each byte, and less than a gigabyte and 40 for each byte.
///
/// # Errors
/// [`DcpError`], which names the tensor where there is one.
pub fn decode(bytes: &[u8]) -> Result<Metadata, DcpError> {
    let len = bytes.len() as u64;
    if len > MAX_LEN {
        return Err(DcpError::TooLong { len, most: MAX_LEN });
    }
    pickle::consume(bytes, parts::Parts::new(len), join::metadata)
}

impl Metadata {
    /// The tensor of this key.
    #[must_use]
    pub fn tensor(&self, key: &str) -> Option<&Tensor> {
        self.tensors.get(self.tensors.binary_search_by(|tensor| (*tensor.key).cmp(key)).ok()?)
    }

    /// The object of this key.
    #[must_use]
    pub fn object(&self, key: &str) -> Option<&Object> {
        self.objects.get(self.objects.binary_search_by(|object| (*object.key).cmp(key)).ok()?)
    }

    /// Path of the file that a piece is in.
    #[must_use]
    pub fn file(&self, place: Place) -> Option<&str> {
        self.files.get(place.file as usize).map(|path| &**path)
    }

    /// Where each piece is, of tensors and objects.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let objects = self.objects.iter().map(|object| object.place);
        self.tensors.iter().flat_map(|tensor| tensor.chunks.places.iter().copied()).chain(objects)
    }
}

impl Chunks {
    /// Chunks of tensors of so many axes, each by its offsets, sizes and place. They must have that many of both, which is for the caller to
    /// see to.
    pub(super) fn new<'a>(axes: usize, chunks: impl ExactSizeIterator<Item = (&'a [u64], &'a [u64], Place)>) -> Self {
        let mut numbers = Vec::with_capacity(axes.saturating_mul(2).saturating_mul(chunks.len()));
        let mut places = Vec::with_capacity(chunks.len());
        for (offsets, sizes, place) in chunks {
            numbers.extend(offsets);
            numbers.extend(sizes);
            places.push(place);
        }
        Self { axes, numbers: numbers.into(), places: places.into() }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The chunks in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Chunk<'_>> {
        self.places.iter().enumerate().map(|(number, place)| {
            let numbers = |half: usize| {
                let start = number.saturating_mul(2).saturating_add(half).saturating_mul(self.axes);
                self.numbers.get(start..start.saturating_add(self.axes)).unwrap_or_default()
            };
            Chunk { offsets: numbers(0), sizes: numbers(1), place: *place }
        })
    }
}
