//! Pieces: what is stored for a chunk, a complete `torch.save` archive of one plain tensor of the chunk's shape.
//!
//! Where an archive holds its elements is found by reading it (`zip`, `torch`; `source` does it through a window on the file). Opening a
//! checkpoint of a million pieces cannot wait for that: [`expected`] says where torch puts the elements of a piece whose shape, element type
//! and length are known, and [`head`] what stands before them, so that a few can be held against it. It is the same for every piece that is
//! row-major. Others are as long: a transposed tensor is stored with the strides it has, so only the head of a piece tells its order.
//!
//! Not here: which pieces there are ([`super::metadata`]).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use super::metadata::{Encoding, Place};
use crate::format::torch::{Content, Record, encode_pickle, records};
use crate::format::zip::{self, Layout, RecordSpec, ZipError};
use crate::tensor::{Dtype, Shape};
use crate::value::{TensorRef, Value};

/// First component of the names in an archive that `torch.save` writes to a stream.
const PREFIX: &str = "archive";

/// What the first bytes of an archive are, and of a zstd frame.
const ZIP: &[u8] = b"PK\x03\x04";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// Bytes of a piece that [`check`] looks at.
pub const START: u64 = 512;

/// Which versions of torch lay out an archive in this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Generation {
    /// Torch 2.2 to 2.6, without the two records of the other one.
    Torch22,
    /// Torch 2.9 and later: `.format_version` and `.storage_alignment` before the elements.
    Torch29,
}

/// Where the elements of a piece are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Which torch wrote it, by its length.
    pub generation: Generation,
    /// First byte of the elements, from the start of the piece. They are row-major if the piece begins with the [`head`] of its generation.
    pub data: u64,
}

/// What a row-major piece begins with, up to its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    bytes: Vec<u8>,
    /// Checksums of what stands there: torch can be told not to compute them.
    sums: Vec<Range<usize>>,
}

/// Why a piece is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PieceError {
    /// A zstd frame.
    #[error(
        "the piece is compressed with zstd, which this version of ckpt-fs does not read: load the checkpoint with torch and save it without \
         the extension"
    )]
    Zstd,
    /// As long as its elements.
    #[error(
        "the piece is said to be as long as its elements, so it is no archive: its file was saved with serialization_format=SAFETENSORS, whose \
         .metadata does not say where tensors are; torch cannot load it either. Save the checkpoint again without that option"
    )]
    Raw,
    /// Something else.
    #[error("the piece is not what torch.save writes: {0}")]
    Zip(ZipError),
}

/// Whether a piece could be an archive, by where it is said to be, the bytes of its elements (of a tensor's piece) and its first bytes
/// ([`START`], or all of them).
///
/// # Errors
/// [`PieceError`]
pub fn check(place: Place, elements: Option<u64>, start: &[u8]) -> Result<(), PieceError> {
    if place.encoding == Encoding::Zstd || start.starts_with(ZSTD) {
        return Err(PieceError::Zstd);
    }
    // An archive is longer than what is in it.
    if elements == Some(place.len) {
        return Err(PieceError::Raw);
    }
    if start.starts_with(ZIP) {
        return Ok(());
    }
    Err(PieceError::Zip(zip::explain(start)))
}

/// Where the elements of a piece of `len` bytes are, if torch wrote it as it writes a row-major tensor of this shape. `None` for any other
/// length: the piece must be read.
#[must_use]
pub fn expected(shape: &Shape, dtype: Dtype, len: u64) -> Option<Expected> {
    let payload = shape.bytes(dtype)?;
    let pickle = pickle(shape, dtype)?;
    [Generation::Torch29, Generation::Torch22].into_iter().find_map(|generation| {
        let layout = Piece::new(pickle.len() as u64, payload, generation)?;
        (layout.size == len).then_some(Expected { generation, data: layout.data })
    })
}

/// What a row-major piece of this shape begins with. `None` for shapes that no tensor has.
#[must_use]
pub fn head(shape: &Shape, dtype: Dtype, generation: Generation) -> Option<Head> {
    let payload = shape.bytes(dtype)?;
    let pickle = pickle(shape, dtype)?;
    Piece::new(pickle.len() as u64, payload, generation)?.head(&pickle)
}

impl Head {
    /// Bytes in it: those before the elements.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether a piece that begins with `start` begins with this.
    #[must_use]
    pub fn begins(&self, start: &[u8]) -> bool {
        let Some(start) = start.get(..self.bytes.len()) else { return false };
        let is_sum = |at: usize| self.sums.iter().any(|sum| sum.contains(&at));
        self.bytes.iter().zip(start).enumerate().all(|(at, (a, b))| a == b || is_sum(at))
    }
}

/// The content of `data.pkl`.
fn pickle(shape: &Shape, dtype: Dtype) -> Option<Vec<u8>> {
    let tensor = TensorRef::whole("0".into(), dtype, shape.clone());
    encode_pickle(&Value::Tensor(Arc::new(tensor))).ok().map(|encoded| encoded.pickle)
}

/// The layout of a piece.
struct Piece {
    records: Vec<Record>,
    layout: Layout,
    size: u64,
    data: u64,
}

impl Piece {
    fn new(pickle: u64, payload: u64, generation: Generation) -> Option<Self> {
        let mut records = records(pickle, &[payload]);
        if generation == Generation::Torch22 {
            records.retain(|record| !matches!(&*record.spec.name, ".format_version" | ".storage_alignment"));
        }
        let specs: Vec<&RecordSpec> = records.iter().map(|record| &record.spec).collect();
        let layout = Layout::new(PREFIX, specs).ok()?;
        let number = records.iter().position(|record| record.content == Content::Storage(0))?;
        let data = *layout.data.get(number)?;
        Some(Self { size: layout.size, data, records, layout })
    }

    /// What stands before the elements.
    fn head(&self, pickle: &[u8]) -> Option<Head> {
        let mut head = Head { bytes: Vec::new(), sums: Vec::new() };
        for piece in &self.layout.pieces {
            match piece {
                zip::Piece::Bytes(bytes) => head.bytes.extend(bytes),
                zip::Piece::Crc(_) => {
                    let start = head.bytes.len();
                    head.sums.push(start..start.checked_add(4)?);
                    head.bytes.extend([0; 4]);
                }
                zip::Piece::Record(number) => match &self.records.get(*number)?.content {
                    Content::Pickle => head.bytes.extend(pickle),
                    Content::Bytes(bytes) => head.bytes.extend(bytes),
                    Content::Storage(_) => return Some(head),
                },
            }
        }
        None
    }
}
