//! Where every piece lies, and of what parts a data file is.
//!
//! Objects come first in a file, then chunks, both in the order of the spec. Every piece begins at a multiple of 64, so that torch's own
//! alignment within the archive is one of the file: payloads can be mapped.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::piece::{self, Piece, Template, TemplatePart};
use super::spec::{Content, Spec};
use super::{WriteError, cover, metadata};
use crate::format::dcp::names::METADATA;
use crate::format::pickle::Count;
use crate::tensor::Dtype;

/// A checkpoint of which everything is known but the bytes of payloads.
#[derive(Debug)]
pub struct Directory {
    spec: Spec,
    templates: Vec<Template>,
    /// Every piece: objects, then the chunks of each tensor.
    pieces: Vec<Piece>,
    /// Number of the first piece of each tensor.
    first: Vec<usize>,
    files: Vec<DataFile>,
}

#[derive(Debug, Default, Clone)]
struct DataFile {
    pieces: Vec<u32>,
    len: u64,
}

/// A stretch of a data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<'a> {
    /// These bytes, which pieces of one kind share.
    Bytes(&'a Arc<[u8]>),
    /// Bytes that others know: so many, at least one.
    Payload {
        /// Whose they are.
        of: Payload<'a>,
        /// How many.
        len: u64,
    },
    /// Four bytes: the little-endian CRC-32 of these bytes of the file, or zeros, which torch takes as well.
    Crc32(Range<u64>),
}

/// What a payload is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Chunk `chunk` of tensor `tensor` of the spec, row-major.
    Chunk {
        /// Number of the tensor.
        tensor: usize,
        /// Number of the chunk among those of the tensor.
        chunk: usize,
    },
    /// A storage of object `object` of the spec.
    Storage {
        /// Number of the object.
        object: usize,
        /// Key of the storage.
        key: &'a Arc<str>,
    },
}

impl Directory {
    /// Lays out a checkpoint.
    ///
    /// # Errors
    /// Anything of [`WriteError`]: whatever is wrong with a spec is found here.
    pub fn new(spec: Spec) -> Result<Self, WriteError> {
        check_names(&spec)?;
        let count = spec.tensors.iter().map(|tensor| tensor.chunks.len()).sum::<usize>() + spec.objects.len();
        u32::try_from(count).map_err(|_| WriteError::TooMany)?;
        let mut files = vec![DataFile::default(); spec.files.len()];
        let mut templates = Templates::default();
        let mut pieces = Vec::with_capacity(count);
        let mut first = Vec::with_capacity(spec.tensors.len());
        for object in &spec.objects {
            let template = templates.of_object(&object.key, &object.content)?;
            templates.place(template, &object.key, object.file, &mut files, &mut pieces)?;
        }
        for tensor in &spec.tensors {
            first.push(pieces.len());
            if tensor.shape.bytes(tensor.dtype).is_none() {
                return Err(WriteError::TooLarge { what: tensor.key.to_string() });
            }
            cover::check(tensor)?;
            for chunk in tensor.chunks.iter() {
                let template = templates.of_chunk(&tensor.key, tensor.dtype, chunk.sizes)?;
                templates.place(template, &tensor.key, chunk.file, &mut files, &mut pieces)?;
            }
        }
        Ok(Self { spec, templates: templates.all, pieces, first, files })
    }

    /// What was laid out.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Bytes of data file number `file`.
    #[must_use]
    pub fn file_len(&self, file: usize) -> Option<u64> {
        self.files.get(file).map(|file| file.len)
    }

