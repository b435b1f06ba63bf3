//! Reads the metadata of one torch file: zip directory, pickle, and where each storage is.
//!
//! On storage that is far away every read is a round trip: nothing is read that follows from what was read. Not here: the bytes kept
//! meanwhile (`buffered`), where torch puts data (`format`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::SourceError;
use super::buffered::AtHand;
use super::workers::Turn;
use crate::catalog::Record;
use crate::extent::{Extent, ObjectId};
use crate::format::pickle::Limits;
use crate::format::torch::{Archive, TorchError, check_byteorder, check_version, decode_pickle};
use crate::format::zip::{
    Entry, Located as Directory, ZipError, data_start, explain, find_directory, parse_directory, torch_start,
};
use crate::store::{Reads, Store, StoreError, consistent};
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

/// Read behind the pickle with it: the small records that torch puts there.
const BEHIND: u64 = 1024;

/// A local header, its name, and the padding that torch puts behind it.
const HEADER: u64 = 30 + 64 + 128;

/// Reads a file. `select` says what of its tree to keep, and names what it leaves out: storages of that are not even looked up.
///
/// A file as torch writes it is read twice, its end and its beginning, and looked at once more when all is known.
pub(super) fn read(
    object: ObjectId,
    store: &dyn Store,
    select: impl FnOnce(&Value) -> (Value, Vec<String>),
) -> Result<TorchFile, SourceError> {
    let name = store.name(object);
    consistent(store, object, |reads| Reader::new(reads, &name)?.file(select))
}

/// An archive as it is read.
pub(super) struct Reader<'a> {
    buffered: AtHand<'a>,
    reads: Reads<'a>,
    name: &'a str,
    /// Whether every entry, and every local header seen so far, is where torch would have put it.
    is_torchs: bool,
}

impl<'a> Reader<'a> {
    /// The archive that `reads` are of, a file or a part of one; messages call it `name`.
    pub(super) fn new(reads: Reads<'a>, name: &'a str) -> Result<Self, StoreError> {
        Ok(Self { buffered: AtHand::new(reads)?, reads, name, is_torchs: false })
    }
}

impl Reader<'_> {
    /// What it holds. Positions of its storages are those in the object.
    pub(super) fn file(mut self, select: impl FnOnce(&Value) -> (Value, Vec<String>)) -> Result<TorchFile, SourceError> {
        let entries = self.entries()?;
        self.is_torchs = entries.iter().all(|entry| torch_start(entry).is_some());
        let archive = Archive::new(entries).map_err(|source| self.file_error(source))?;
        let pickle = self.pickle(&archive)?;
        let _turn = Turn::for_bytes(archive.pickle.size);
        let tree = decode_pickle(&pickle, &Limits::default()).map_err(|source| self.file_error(source))?;
        let (tree, left_out) = select(&tree);
        let mut storages = HashMap::new();
        let mut found = Storages::default();
        found.look_into(&tree);
        for storage in found.storages {
            let entry = archive.storage(&storage).map_err(|source| self.file_error(source))?;
            let offset = self.reads.absolute(self.start(entry)?);
            let extent = Extent { object: self.reads.object(), offset, len: entry.size };
            // Zero is what torch writes where it was told not to sum.
            let crc = (entry.crc != 0).then_some(entry.crc);
            storages.insert(storage.key, Record { extent, crc });
        }
        Ok(TorchFile { name: self.name.to_owned(), tree, storages, left_out })
    }

    /// The pickle, in a file of a version and byte order that can be read.
    fn pickle(&mut self, archive: &Archive) -> Result<Vec<u8>, SourceError> {
        // The records are asked for in this order because the first read brings the small ones that follow it.
        let pickle = self.content(&archive.pickle, MAX_PICKLE, BEHIND)?;
        let version = self.content(&archive.version, 64, 0)?;
        check_version(&version).map_err(|source| self.file_error(source))?;
        if let Some(byteorder) = &archive.byteorder {
            let byteorder = self.content(byteorder, 64, 0)?;
            check_byteorder(&byteorder).map_err(|source| self.file_error(source))?;
        }
        // It says where every tensor is: one wrong bit in it could give a tensor another's bytes.
        self.check_sum(&archive.pickle, &pickle)?;
        Ok(pickle)
    }

    fn file_error(&self, source: impl Into<TorchError>) -> SourceError {
        SourceError::File { file: self.name.to_owned(), source: source.into() }
    }

    /// The entries of the archive.
    pub(super) fn entries(&mut self) -> Result<Vec<Entry>, SourceError> {
        let len = self.buffered.len();
        let mut start = len.saturating_sub(TAIL);
        let directory = loop {
            match find_directory(self.buffered.bytes(start, len - start)?, len) {
                Ok(Directory::Found(directory)) => break directory,
                Ok(Directory::NeedMore { offset, .. }) if offset < start => start = offset,
                Ok(Directory::NeedMore { .. }) => {
                    return Err(self.file_error(ZipError::NoDirectory));
                }
                Err(error) => {
                    // What the file is instead is said by its beginning.
                    let head = self.buffered.once(0, 512)?;
                    let instead = explain(&head);
                    let is_archive = instead == ZipError::CutShort && error != ZipError::NoDirectory;
                    return Err(self.file_error(if is_archive { error } else { instead }));
                }
            }
        };
        let _turn = Turn::for_bytes(directory.len);
        let bytes = self.buffered.bytes(directory.offset, directory.len)?;
        parse_directory(bytes, &directory, len).map_err(|error| self.file_error(error))
    }

    /// First byte of an entry's content: by its local header where that is at hand, computed where torch wrote the file.
    fn start(&self, entry: &Entry) -> Result<u64, SourceError> {
        let computed = torch_start(entry).filter(|_| self.is_torchs);
        match computed.filter(|_| self.buffered.get(entry.header_offset, HEADER).is_none()) {
            Some(start) => Ok(start),
            None => {
                let header = self.buffered.once(entry.header_offset, HEADER)?;
                data_start(&header, entry).map_err(|error| self.file_error(error))
            }
        }
    }

    /// The content of a small entry, whose local header is always looked at. `behind` are bytes to bring along with it.
    pub(super) fn content(&mut self, entry: &Entry, most: u64, behind: u64) -> Result<Vec<u8>, SourceError> {
        if entry.size > most {
            let what = format!("record {} has {} bytes, more than {most}", entry.name, entry.size);
            return Err(SourceError::Contents { file: self.name.to_owned(), what });
        }
        let header = self.buffered.bytes(entry.header_offset, HEADER + entry.size + behind)?;
        let start = data_start(header, entry).map_err(|error| self.file_error(error))?;
        self.is_torchs &= torch_start(entry) == Some(start);
        Ok(self.buffered.bytes(start, entry.size)?.to_vec())
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
struct Storages {
    storages: HashSet<crate::value::Storage>,
}

impl Storages {
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
