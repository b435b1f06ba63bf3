//! `.metadata`: the pickle of a `torch.distributed.checkpoint.metadata.Metadata`.
//!
//! Classes are those of torch 2.3 and later, fields those that all of these versions have: five properties of a tensor, of which loaders use
//! the element type, no storage_meta, which would say where and by whom it was written, and none of Megatron's fields.

use std::sync::Arc;

use super::WriteError;
use super::piece::Piece;
use super::spec::{Path, Spec, Step, Tensor};
use crate::format::pickle::{PickleError, Sink, Writer};

/// Module of most classes.
const CLASSES: &str = "torch.distributed.checkpoint.metadata";

/// Version of the content, which torch 2.9 and later write; others do not look.
const VERSION: &str = "1.0.0";

/// Writes it to `out`. `pieces` are those of the objects, then those of the chunks of each tensor.
pub(super) fn write<S: Sink>(out: S, spec: &Spec, pieces: &[Piece]) -> Result<S, WriteError> {
    let mut writer = Writer::new(out);
    writer.instance(CLASSES, "Metadata")?;
    writer.fields(|writer| {
        writer.text("state_dict_metadata")?;
        entries(writer, spec)?;
        writer.text("planner_data")?;
        paths(writer, spec.paths.as_deref())?;
        writer.text("storage_data")?;
        places(writer, spec, pieces)?;
        writer.text("version")?;
        writer.text(VERSION)?;
        Ok::<_, WriteError>(())
    })?;
    writer.build();
    Ok(writer.finish())
}

/// What each key is.
fn entries<'s, S: Sink>(writer: &mut Writer<'s, S>, spec: &'s Spec) -> Result<(), PickleError> {
    let tensors = spec.tensors.iter().map(|tensor| (&*tensor.key, Some(tensor)));
    let objects = spec.objects.iter().map(|object| (&*object.key, None));
    writer.dict(tensors.chain(objects), |writer, (key, tensor)| {
        writer.text(key)?;
        match tensor {
            Some(tensor) => self::tensor(writer, tensor),
            None => writer.instance(CLASSES, "BytesStorageMetadata"),
        }
    })
}

fn tensor<'s, S: Sink>(writer: &mut Writer<'s, S>, tensor: &'s Tensor) -> Result<(), PickleError> {
    writer.instance(CLASSES, "TensorStorageMetadata")?;
    writer.fields(|writer| {
        writer.text("properties")?;
        properties(writer, tensor)?;
        writer.text("size")?;
        size(writer, &tensor.shape.0)?;
        writer.text("chunks")?;
        writer.list(tensor.chunks.iter(), |writer, chunk| {
            writer.instance(CLASSES, "ChunkStorageMetadata")?;
            writer.fields(|writer| {
                writer.text("offsets")?;
                size(writer, chunk.offsets)?;
                writer.text("sizes")?;
                size(writer, chunk.sizes)
            })?;
            writer.build();
            Ok(())
        })
    })?;
    writer.build();
    Ok(())
}

/// Element type, layout, requires_grad, memory format (contiguous), pin_memory.
fn properties<'s, S: Sink>(writer: &mut Writer<'s, S>, tensor: &'s Tensor) -> Result<(), PickleError> {
    writer.instance(CLASSES, "TensorProperties")?;
    writer.tuple(|writer| {
        writer.global("torch", tensor.dtype.name())?;
        writer.global("torch.serialization", "_get_layout")?;
        writer.tuple(|writer| writer.text("torch.strided"))?;
        writer.reduce();
        writer.bool(false);
        writer.global(CLASSES, "_MEM_FORMAT_ENCODING")?;
        writer.tuple(|writer| {
            writer.int(0);
            Ok::<_, PickleError>(())
        })?;
        writer.reduce();
        writer.bool(false);
        Ok::<_, PickleError>(())
    })?;
    writer.build();
    Ok(())
}

/// A `torch.Size`.
fn size<S: Sink>(writer: &mut Writer<'_, S>, sizes: &[u64]) -> Result<(), PickleError> {
    writer.global("torch", "Size")?;
    writer.tuple(|writer| {
        writer.tuple(|writer| {
            sizes.iter().for_each(|size| writer.unsigned(*size));
            Ok::<_, PickleError>(())
        })
    })?;
    writer.reduce();
    Ok(())
}

fn paths<'s, S: Sink>(writer: &mut Writer<'s, S>, paths: Option<&'s [Path]>) -> Result<(), PickleError> {
    let Some(paths) = paths else {
        writer.none();
        return Ok(());
    };
    writer.dict(paths, |writer, path| {
        writer.text(&path.key)?;
        writer.tuple(|writer| {
            path.steps.iter().try_for_each(|step| match step {
                Step::Key(key) => writer.text(key),
                Step::Index(index) => {
                    writer.unsigned(u64::from(*index));
                    Ok(())
                }
            })
        })
    })
}

/// Where each object and each chunk is. A chunk is told by the key of its tensor and its offsets; its number is a hint.
fn places<'s, S: Sink>(writer: &mut Writer<'s, S>, spec: &'s Spec, pieces: &[Piece]) -> Result<(), WriteError> {
    let objects = spec.objects.iter().map(|object| (&object.key, None, object.file));
    let chunks = spec.tensors.iter().flat_map(|tensor| {
        let chunks = tensor.chunks.iter().enumerate();
        chunks.map(|(index, chunk)| (&tensor.key, Some((index, chunk.offsets)), chunk.file))
    });
    writer.dict(objects.chain(chunks).zip(pieces), |writer, ((key, chunk, file), piece)| {
        index(writer, key, chunk)?;
        writer.instance("torch.distributed.checkpoint.filesystem", "_StorageInfo")?;
        let no_file = || WriteError::NoFile { key: Arc::clone(key), file, files: spec.files.len() };
        let name = spec.files.get(file).ok_or_else(no_file)?;
        writer.fields(|writer| {
            writer.text("relative_path")?;
            writer.text(name)?;
            writer.text("offset")?;
            writer.unsigned(piece.offset);
            writer.text("length")?;
            writer.unsigned(piece.len);
            Ok::<_, PickleError>(())
        })?;
        writer.build();
        Ok(())
    })
}

fn index<'s, S: Sink>(
    writer: &mut Writer<'s, S>,
    key: &'s str,
    chunk: Option<(usize, &[u64])>,
) -> Result<(), PickleError> {
    writer.instance(CLASSES, "MetadataIndex")?;
    writer.fields(|writer| {
        writer.text("fqn")?;
        writer.text(key)?;
        writer.text("index")?;
        let Some((number, offsets)) = chunk else {
            writer.none();
            return Ok(());
        };
        writer.unsigned(number as u64);
        writer.text("offset")?;
        size(writer, offsets)
    })?;
    writer.build();
    Ok(())
}