    /// The parts of data file number `file`, in order and without gaps; none where there is no such file.
    pub fn parts(&self, file: usize) -> impl Iterator<Item = Part<'_>> {
        let pieces = self.files.get(file).into_iter().flat_map(|file| &file.pieces);
        pieces.flat_map(|number| self.parts_of(*number as usize))
    }

    #[expect(clippy::indexing_slicing, reason = "files number pieces, these templates, and those their storages")]
    fn parts_of(&self, number: usize) -> impl Iterator<Item = Part<'_>> {
        let piece = self.pieces[number];
        let template = &self.templates[piece.template as usize];
        template.parts.iter().map(move |part| match part {
            TemplatePart::Bytes(bytes) => Part::Bytes(bytes),
            TemplatePart::Crc32(of) => Part::Crc32(piece.offset + of.start..piece.offset + of.end),
            TemplatePart::Payload(storage) => {
                let storage = &template.storages[*storage];
                Part::Payload { of: self.payload(number, &storage.key), len: storage.bytes }
            }
        })
    }

    /// What a payload of this piece is of.
    #[expect(clippy::indexing_slicing, reason = "a piece that is of no object is of a tensor")]
    fn payload<'a>(&self, number: usize, key: &'a Arc<str>) -> Payload<'a> {
        if number < self.spec.objects.len() {
            return Payload::Storage { object: number, key };
        }
        // A tensor without chunks begins where the next one does.
        let tensor = self.first.partition_point(|first| *first <= number) - 1;
        Payload::Chunk { tensor, chunk: number - self.first[tensor] }
    }

    /// The content of `.metadata`. It is made anew each time: of a million chunks it is larger than all else that is kept of them.
    ///
    /// # Errors
    /// [`WriteError::Metadata`]
    pub fn metadata(&self) -> Result<Vec<u8>, WriteError> {
        metadata::write(Vec::new(), &self.spec, &self.pieces)
    }

    /// Its length, without making it.
    ///
    /// # Errors
    /// [`WriteError::Metadata`]
    pub fn metadata_len(&self) -> Result<u64, WriteError> {
        let Count(len) = metadata::write(Count::default(), &self.spec, &self.pieces)?;
        Ok(len)
    }
}

/// Keys are told apart, files have names of their own, and paths are as many as keys.
fn check_names(spec: &Spec) -> Result<(), WriteError> {
    let mut names = HashSet::from([METADATA, ""]);
    if let Some(name) = spec.files.iter().find(|name| !names.insert(name)) {
        return Err(WriteError::FileName { name: name.clone() });
    }
    let keys = spec.tensors.iter().map(|tensor| &tensor.key).chain(spec.objects.iter().map(|object| &object.key));
    let mut paths: HashMap<&str, usize> = HashMap::new();
    for key in keys {
        if paths.insert(key, 0).is_some() {
            return Err(WriteError::DuplicateKey { key: Arc::clone(key) });
        }
    }
    let Some(all) = &spec.paths else { return Ok(()) };
    for path in all {
        let unknown = || WriteError::UnknownPath { key: Arc::clone(&path.key) };
        *paths.get_mut(&*path.key).ok_or_else(unknown)? += 1;
    }
    match paths.into_iter().filter(|(_, paths)| *paths != 1).min() {
        Some((key, paths)) => Err(WriteError::Paths { key: key.into(), paths }),
        None => Ok(()),
    }
}

/// The templates made so far. Chunks of one element type and shape have one, objects of one content too.
#[derive(Default)]
struct Templates {
    all: Vec<Template>,
    chunks: HashMap<Dtype, HashMap<Box<[u64]>, u32>>,
    /// By the address of the content, which the spec keeps alive.
    objects: HashMap<usize, u32>,
}

impl Templates {
    fn of_chunk(&mut self, key: &Arc<str>, dtype: Dtype, sizes: &[u64]) -> Result<u32, WriteError> {
        if let Some(known) = self.chunks.get(&dtype).and_then(|known| known.get(sizes)) {
            return Ok(*known);
        }
        let number = self.add(piece::of_chunk(key, dtype, sizes)?)?;
        self.chunks.entry(dtype).or_default().insert(sizes.into(), number);
        Ok(number)
    }

    fn of_object(&mut self, key: &Arc<str>, content: &Arc<Content>) -> Result<u32, WriteError> {
        let address = Arc::as_ptr(content).addr();
        if let Some(known) = self.objects.get(&address) {
            return Ok(*known);
        }
        let number = self.add(piece::of_object(key, content)?)?;
        self.objects.insert(address, number);
        Ok(number)
    }

    fn add(&mut self, template: Template) -> Result<u32, WriteError> {
        let number = u32::try_from(self.all.len()).map_err(|_| WriteError::TooMany)?;
        self.all.push(template);
        Ok(number)
    }

    /// Puts a piece behind all others of its file.
    fn place(
        &self,
        number: u32,
        key: &Arc<str>,
        file: usize,
        files: &mut [DataFile],
        pieces: &mut Vec<Piece>,
    ) -> Result<(), WriteError> {
        let count = files.len();
        let (Some(into), Some(template)) = (files.get_mut(file), self.all.get(number as usize)) else {
            return Err(WriteError::NoFile { key: Arc::clone(key), file, files: count });
        };
        let offset = into.len;
        let end = offset.checked_add(template.padded).filter(|end| i64::try_from(*end).is_ok());
        into.len = end.ok_or_else(|| WriteError::TooLarge { what: format!("data file {file}") })?;
        into.pieces.push(u32::try_from(pieces.len()).map_err(|_| WriteError::TooMany)?);
        pieces.push(Piece { offset, len: template.len, template: number });
        Ok(())
    }
}
