//! Reads the metadata of one torch file: zip directory, pickle, and where each storage is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::SourceError;
use crate::catalog::Record;
use crate::extent::{Extent, ObjectId};
use crate::format::pickle::Limits;
use crate::format::torch::{Archive, TorchError, check_byteorder, check_version, decode_pickle};
use crate::format::zip::{
    Entry, Located as Directory, ZipError, data_start, explain, find_directory, parse_directory,
};
use crate::store::{FileStore, Store};
use crate::value::{Object, Value};

/// A torch file as read.
#[derive(Debug)]
pub(super) struct TorchFile {
    pub(super) name: String,
    /// What it holds, but for what is left out.
    pub(super) tree: Value,
    /// The record of each storage that the tree refers to.
    pub(super) storages: HashMap<Arc<str>, Record>,
    /// Names of entries that were left out.
    pub(super) left_out: Vec<String>,
}

/// The end of a file that is read first: room for the end record and the directory of a few hundred tensors.
const TAIL: u64 = 64 * 1024;

/// A pickle larger than this is no checkpoint's: that of a hundred thousand tensors takes a third of it.
const MAX_PICKLE: u64 = 1 << 26;

/// Reads a file. `select` says what of its tree to keep, and names what it leaves out: storages of that are not even looked up.
pub(super) fn read(
    object: ObjectId,
    store: &FileStore,
    select: impl FnOnce(&Value) -> (Value, Vec<String>),
) -> Result<TorchFile, SourceError> {
    let name = store.name(object);
    let reader = Reader { store, object, name: &name };
    let archive = Archive::new(reader.entries()?).map_err(|source| reader.file_error(source))?;
    let version = reader.content(&archive.version, 64)?;
    check_version(&version).map_err(|source| reader.file_error(source))?;
    if let Some(byteorder) = &archive.byteorder {
        check_byteorder(&reader.content(byteorder, 64)?).map_err(|source| reader.file_error(source))?;
    }
    let pickle = reader.content(&archive.pickle, MAX_PICKLE)?;
    // It says where every tensor is: one wrong bit in it could give a tensor another's bytes.
    reader.check_sum(&archive.pickle, &pickle)?;
    let tree = decode_pickle(&pickle, &Limits::default()).map_err(|source| reader.file_error(source))?;
    let (tree, left_out) = select(&tree);
    let mut storages = HashMap::new();
    let mut found = Found::default();
    found.look_into(&tree);
    for storage in found.storages {
        let entry = archive.storage(&storage).map_err(|source| reader.file_error(source))?;
        let extent = Extent { object, offset: reader.start(entry)?, len: entry.size };
        // Zero is what torch writes where it was told not to sum.
        let crc = (entry.crc != 0).then_some(entry.crc);
        storages.insert(storage.key, Record { extent, crc });
    }
    Ok(TorchFile { name, tree, storages, left_out })
}

struct Reader<'a> {
    store: &'a FileStore,
    object: ObjectId,
    name: &'a str,
}

impl Reader<'_> {
    fn file_error(&self, source: impl Into<TorchError>) -> SourceError {
        SourceError::File { file: self.name.to_owned(), source: source.into() }
    }

    fn bytes(&self, offset: u64, len: u64) -> Result<Vec<u8>, SourceError> {
        // Callers have checked the range against the file, so the buffer is no larger than the file.
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.store.read_exact_at(self.object, offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The entries of the archive.
    fn entries(&self) -> Result<Vec<Entry>, SourceError> {
        let len = self.store.len(self.object)?;
        let mut start = len.saturating_sub(TAIL);
        let mut tail = self.bytes(start, len - start)?;
        let directory = loop {
            match find_directory(&tail, len) {
                Ok(Directory::Found(directory)) => break directory,
                Ok(Directory::NeedMore { offset, .. }) if offset < start => {
                    start = offset;
                    tail = self.bytes(start, len - start)?;
                }
                Ok(Directory::NeedMore { .. }) => {
                    return Err(self.file_error(ZipError::NoDirectory));
                }
                Err(_) => {
                    // What the file is instead is said by its beginning.
                    let head = self.bytes(0, len.min(512))?;
                    return Err(self.file_error(explain(&head)));
                }
            }
        };
        let bytes = match directory.offset.checked_sub(start).and_then(|at| usize::try_from(at).ok()) {
            Some(at) => tail.get(at..).unwrap_or_default().to_vec(),
            None => self.bytes(directory.offset, directory.len)?,
        };
        let len_of = usize::try_from(directory.len).unwrap_or(usize::MAX).min(bytes.len());
        parse_directory(bytes.get(..len_of).unwrap_or_default(), &directory, len)
            .map_err(|error| self.file_error(error))
    }

    /// First byte of an entry's content.
    fn start(&self, entry: &Entry) -> Result<u64, SourceError> {
        /// A local header, its name, and the padding that torch puts behind it.
        const HEADER: u64 = 30 + 64 + 128;
        let len = self.store.len(self.object)?;
        let header = self.bytes(entry.header_offset, HEADER.min(len.saturating_sub(entry.header_offset)))?;
        data_start(&header, entry).map_err(|error| self.file_error(error))
    }

    /// The content of a small entry.
    fn content(&self, entry: &Entry, most: u64) -> Result<Vec<u8>, SourceError> {
        if entry.size > most {
            let what = format!("record {} has {} bytes, more than {most}", entry.name, entry.size);
            return Err(SourceError::Contents { file: self.name.to_owned(), what });
        }
        self.bytes(self.start(entry)?, entry.size)
    }

    /// Holds an entry's content against the CRC-32 that the file states. Zero is what torch writes where it was told not to sum.
    fn check_sum(&self, entry: &Entry, content: &[u8]) -> Result<(), SourceError> {
        let found = crc32fast::hash(content);
        if entry.crc == 0 || found == entry.crc {
            return Ok(());
        }
        let what = format!(
            "record {} is damaged: its CRC-32 is {found:08x}, the file states {:08x}",
            entry.name, entry.crc
        );
        Err(SourceError::Contents { file: self.name.to_owned(), what })
    }
}

/// Storages that a tree refers to.
#[derive(Default)]
struct Found {
    storages: HashSet<crate::value::Storage>,
}

impl Found {
    fn look_into(&mut self, value: &Value) {
        match value {
            Value::Tensor(tensor) => {
                self.storages.insert(tensor.storage.clone());
            }
            Value::List(items) | Value::Tuple(items) | Value::Set(items) | Value::FrozenSet(items) => {
                items.iter().for_each(|item| self.look_into(item));
            }
            Value::Dict(items) => items.iter().for_each(|(_, item)| self.look_into(item)),
            Value::Object(object) => self.look_into_object(object),
            _ => {}
        }
    }

    fn look_into_object(&mut self, object: &Object) {
        self.look_into(&object.args);
        object.appended.iter().for_each(|item| self.look_into(item));
        object.items.iter().for_each(|(_, item)| self.look_into(item));
        if let Some(state) = &object.state {
            self.look_into(state);
        }
    }
}
