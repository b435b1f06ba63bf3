//! A piece of a data file: the archive that `torch.save` would make of one tensor or object, but for the bytes of payloads.
//!
//! It depends on the element type and the shape alone, or on the object, so that the pieces of a million chunks share a few templates. The
//! records are those of torch 2.15 (`format::torch`), from 2.6 on all of them load. Not here: which pieces there are, and in
//! which file (`directory`).

use std::ops::Range;
use std::sync::Arc;

use super::WriteError;
use super::spec::Content;
use crate::format::torch::{self, Encoded};
use crate::format::zip::{self, ALIGNMENT};
use crate::tensor::{Dtype, Shape};
use crate::value::{Storage, TensorRef, Value};

/// What torch calls the folder of an archive that is no file of its own.
const PREFIX: &str = "archive";

/// Where a piece lies. As many are kept as there are chunks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// First byte in its file.
    pub(super) offset: u64,
    /// Bytes without the zeros behind it.
    pub(super) len: u64,
    /// Number of its template.
    pub(super) template: u32,
}

/// Parts of a piece. Places are bytes from its start.
#[derive(Debug)]
pub(super) struct Template {
    /// The parts, in order and without gaps. Zeros at the end fill it up to the next multiple of [`ALIGNMENT`].
    pub(super) parts: Vec<TemplatePart>,
    /// Bytes of the archive.
    pub(super) len: u64,
    /// Bytes with the zeros at the end.
    pub(super) padded: u64,
    /// Its storages; payloads go by their numbers.
    pub(super) storages: Vec<Storage>,
}

/// A part of a piece.
#[derive(Debug)]
pub(super) enum TemplatePart {
    Bytes(Arc<[u8]>),
    /// The bytes of this storage.
    Payload(usize),
    /// The CRC-32 of these bytes.
    Crc32(Range<u64>),
}

/// The piece of a chunk of these sizes.
pub(super) fn of_chunk(key: &Arc<str>, dtype: Dtype, sizes: &[u64]) -> Result<Template, WriteError> {
    let tensor = TensorRef::whole("0".into(), dtype, Shape(sizes.to_vec()));
    lay_out(key, &Value::Tensor(Arc::new(tensor)), |_| Ok(None))
}

/// The piece of an object.
pub(super) fn of_object(key: &Arc<str>, content: &Content) -> Result<Template, WriteError> {
    lay_out(key, &content.value, |storage| match content.storages.get(&storage.key) {
        None => Err(WriteError::NoStorage { key: Arc::clone(key), storage: Arc::clone(&storage.key) }),
        Some(Some(bytes)) if bytes.len() as u64 != storage.bytes => Err(WriteError::StorageSize {
            key: Arc::clone(key),
            storage: Arc::clone(&storage.key),
            expected: storage.bytes,
            found: bytes.len() as u64,
        }),
        Some(bytes) => Ok(bytes.as_deref()),
    })
}

/// The archive of `value`. `known` gives the bytes of a storage where they are known.
fn lay_out<'a>(
    key: &Arc<str>,
    value: &Value,
    known: impl Fn(&Storage) -> Result<Option<&'a [u8]>, WriteError>,
) -> Result<Template, WriteError> {
    let Encoded { pickle, storages } =
        torch::encode_pickle(value).map_err(|error| WriteError::Torch { key: Arc::clone(key), error })?;
    let sizes: Vec<u64> = storages.iter().map(|storage| storage.bytes).collect();
    let records = torch::records(pickle.len() as u64, &sizes);
    let specs = records.iter().map(|record| &record.spec);
    let zip_error = |error| WriteError::Zip { key: Arc::clone(key), error };
    let layout = zip::Layout::new(PREFIX, specs).map_err(zip_error)?;
    let mut contents = Vec::with_capacity(records.len());
    for (record, start) in records.iter().zip(&layout.data) {
        contents.push(match &record.content {
            torch::Content::Pickle => Record::Known(&pickle),
            torch::Content::Bytes(bytes) => Record::Known(bytes),
            // Nothing is left to be told of an empty one.
            torch::Content::Storage(_) if record.spec.size == 0 => Record::Known(&[]),
            torch::Content::Storage(number) => match storages.get(*number).map(&known).transpose()?.flatten() {
                Some(bytes) => Record::Known(bytes),
                None => Record::Payload(*number, *start..start.saturating_add(record.spec.size)),
            },
        });
    }
    let (parts, padded) = Joined::of(&layout, &contents)
        .ok_or_else(|| WriteError::TooLarge { what: format!("the piece of {key}") })?;
    Ok(Template { parts, len: layout.size, padded, storages })
}

/// The content of a record.
enum Record<'a> {
    /// These bytes.
    Known(&'a [u8]),
    /// Those of this storage, at this place.
    Payload(usize, Range<u64>),
}

/// Parts, with bytes that follow each other as one.
#[derive(Default)]
struct Joined {
    parts: Vec<TemplatePart>,
    bytes: Vec<u8>,
}

impl Joined {
    /// The parts of an archive with these records, and its length with the zeros at the end; `None` where that does not fit 64 bits.
    fn of(layout: &zip::Layout, records: &[Record<'_>]) -> Option<(Vec<TemplatePart>, u64)> {
        let mut joined = Self::default();
        for piece in &layout.pieces {
            match piece {
                zip::Piece::Bytes(bytes) => joined.bytes.extend_from_slice(bytes),
                zip::Piece::Record(index) => match records.get(*index)? {
                    Record::Known(bytes) => joined.bytes.extend_from_slice(bytes),
                    Record::Payload(storage, _) => joined.push(TemplatePart::Payload(*storage)),
                },
                zip::Piece::Crc(index) => match records.get(*index)? {
                    // Whether sums of payloads are asked for or not, these cost nothing.
                    Record::Known(bytes) => joined.bytes.extend(crc32fast::hash(bytes).to_le_bytes()),
                    Record::Payload(_, at) => joined.push(TemplatePart::Crc32(at.clone())),
                },
            }
        }
        let padded = layout.size.checked_next_multiple_of(ALIGNMENT)?;
        let zeros = usize::try_from(padded - layout.size).ok()?;
        joined.bytes.resize(joined.bytes.len() + zeros, 0);
        joined.flush();
        Some((joined.parts, padded))
    }

    fn push(&mut self, part: TemplatePart) {
        self.flush();
        self.parts.push(part);
    }

    fn flush(&mut self) {
        if !self.bytes.is_empty() {
            self.parts.push(TemplatePart::Bytes(std::mem::take(&mut self.bytes).into()));
        }
    }
}
