//! Pieces of real checkpoints against what is expected of them by shape, type and length alone.
//!
//! `CKPT_FS_DIST_FIXTURES=<folder>` runs the same on every checkpoint below a folder.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use ckpt_fs::format::dcp::metadata::{Encoding, decode};
use ckpt_fs::format::dcp::metadata_json::{self, Backend};
use ckpt_fs::format::dcp::piece::{Expected, Generation, check, expected, head};
use ckpt_fs::format::pickle::Limits;
use ckpt_fs::format::torch::{Archive, decode_pickle};
use ckpt_fs::format::zip::{Located, data_start, find_directory, parse_directory};
use ckpt_fs::tensor::{Dtype, Shape};
use ckpt_fs::value::Value;

/// A piece as it is: first byte of its elements, strides, whether torch wrote it, and with the records of which generation.
struct Found {
    data: u64,
    strides: Vec<u64>,
    generation: Option<Generation>,
}

fn read(bytes: &[u8], shape: &Shape, dtype: Dtype) -> Found {
    let len = bytes.len() as u64;
    let Ok(Located::Found(directory)) = find_directory(bytes, len) else { panic!("no directory") };
    let entries =
        parse_directory(&bytes[directory.offset as usize..][..directory.len as usize], &directory, len);
    let entries = entries.unwrap();
    let has = |name: &str| entries.iter().any(|entry| entry.name == format!("archive/{name}"));
    let generation = has(".data/serialization_id")
        .then(|| if has(".format_version") { Generation::Torch29 } else { Generation::Torch22 });
    let archive = Archive::new(entries).unwrap();
    let start = |entry| data_start(&bytes[archive_header(entry)..], entry).unwrap();
    let pickle = &bytes[start(&archive.pickle) as usize..][..archive.pickle.size as usize];
    let Value::Tensor(tensor) = decode_pickle(pickle, &Limits::default()).unwrap() else {
        panic!("no tensor")
    };
    assert_eq!((&tensor.shape, tensor.dtype, tensor.offset), (shape, dtype, 0));
    let data = start(archive.storage(&tensor.storage).unwrap());
    Found { data, strides: tensor.strides.clone(), generation }
}

fn archive_header(entry: &ckpt_fs::format::zip::Entry) -> usize {
    entry.header_offset as usize
}

#[derive(Debug, Default, PartialEq)]
struct Counts {
    row_major: usize,
    other_order: usize,
    /// Written by hand, compressed, or in a file that is not there.
    other_writer: usize,
    compressed: usize,
    missing: usize,
}

fn walk(folder: &Path, counts: &mut Counts) {
    let Ok(bytes) = fs::read(folder.join(".metadata")) else { return };
    let metadata = decode(&bytes).unwrap();
    for tensor in &metadata.tensors {
        for chunk in tensor.chunks.iter() {
            let (shape, place) = (Shape(chunk.sizes.to_vec()), chunk.place);
            let Ok(file) = fs::read(folder.join(metadata.file(place).unwrap())) else {
                counts.missing += 1;
                continue;
            };
            let piece = &file[place.offset as usize..][..place.len as usize];
            if place.encoding == Encoding::Zstd {
                assert!(check(place, shape.bytes(tensor.dtype), piece).is_err());
                counts.compressed += 1;
                continue;
            }
            check(place, shape.bytes(tensor.dtype), piece).unwrap();
            let said = expected(&shape, tensor.dtype, place.len);
            let found = read(piece, &shape, tensor.dtype);
            let is_row_major = Some(&found.strides) == shape.contiguous_strides().as_ref();
            let begins = said
                .and_then(|said| head(&shape, tensor.dtype, said.generation))
                .is_some_and(|head| head.begins(piece));
            let name = format!("{} {} {:?} {:?}", folder.display(), tensor.key, chunk.offsets, chunk.sizes);
            match found.generation {
                // A head is never that of anything else, whoever wrote it.
                None => {
                    assert!(!begins || said.map(|said| said.data) == Some(found.data), "{name}");
                    counts.other_writer += 1;
                }
                Some(generation) if is_row_major => {
                    assert_eq!(said, Some(Expected { generation, data: found.data }), "{name}");
                    assert!(begins, "{name}");
                    counts.row_major += 1;
                }
                Some(_) => {
                    assert!(!begins, "{name}");
                    counts.other_order += 1;
                }
            }
        }
    }
}

/// Every folder that has a `.metadata`.
fn folders(folder: &Path, found: &mut Vec<PathBuf>) {
    if folder.join(".metadata").exists() {
        found.push(folder.to_owned());
    }
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            folders(&entry, found);
        }
    }
}

#[test]
fn pieces_are_where_they_are_expected() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dist-tiny");
    let mut found = Vec::new();
    folders(&fixtures, &mut found);
    let mut counts = Counts::default();
    found.iter().for_each(|folder| walk(folder, &mut counts));
    eprintln!("{counts:?}");
    assert!(counts.row_major > 150 && counts.other_order >= 4 && counts.other_writer >= 6, "{counts:?}");
    if let Some(folder) = std::env::var_os("CKPT_FS_DIST_FIXTURES") {
        let (mut found, mut counts) = (Vec::new(), Counts::default());
        folders(Path::new(&folder), &mut found);
        found.iter().for_each(|folder| walk(folder, &mut counts));
        eprintln!("{} checkpoints: {counts:?}", found.len());
    }
}

#[test]
fn megatron_says_its_formats() {
    let path = "tests/fixtures/dist-tiny/megatron/optim/mcore0123_fsms_tp1dp2/iter_0000007/metadata.json";
    let formats =
        metadata_json::decode(&fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()).unwrap();
    assert_eq!((formats.sharded.clone(), formats.version, formats.check()), (Backend::TorchDist, 1, Ok(())));
}
