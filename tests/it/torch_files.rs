//! Files written by torch: read, laid out again and encoded again, they are the same byte for byte.
//!
//! `tests/fixtures/pt` is small and made by `tests/fixtures/make_pt.py`. `CKPT_FS_FIXTURES=<folder>` runs the same checks on every `.pt`
//! under a folder of real checkpoints.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ckpt_fs::format::pickle::{self, Limits};
use ckpt_fs::format::torch::{
    Archive, Content, TorchError, check_byteorder, check_version, decode_pickle, encode_pickle, records,
};
use ckpt_fs::format::zip::{
    self, Directory, Entry, LOCAL_HEADER, Layout, Located, Piece, RecordSpec, ZipError, data_start, explain,
    find_directory, parse_directory,
};
use ckpt_fs::tensor::Dtype;
use ckpt_fs::value::Value;
use proptest::prelude::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pt")
}

struct Source {
    file: File,
    len: u64,
}

impl Source {
    fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len();
        Self { file, len }
    }

    fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        self.file.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }

    fn directory(&self) -> Result<Directory, ZipError> {
        // A short first look, so that asking for more is tried too.
        let mut offset = self.len.saturating_sub(30);
        loop {
            match find_directory(&self.read(offset, self.len - offset), self.len)? {
                Located::Found(directory) => return Ok(directory),
                Located::NeedMore { offset: from, len } => {
                    assert!(from < offset && from + len == self.len);
                    offset = from;
                }
            }
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let directory = self.directory().unwrap();
        parse_directory(&self.read(directory.offset, directory.len), &directory, self.len).unwrap()
    }

    fn start(&self, entry: &Entry) -> u64 {
        let header = self.read(entry.header_offset, LOCAL_HEADER + entry.name.len() as u64);
        data_start(&header, entry).unwrap()
    }

    fn content(&self, entry: &Entry) -> Vec<u8> {
        self.read(self.start(entry), entry.size)
    }
}

/// Compares the layout of `entries` with the file, piece by piece. Contents larger than this are not read.
fn check_layout(source: &Source, entries: &[Entry], crc: bool) {
    const LARGE: u64 = 1 << 28;
    let prefix = entries[0].name.split_once('/').unwrap().0;
    let specs: Vec<_> = entries
        .iter()
        .map(|entry| RecordSpec { name: entry.name[prefix.len() + 1..].to_owned(), size: entry.size })
        .collect();
    let layout = Layout::new(prefix, &specs).unwrap();
    assert_eq!(layout.size, source.len);
    let mut at = 0;
    for piece in &layout.pieces {
        match piece {
            Piece::Bytes(bytes) => {
                assert!(source.read(at, bytes.len() as u64) == *bytes, "bytes at {at}");
                at += bytes.len() as u64;
            }
            Piece::Record(index) => {
                assert_eq!(at, source.start(&entries[*index]));
                assert_eq!(at, layout.data[*index]);
                assert_eq!(at % 64, 0);
                at += entries[*index].size;
            }
            Piece::Crc(index) => {
                let entry = &entries[*index];
                let expected = match crc {
                    true if entry.size < LARGE => crc32fast::hash(&source.content(entry)),
                    _ => 0,
                };
                assert_eq!(source.read(at, 4), expected.to_le_bytes(), "CRC of {}", entry.name);
                assert_eq!(entry.crc, expected);
                at += 4;
            }
        }
    }
    assert_eq!(at, source.len);
}

/// Everything that holds for every file that torch writes on a CPU. Returns the tree.
fn check(path: &Path, crc: bool) -> Value {
    let source = Source::open(path);
    let entries = source.entries();
    check_layout(&source, &entries, crc);

    let archive = Archive::new(entries.clone()).unwrap();
    check_version(&source.content(&archive.version)).unwrap();
    check_byteorder(&source.content(archive.byteorder.as_ref().unwrap())).unwrap();
    let bytes = source.content(&archive.pickle);
    let plain = pickle::decode(&bytes, &Limits::default()).unwrap();
    assert!(pickle::encode(&plain).unwrap() == bytes, "{path:?}: the pickle");
    let tree = decode_pickle(&bytes, &Limits::default()).unwrap();
    let encoded = encode_pickle(&tree).unwrap();
    assert!(encoded.pickle == bytes, "{path:?}: the pickle of the lifted tree");

    // The storages are numbered as in the file, and the records are those of the file.
    for (index, storage) in encoded.storages.iter().enumerate() {
        assert_eq!(*storage.key, *index.to_string());
        archive.storage(storage).unwrap();
    }
    assert_eq!(archive.storages().count(), encoded.storages.len());
    let sizes: Vec<_> = encoded.storages.iter().map(|storage| storage.bytes).collect();
    let ours = records(bytes.len() as u64, &sizes);
    assert_eq!(ours.len(), entries.len());
    for (ours, entry) in ours.iter().zip(&entries) {
        assert_eq!(
            (format!("{}/{}", archive.prefix, ours.spec.name), ours.spec.size),
            (entry.name.clone(), entry.size)
        );
        match &ours.content {
            // The last record is an id that torch makes differently.
            Content::Bytes(content) if !entry.name.ends_with("serialization_id") => {
                assert_eq!(source.content(entry), *content);
            }
            _ => {}
        }
    }
    tree
}

#[test]
fn every_dtype() {
    let tree = check(&folder().join("dtypes.pt"), true);
    for dtype in Dtype::all() {
        let tensor = tree.get(dtype.name()).unwrap().tensor().unwrap();
        assert_eq!(tensor.dtype, dtype);
        assert_eq!((&*tensor.shape.0, &*tensor.strides, tensor.offset), ([3].as_slice(), [1].as_slice(), 0));
        assert_eq!(tensor.storage.bytes, 3 * dtype.size());
    }
}

