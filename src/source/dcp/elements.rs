//! Where the elements of one piece are.
//!
//! Those of a row-major piece follow from its shape and length, and its first bytes say that it is one: one short read. Any other piece is
//! read as the archive that it is. Not here: what is expected (`format::dcp::piece`), which pieces need not be looked at (`pieces`).

use std::collections::HashMap;
use std::sync::Arc;

use super::files::DataFile;
use crate::format::dcp::metadata::{Chunk, Place, Tensor};
use crate::format::dcp::piece::{self, Expected, Head, PieceError, START};
use crate::source::SourceError;
use crate::source::torch_file::{TorchFile, read_part};
use crate::store::{Reads, StoreError};
use crate::tensor::{Dtype, Shape};

/// Where the elements of a piece are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elements {
    /// First byte of the first element in the data file.
    pub(super) start: u64,
    /// Strides in bytes; 0 for an axis of one element, which lead nowhere.
    pub(super) strides: Vec<u64>,
}

/// What a piece of one shape, type and length is expected to begin with.
#[derive(Debug)]
pub(super) struct Beginning {
    expected: Expected,
    head: Head,
}

/// Shapes of which what is expected is kept: computing it takes longer than comparing, and a model has few.
const MOST_SHAPES: usize = 1 << 14;

/// Type, shape and length of a piece.
type Kind<'a> = (Dtype, &'a [u64], u64);

/// What is expected of each kind of pieces.
#[derive(Debug, Default)]
pub(super) struct Beginnings<'a>(HashMap<Kind<'a>, Option<Arc<Beginning>>>);

impl<'a> Beginnings<'a> {
    /// Notes what is expected of this chunk.
    pub(super) fn add(&mut self, dtype: Dtype, chunk: &Chunk<'a>) {
        let key = (dtype, chunk.sizes, chunk.place.len);
        if self.0.len() < MOST_SHAPES && !self.0.contains_key(&key) {
            self.0.insert(key, Beginning::of(dtype, chunk).map(Arc::new));
        }
    }

    /// What is expected of it; nothing of a piece that torch would not have written so for a row-major tensor.
    pub(super) fn of(&self, dtype: Dtype, chunk: &Chunk<'a>) -> Option<Arc<Beginning>> {
        match self.0.get(&(dtype, chunk.sizes, chunk.place.len)) {
            Some(known) => known.clone(),
            None => Beginning::of(dtype, chunk).map(Arc::new),
        }
    }
}

impl Beginning {
    fn of(dtype: Dtype, chunk: &Chunk<'_>) -> Option<Self> {
        let shape = Shape(chunk.sizes.to_vec());
        let expected = piece::expected(&shape, dtype, chunk.place.len)?;
        Some(Self { expected, head: piece::head(&shape, dtype, expected.generation)? })
    }

    /// Where the elements are of a piece that begins so.
    pub(super) fn elements(&self, dtype: Dtype, chunk: &Chunk<'_>) -> Option<Elements> {
        let strides = Shape(chunk.sizes.to_vec()).contiguous_strides()?;
        let start = chunk.place.offset.checked_add(self.expected.data)?;
        Some(Elements { start, strides: in_bytes(&strides, chunk.sizes, dtype)? })
    }
}

/// Strides in bytes.
fn in_bytes(strides: &[u64], sizes: &[u64], dtype: Dtype) -> Option<Vec<u64>> {
    let each = strides.iter().zip(sizes);
    each.map(|(stride, size)| if *size <= 1 { Some(0) } else { stride.checked_mul(dtype.size()) }).collect()
}

/// A piece of a tensor, and what messages call it.
#[derive(Debug, Clone, Copy)]
pub(super) struct PieceOf<'a> {
    pub(super) file: &'a DataFile,
    pub(super) tensor: &'a Tensor,
    pub(super) chunk: Chunk<'a>,
}

