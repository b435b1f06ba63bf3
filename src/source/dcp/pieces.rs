//! Reads pieces: where the elements of a chunk are, and what an object holds.
//!
//! The elements of a row-major piece follow from its shape and length, and its first bytes say that it is one: one short read. Any other piece
//! is read as the archive that it is. Not here: what is expected (`format::dcp::piece`), which pieces need not be looked at.

use std::sync::Arc;

use super::super::SourceError;
use super::super::torch_file::{Reader, TorchFile};
use crate::extent::Extent;
use crate::format::dcp::metadata::Place;
use crate::format::dcp::piece::{self, Head, START};
use crate::store::{Reads, StoreError};
use crate::tensor::{Dtype, Shape};
use crate::value::{TensorRef, Value};

/// What a piece should hold, and what messages call it.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct PieceOf<'a> {
    /// The file.
    pub(in super::super) file: &'a str,
    /// Key of the tensor or object.
    pub(in super::super) key: &'a str,
    /// Where it is.
    pub(in super::super) place: Place,
}

/// Where the elements of a chunk are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Elements {
    /// The storage that they are in.
    pub(in super::super) extent: Extent,
    /// CRC-32 of it, where it was read and states one.
    pub(in super::super) crc: Option<u32>,
    /// Strides in elements, from the first byte of the storage on.
    pub(in super::super) strides: Vec<u64>,
    /// First element within the storage.
    pub(in super::super) first: u64,
}

impl Elements {
    /// Finds the elements of a chunk of this shape and type in `reads`, which are of the file of the piece.
    ///
    /// # Errors
    /// [`SourceError`] where the piece is not there, is no archive of one tensor, or of one that is no such chunk.
    pub(in super::super) fn find(
        reads: Reads<'_>,
        piece: PieceOf<'_>,
        shape: &Shape,
        dtype: Dtype,
    ) -> Result<Self, SourceError> {
        let part = piece.part(reads)?;
        let expected = piece::expected(shape, dtype, piece.place.len);
        let head = expected.and_then(|expected| piece::head(shape, dtype, expected.generation));
        let room = head.as_ref().map_or(0, Head::len).max(START);
        let start = beginning(part, room)?;
        piece.check(shape.bytes(dtype), &start)?;
        match (expected, head) {
            (Some(expected), Some(head)) if head.begins(&start) => {
                let len = shape.bytes(dtype).ok_or_else(|| piece.wrong("its size does not fit 64 bits"))?;
                let extent = Extent { object: part.object(), offset: part.absolute(expected.data), len };
                let strides = shape.contiguous_strides();
                let strides = strides.ok_or_else(|| piece.wrong("its strides do not fit 64 bits"))?;
                Ok(Self { extent, crc: None, strides, first: 0 })
            }
            _ => Self::read(part, piece, shape, dtype),
        }
    }

    /// The same, of any archive.
    pub(super) fn read(part: Reads<'_>, piece: PieceOf<'_>, shape: &Shape, dtype: Dtype) -> Result<Self, SourceError> {
        let file = piece.archive(part)?;
        let tensor: &Arc<TensorRef> = match &file.tree {
            Value::Tensor(tensor) => tensor,
            other => return Err(piece.wrong(&format!("it holds a {} and not a plain tensor", other.kind()))),
        };
        if tensor.shape != *shape || tensor.dtype != dtype {
            let what = format!(
                "it holds a tensor of {} and type {}; the metadata says {shape} and {dtype}",
                tensor.shape, tensor.dtype
            );
            return Err(piece.wrong(&what));
        }
        let record = file.storages.get(&tensor.storage.key);
        let record = record.ok_or_else(|| piece.wrong("its tensor has no storage"))?;
        let (extent, crc) = (record.extent, record.crc);
        Ok(Self { extent, crc, strides: tensor.strides.clone(), first: tensor.offset })
    }
}

/// What the piece of an object holds: its tree, and where the storages of tensors in it are.
///
/// # Errors
/// [`SourceError`] where the piece is not there or is no archive.
pub(in super::super) fn read_object(reads: Reads<'_>, piece: PieceOf<'_>) -> Result<TorchFile, SourceError> {
    let part = piece.part(reads)?;
    piece.check(None, &beginning(part, START)?)?;
    piece.archive(part)
}

impl PieceOf<'_> {
    /// The piece alone, of reads of its file.
    fn part<'a>(&self, reads: Reads<'a>) -> Result<Reads<'a>, SourceError> {
        let Place { offset, len, .. } = self.place;
        let size = reads.len()?;
        match offset.checked_add(len) {
            Some(end) if end <= size => Ok(reads.part(offset, len)?),
            _ => Err(self.wrong(&format!(
                "it is said to be {len} bytes at byte {offset} and the file has {size}: the file is cut short, or of another save"
            ))),
        }
    }

    fn check(&self, elements: Option<u64>, start: &[u8]) -> Result<(), SourceError> {
        piece::check(self.place, elements, start).map_err(|source| self.wrong(&source.to_string()))
    }

    fn archive(&self, part: Reads<'_>) -> Result<TorchFile, SourceError> {
        let name = self.name();
        Reader::new(part, &name)?.file(|tree| (tree.clone(), Vec::new()))
    }

    fn wrong(&self, what: &str) -> SourceError {
        SourceError::Contents { file: self.name(), what: what.to_owned() }
    }

    fn name(&self) -> String {
        format!("{}: piece of {} at byte {}", self.file, self.key, self.place.offset)
    }
}

/// The first bytes, as far as there are any.
fn beginning(reads: Reads<'_>, len: u64) -> Result<Vec<u8>, StoreError> {
    // No more than a head has.
    let mut bytes = vec![0; usize::try_from(reads.len()?.min(len)).unwrap_or(0)];
    reads.read_exact_at(0, &mut bytes)?;
    Ok(bytes)
}