#[test]
fn every_kind_of_tensor() {
    let tree = check(&folder().join("kinds.pt"), true);
    let tensor = |name: &str| tree.get(name).unwrap().tensor().unwrap();
    let view = |name: &str| {
        let tensor = tensor(name);
        (tensor.shape.to_string(), tensor.strides.clone(), tensor.offset, tensor.storage.bytes)
    };
    assert_eq!(view("scalar"), ("[]".into(), vec![], 0, 4));
    assert_eq!(view("empty"), ("[0, 4]".into(), vec![4, 1], 0, 0));
    assert_eq!(view("transposed"), ("[6, 4]".into(), vec![1, 6], 0, 96));
    assert_eq!(view("every_other"), ("[12]".into(), vec![2], 1, 96));
    assert_eq!(view("expanded"), ("[5]".into(), vec![0], 0, 4));
    let bias = tree.get("model").unwrap().get("bias").unwrap().tensor().unwrap();
    assert_eq!((bias.offset, &bias.storage), (6, &tensor("transposed").storage));
    assert!(tensor("gradient").requires_grad);
    assert_eq!(tensor("with_attribute").shape.0, [2]);
    assert_eq!(tensor("parameter").shape.0, [3]);
    assert_eq!(tensor("parameter_with_attribute").dtype, Dtype::Float8E4m3fn);
    for name in ["conjugate", "quantized", "sparse"] {
        let value = tree.get(name).unwrap();
        assert!(value.tensor().is_none() && matches!(value, Value::Object(_)), "{name}");
    }
    assert!(matches!(tree.get("storage"), Some(Value::Persistent(_))));
    let Some(Value::List(twice)) = tree.get("twice") else { panic!() };
    assert!(std::sync::Arc::ptr_eq(twice[0].tensor().unwrap(), twice[1].tensor().unwrap()));
}

#[test]
fn without_crc() {
    check(&folder().join("no_crc.pt"), false);
}

#[test]
fn the_old_format_is_named() {
    let source = Source::open(&folder().join("old_format.pt"));
    assert_eq!(source.directory().unwrap_err(), ZipError::NoDirectory);
    assert_eq!(explain(&source.read(0, source.len.min(512))), ZipError::OldTorch);
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let source = Source::open(&folder().join("no_crc.pt"));
    let bytes = source.read(0, source.len);
    for len in 0..bytes.len() {
        // Its end record is the last thing in the file and the comment is empty, so no shorter file has one.
        assert_eq!(find_directory(&bytes[..len], len as u64), Err(ZipError::NoDirectory), "{len}");
    }
}

#[test]
fn a_storage_of_another_size_is_an_error() {
    let source = Source::open(&folder().join("no_crc.pt"));
    let archive = Archive::new(source.entries()).unwrap();
    let tree = decode_pickle(&source.content(&archive.pickle), &Limits::default()).unwrap();
    let mut storage = tree.get("a").unwrap().tensor().unwrap().storage.clone();
    storage.bytes += 1;
    let error = TorchError::StorageSize { key: "0".into(), expected: 13, found: 12 };
    assert_eq!(archive.storage(&storage), Err(error));
    storage.key = "7".into();
    assert_eq!(archive.storage(&storage), Err(TorchError::NoStorage { key: "7".into() }));
}

#[test]
fn real_checkpoints() {
    let Some(folder) = std::env::var_os("CKPT_FS_FIXTURES") else { return };
    let crc = std::env::var_os("CKPT_FS_NO_CRC").is_none();
    let (mut folders, mut files) = (vec![PathBuf::from(folder)], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "pt") {
                check(&path, crc);
                files += 1;
            }
        }
    }
    println!("{files} files are the same byte for byte");
    assert!(files > 0);
}

/// Reads all that the directory of `bytes` leads to.
fn read_all(bytes: &[u8]) -> Result<(), ZipError> {
    let len = bytes.len() as u64;
    let Located::Found(directory) = find_directory(bytes, len)? else { return Ok(()) };
    let at = |offset: u64, len: u64| -> &[u8] {
        let start = usize::try_from(offset).unwrap();
        bytes.get(start..start + usize::try_from(len).unwrap()).unwrap()
    };
    for entry in parse_directory(at(directory.offset, directory.len), &directory, len)? {
        let header = at(entry.header_offset, LOCAL_HEADER);
        let start = zip::data_start(header, &entry)?;
        at(start, entry.size);
    }
    Ok(())
}

proptest! {
    /// Whatever is damaged, reading panics nowhere and never leads outside the file.
    #[test]
    fn damaged_archives_never_panic(
        damage in proptest::collection::vec((0usize..900, prop_oneof![any::<u8>(), Just(0xff), Just(0)]), 1..6),
    ) {
        let mut bytes = std::fs::read(folder().join("no_crc.pt")).unwrap();
        let len = bytes.len();
        for (back, byte) in damage {
            bytes[len - 1 - back.min(len - 1)] = byte;
        }
        let _ = read_all(&bytes);
    }

    #[test]
    fn damaged_trees_never_panic(
        name in prop_oneof![Just("kinds.pt"), Just("dtypes.pt")],
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let source = Source::open(&folder().join(name));
        let archive = Archive::new(source.entries()).unwrap();
        let mut bytes = source.content(&archive.pickle);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(tree) = decode_pickle(&bytes, &Limits::default()) {
            let _ = encode_pickle(&tree);
        }
    }
}
