//! Where the bytes of tensors are: each piece is a torch file of one tensor, a part of a data file.
//!
//! Not here: which tensors are wanted, and what they are.

use super::files::DataFile;
use super::Opened;
use crate::catalog::Chunk as Piece;
use crate::format::dcp::metadata::{Chunk, Encoding, Object, Place, Tensor};
use crate::layout::Rank;
use crate::source::SourceError;
use crate::source::torch_file::{TorchFile, read_part};
use crate::source::workers::in_parallel;
use crate::store::{Reads, Store, consistent};
use crate::tensor::{Region, Shape};

/// Heads that are read of one file under one look at it.
const BATCH: usize = 64;

/// A piece that is to be looked at.
struct Job<'a> {
    /// Which of the wanted tensors it is of.
    tensor: usize,
    of: &'a Tensor,
    chunk: Chunk<'a>,
}

/// The pieces of each of these tensors.
pub(super) fn of(opened: &Opened, wanted: &[&Tensor], store: &dyn Store) -> Result<Vec<Vec<Piece>>, SourceError> {
    let mut jobs = Vec::new();
    for (number, tensor) in wanted.iter().enumerate() {
        let held = tensor.chunks.iter().filter(|chunk| !chunk.sizes.contains(&0));
        jobs.extend(held.map(|chunk| Job { tensor: number, of: tensor, chunk }));
    }
    // Front to back in each file.
    jobs.sort_by_key(|job| (job.chunk.place.file, job.chunk.place.offset));
    let batches: Vec<&[Job<'_>]> = jobs
        .chunk_by(|one, other| one.chunk.place.file == other.chunk.place.file)
        .flat_map(|of_file| of_file.chunks(BATCH))
        .collect();
    let found = in_parallel(&batches, |batch| {
        let Some(first) = batch.first() else { return Ok(Vec::new()) };
        let file = opened.file(first.chunk.place, &first.of.key)?;
        consistent(store, file.object, |reads| batch.iter().map(|job| piece(reads, file, job)).collect())
    })?;
    let mut pieces: Vec<Vec<Piece>> = wanted.iter().map(|_| Vec::new()).collect();
    for (job, piece) in jobs.iter().zip(found.into_iter().flatten()) {
        if let Some(pieces) = pieces.get_mut(job.tensor) {
            pieces.push(piece);
        }
    }
    for pieces in &mut pieces {
        pieces.sort_by(|one, other| one.region.cmp(&other.region));
    }
    Ok(pieces)
}

/// What an object holds.
pub(super) fn object(file: &DataFile, object: &Object, store: &dyn Store) -> Result<TorchFile, SourceError> {
    consistent(store, file.object, |reads| torch_file(reads, file, &object.key, object.place))
}

/// Where the bytes of a piece are, by the piece itself.
fn piece(reads: Reads<'_>, file: &DataFile, job: &Job<'_>) -> Result<Piece, SourceError> {
    let Job { of: tensor, chunk, .. } = job;
    let found = torch_file(reads, file, &tensor.key, chunk.place)?;
    let wrong = |what: String| {
        let tensor = format!("{}, piece at {:?}", tensor.key, chunk.offsets);
        SourceError::Tensor { file: file.name.clone(), tensor, what }
    };
    let Some(stored) = found.tree.tensor() else {
        return Err(wrong(format!("expected a tensor, found a {}", found.tree.kind())));
    };
    let sizes = Shape(chunk.sizes.to_vec());
    if (stored.dtype, &stored.shape) != (tensor.dtype, &sizes) {
        let (dtype, shape) = (stored.dtype, &stored.shape);
        return Err(wrong(format!("it is {dtype} {shape}, but by the metadata {} {sizes}", tensor.dtype)));
    }
    let beyond = || wrong("its strides are beyond reason".into());
    let Some(storage) = found.storages.get(&stored.storage.key) else {
        return Err(wrong("its bytes are not in it".into()));
    };
    let element = stored.dtype.size();
    let start = stored.offset.checked_mul(element).and_then(|bytes| bytes.checked_add(storage.extent.offset));
    let strides = stored.strides.iter().zip(&sizes.0).map(|(stride, size)| {
        // The stride of an axis with one element leads nowhere.
        if *size <= 1 { Some(0) } else { stride.checked_mul(element) }
    });
    Ok(Piece {
        region: Region::at(chunk.offsets, chunk.sizes).ok_or_else(beyond)?,
        rank: Rank { pp: 0, tp: 0, ep: 0 },
        object: file.object,
        start: start.ok_or_else(beyond)?,
        strides: strides.collect::<Option<_>>().ok_or_else(beyond)?,
        period: None,
    })
}

/// The torch file at a place of a data file.
fn torch_file(reads: Reads<'_>, file: &DataFile, key: &str, place: Place) -> Result<TorchFile, SourceError> {
    let named = |what: &str| SourceError::Unsupported { path: file.name.clone(), what: format!("{key} is {what}") };
    if place.encoding == Encoding::Zstd {
        return Err(named(ZSTD));
    }
    let part = reads.part(place.offset, place.len)?;
    let name = format!("{}: {key}", file.name);
    read_part(part, &name).map_err(|error| if is_zip(part) { error } else { named(NO_ZIP) })
}

/// What to say of compressed pieces.
const ZSTD: &str = "compressed (ZStandard), and this version reads bytes where they lie; load the checkpoint and save it without the extension";

/// What to say of a piece that is none.
const NO_ZIP: &str = "not there as torch.save writes it: either the file is damaged, or it was saved with SerializationFormat.SAFETENSORS, of which \
                      the metadata does not say where tensors are and which torch itself does not load; save it with the default format";

/// Whether an archive begins here.
fn is_zip(part: Reads<'_>) -> bool {
    let mut start = [0; 4];
    part.read_exact_at(0, &mut start).is_ok() && start == *b"PK\x03\x04"
}
