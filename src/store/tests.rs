//! What every store promises, run on each; and what happens to files that change.

mod changes;
mod conformance;

use std::path::Path;

use super::*;
use conformance::{Sample, conformance};

/// Bytes that differ from offset to offset, none of them zero.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 + 1).collect()
}

/// Sizes around everything that could be a boundary: nothing, a page, the longest mapped run.
const SIZES: [usize; 8] = [0, 1, 4095, 4096, 4097, 65_535, 65_536, 300_001];

#[test]
fn files_conform() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new();
    let samples: Vec<Sample> = SIZES
        .iter()
        .map(|&size| {
            let path = dir.path().join(format!("{size}.bin"));
            std::fs::write(&path, pattern(size)).unwrap();
            let object = store.add(&path).unwrap();
            Sample { object, name: path.display().to_string(), bytes: pattern(size) }
        })
        .collect();
    conformance(&store, &samples);
}

#[test]
fn memory_conforms() {
    let store = MemoryStore::new();
    let samples: Vec<Sample> = SIZES
        .iter()
        .map(|&size| {
            let object = store.add(format!("{size}"), pattern(size)).unwrap();
            Sample { object, name: format!("{size}"), bytes: pattern(size) }
        })
        .collect();
    conformance(&store, &samples);
}

#[test]
fn what_cannot_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new();
    let add = |path: &Path| store.add(path).unwrap_err();
    let message = |error: StoreError| error.to_string();

    let missing = dir.path().join("missing");
    assert!(matches!(add(&missing), StoreError::NotFound { .. }));
    assert!(matches!(add(&missing.join("deeper")), StoreError::NotFound { .. }));
    let error = add(dir.path());
    assert!(matches!(error, StoreError::NotARegularFile { what: "directory", .. }));
    assert!(message(error).contains(&dir.path().display().to_string()));
    assert!(matches!(add(Path::new("/dev/null")), StoreError::NotARegularFile { what: "device", .. }));

    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(matches!(add(&pipe), StoreError::NotARegularFile { what: "pipe", .. }));
}

#[test]
fn running_out_of_files_says_so() {
    let error = StoreError::opening(Path::new("some/file"), std::io::Error::from_raw_os_error(libc::EMFILE));
    assert!(error.to_string().starts_with("some/file: too many open files (limit "), "{error}");
    assert!(error.to_string().contains("ulimit -n"), "{error}");
}
