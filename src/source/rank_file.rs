//! Reads the metadata of rank files: zip directory, pickle, and where each storage is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::SourceError;
use super::locate::{Located, RankPath};
use crate::catalog::Record;
use crate::extent::{Extent, ObjectId};
use crate::format::megatron::{OPTIMIZER_ENTRIES, RANK_STATE_ENTRIES, RankDir};
use crate::format::pickle::Limits;
use crate::format::torch::{Archive, TorchError, check_byteorder, check_version, decode_pickle};
use crate::format::zip::{
    Entry, Located as Directory, ZipError, data_start, explain, find_directory, parse_directory,
};
use crate::store::{FileStore, Store};
use crate::value::{Object, Value};

/// A rank file as read, before it is known which rank it is.
#[derive(Debug)]
pub(super) struct ReadFile {
    pub(super) dir: RankDir,
    pub(super) object: ObjectId,
    pub(super) name: String,
    /// Everything but what is left out.
    pub(super) tree: Value,
    pub(super) storages: HashMap<Arc<str>, Record>,
    /// Names of entries that were left out: the optimizer's, and tensors outside the model.
    pub(super) left_out: Vec<String>,
}

/// The end of a file that is read first: room for the end record and the directory of a few hundred tensors.
const TAIL: u64 = 64 * 1024;

/// A pickle larger than this is no checkpoint's: that of a hundred thousand tensors takes a third of it.
const MAX_PICKLE: u64 = 1 << 26;

/// Reads at the same time, so that slow storage is waited for once and not once per rank.
const READERS: usize = 16;

/// Reads every rank file.
pub(super) fn read_all(located: &Located, store: &FileStore) -> Result<Vec<ReadFile>, SourceError> {
    // Objects are numbered in the order of the files, whatever order the reads end in.
    let objects: Vec<ObjectId> =
        located.files.iter().map(|file| store.add(&file.path)).collect::<Result<_, _>>()?;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some(file), Some(object)) = (located.files.get(index), objects.get(index)) else {
                return done;
            };
            done.push((index, read(file, *object, store)));
        }
    };
    let mut results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..READERS.min(located.files.len())).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    if results.len() != located.files.len() {
        let what = "reading its rank files failed by a bug in ckpt-fs; the lines before say where".into();
        return Err(SourceError::NotACheckpoint { path: located.directory.clone(), what });
    }
    results.into_iter().map(|(_, result)| result).collect()
}

fn read(file: &RankPath, object: ObjectId, store: &FileStore) -> Result<ReadFile, SourceError> {
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
    let (tree, left_out) = without_foreign(&tree);
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
    Ok(ReadFile { dir: file.dir, object, name, tree, storages, left_out })
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

/// The tree without the optimizer and without tensors that nobody can cut, and the names of what was left out. Their storages are not even
/// looked up.
fn without_foreign(tree: &Value) -> (Value, Vec<String>) {
    let Some(items) = tree.items() else { return (tree.clone(), Vec::new()) };
    let is_known =
        |name: &str| name == "args" || name.starts_with("model") || RANK_STATE_ENTRIES.contains(&name);
    let is_foreign = |(key, value): &(Value, Value)| match key.as_str() {
        Some(name) => OPTIMIZER_ENTRIES.contains(&name) || (!is_known(name) && value.holds_tensor()),
        None => value.holds_tensor(),
    };
    let (left_out, kept): (Vec<_>, Vec<_>) = items.iter().cloned().partition(is_foreign);
    let names = left_out
        .iter()
        .map(|(key, _)| key.as_str().unwrap_or("an entry without a name").to_owned())
        .collect();
    (Value::Dict(kept.into()), names)
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