impl PieceOf<'_> {
    /// Finds its elements; `reads` are of its file, and `beginning` is what is expected of it.
    ///
    /// # Errors
    /// [`SourceError`] where the piece is no archive of one tensor, or of one that is no such chunk.
    pub(super) fn find(
        &self,
        reads: Reads<'_>,
        beginning: Option<&Beginning>,
    ) -> Result<Elements, SourceError> {
        let (dtype, place) = (self.tensor.dtype, self.chunk.place);
        let part = reads.part(place.offset, place.len)?;
        let room = beginning.map_or(0, |beginning| beginning.head.len()).max(START);
        let start = first_bytes(part, room)?;
        self.check(&start)?;
        match beginning.filter(|beginning| beginning.head.begins(&start)) {
            Some(beginning) => beginning.elements(dtype, &self.chunk).ok_or_else(|| self.beyond()),
            None => self.read(part),
        }
    }

    /// The same, of any archive.
    pub(super) fn read(&self, part: Reads<'_>) -> Result<Elements, SourceError> {
        let found = archive(part, self.file, &self.tensor.key)?;
        let Some(stored) = found.tree.tensor() else {
            return Err(self.wrong(format!("expected a tensor, found a {}", found.tree.kind())));
        };
        let sizes = Shape(self.chunk.sizes.to_vec());
        if (stored.dtype, &stored.shape) != (self.tensor.dtype, &sizes) {
            let (dtype, shape, said) = (stored.dtype, &stored.shape, self.tensor.dtype);
            return Err(self.wrong(format!("it is {dtype} {shape}, but by the metadata {said} {sizes}")));
        }
        let Some(storage) = found.storages.get(&stored.storage.key) else {
            return Err(self.wrong("its bytes are not in it".into()));
        };
        let offset = stored.offset.checked_mul(stored.dtype.size());
        let start = offset.and_then(|offset| offset.checked_add(storage.extent.offset));
        let strides = in_bytes(&stored.strides, &sizes.0, stored.dtype);
        Ok(Elements {
            start: start.ok_or_else(|| self.beyond())?,
            strides: strides.ok_or_else(|| self.beyond())?,
        })
    }

    fn check(&self, start: &[u8]) -> Result<(), SourceError> {
        let elements = Shape(self.chunk.sizes.to_vec()).bytes(self.tensor.dtype);
        check(self.file, &self.tensor.key, self.chunk.place, elements, start)
    }

    pub(super) fn beyond(&self) -> SourceError {
        self.wrong("its strides are beyond reason".into())
    }

    fn wrong(&self, what: String) -> SourceError {
        let tensor = format!("{}, piece at {:?}", self.tensor.key, self.chunk.offsets);
        SourceError::Tensor { file: self.file.name.clone(), tensor, what }
    }
}

/// What the piece of an object holds; `reads` are of its file.
///
/// # Errors
/// [`SourceError`] where it is no archive.
pub(super) fn object(
    reads: Reads<'_>,
    file: &DataFile,
    key: &str,
    place: Place,
) -> Result<TorchFile, SourceError> {
    let part = reads.part(place.offset, place.len)?;
    check(file, key, place, None, &first_bytes(part, START)?)?;
    archive(part, file, key)
}

fn archive(part: Reads<'_>, file: &DataFile, key: &str) -> Result<TorchFile, SourceError> {
    read_part(part, &format!("{}: {key}", file.name))
}

fn check(
    file: &DataFile,
    key: &str,
    place: Place,
    elements: Option<u64>,
    start: &[u8],
) -> Result<(), SourceError> {
    piece::check(place, elements, start).map_err(|source| {
        let (file, what) = (file.name.clone(), format!("{key}: {source}"));
        match source {
            PieceError::Zstd | PieceError::Raw => SourceError::Unsupported { path: file, what },
            PieceError::Zip(_) => SourceError::Contents { file, what },
        }
    })
}

/// The first bytes, as far as there are any.
fn first_bytes(reads: Reads<'_>, len: u64) -> Result<Vec<u8>, StoreError> {
    // No more than a head has.
    let mut bytes = vec![0; reads.len()?.min(len) as usize];
    reads.read_exact_at(0, &mut bytes)?;
    Ok(bytes)
}
