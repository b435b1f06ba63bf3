//! Files around the borders of blocks and pages, and all ways in which writing one ends early.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::*;
use crate::plan::{Builder, Dim, Piece, Stripe};
use crate::store::MemoryStore;

/// Whether files go past the page cache, where that is possible here.
const WAYS: [bool; 2] = [true, false];

/// A reader of one object, and a file of `len` bytes made of it: every second 3000 bytes, with a sum of all before near the end where
/// there is room.
fn case(len: usize) -> (Reader, FilePlan, Vec<u8>) {
    let source: Vec<u8> = (0..2 * len + 6000).map(|at| (at * 7 % 253) as u8).collect();
    let tail = if len >= 16 { 16 } else { 0 };
    let runs = (len - tail) / 3000;
    let mut wanted: Vec<u8> =
        source.chunks(6000).take(runs).flat_map(|chunk| chunk[..3000].to_vec()).collect();
    let store = MemoryStore::new();
    let object = store.add("source", source).unwrap();
    let mut builder = Builder::new();
    if runs > 0 {
        let dims = vec![Dim { count: runs as u64, step: 6000 }];
        let whole = runs as u64 * 3000;
        builder.stripe(Stripe::new(1, vec![Piece { object, start: 0, step: whole, dims, run: 3000 }]));
    }
    if tail > 0 {
        builder.crc32(0..wanted.len() as u64);
        wanted.extend(crc32fast::hash(&wanted).to_le_bytes());
    }
    builder.literal(vec![9; len - wanted.len()]);
    wanted.resize(len, 9);
    (Reader::new(Arc::new(store)), builder.finish(), wanted)
}

/// A plan whose second block lies outside the source.
fn broken() -> (Reader, FilePlan) {
    let store = MemoryStore::new();
    let object = store.add("short", vec![1; BLOCK]).unwrap();
    let mut builder = Builder::new();
    let run = 2 * BLOCK as u64;
    builder.stripe(Stripe::new(1, vec![Piece { object, start: 0, step: run, dims: Vec::new(), run }]));
    (Reader::new(Arc::new(store)), builder.finish())
}

fn writing<'a>(reader: &'a Reader, stop: &'a (dyn Fn() -> bool + Sync)) -> Writing<'a> {
    Writing { reader, crc: CrcMode::Exact, resume: false, written: &|_| {}, stop }
}

fn output(path: &Path, direct: bool) -> Output {
    let mut output = Output::create(path).unwrap();
    if !direct {
        output.leave_direct().unwrap();
    }
    output
}

#[test]
fn files_of_any_length_are_whole_either_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut buffers = Buffers::new();
    let lengths =
        [0, 1, 4095, 4096, 4097, BLOCK - 4096, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 4096, 3 * BLOCK + 5];
    for len in lengths {
        let (reader, plan, wanted) = case(len);
        assert_eq!(plan.len(), len as u64);
        for direct in WAYS {
            let path = dir.path().join(format!("{len}-{direct}"));
            let told = AtomicU64::new(0);
            let written = |bytes| _ = told.fetch_add(bytes, Ordering::Relaxed);
            let writing = Writing { written: &written, ..writing(&reader, &|| false) };
            writing.output(&plan, output(&path, direct), &mut buffers).unwrap();
            assert!(fs::read(&path).unwrap() == wanted, "{len} {direct}");
            assert_eq!(told.into_inner(), len as u64);
            assert_eq!(buffers.0.len(), BUFFERS, "all come back");
        }
    }
}

#[test]
fn a_file_that_exists_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "precious").unwrap();
    let (reader, plan, _) = case(10);
    let error = writing(&reader, &|| false).file(&plan, &path, &mut Buffers::new()).unwrap_err();
    assert!(error.to_string().contains("cannot create"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

/// Whatever a run left behind in a file, the next one ends with the right bytes, and writes only what is not so already.
#[test]
fn what_a_run_left_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let (reader, plan, wanted) = case(2 * BLOCK + 4096 + 5);
    let changed = |at: usize| {
        let mut bytes = wanted.clone();
        bytes[at] ^= 1;
        bytes
    };
    let longer = [&wanted[..], b"more"].concat();
    let half = [&wanted[..BLOCK + 77], &vec![0; BLOCK]].concat();
    let lefts = [vec![], wanted.clone(), longer, half, changed(0), changed(BLOCK), changed(wanted.len() - 1)];
    for left in lefts {
        fs::write(&path, &left).unwrap();
        resuming_at(&reader, &plan, &path).unwrap();
        assert!(fs::read(&path).unwrap() == wanted);
    }
    let written = || fs::metadata(&path).unwrap().modified().unwrap();
    let before = written();
    resuming_at(&reader, &plan, &path).unwrap();
    assert!(fs::read(&path).unwrap() == wanted);
    assert_eq!(written(), before);
    std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
    assert!(resuming_at(&reader, &plan, &dir.path().join("link")).is_err(), "a link could lead anywhere");
    fs::remove_file(&path).unwrap();
    resuming_at(&reader, &plan, &path).unwrap();
    assert!(fs::read(&path).unwrap() == wanted);
}

fn resuming_at(reader: &Reader, plan: &FilePlan, path: &Path) -> Result<(), MaterializeError> {
    Writing { resume: true, ..writing(reader, &|| false) }.file(plan, path, &mut Buffers::new())
}

#[test]
fn it_stops_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, plan, wanted) = case(4 * BLOCK);
    for direct in WAYS {
        for asked in [0, 1, 3, 7] {
            let path = dir.path().join(format!("{asked}-{direct}"));
            let times = AtomicUsize::new(0);
            let stop = || times.fetch_add(1, Ordering::Relaxed) >= asked;
            let error = writing(&reader, &stop)
                .output(&plan, output(&path, direct), &mut Buffers::new())
                .unwrap_err();
            assert!(matches!(error, MaterializeError::Stopped), "{error}");
            assert!(fs::metadata(&path).unwrap().len() < wanted.len() as u64);
            fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn an_error_of_the_writer_ends_filling_and_is_what_the_caller_sees() {
    let path = Path::new("/dev/full");
    let (reader, plan, wanted) = case(4 * BLOCK);
    let mut buffers = Buffers::new();
    let output = Output::new(File::options().write(true).open(path).unwrap(), path);
    let error = writing(&reader, &|| false).output(&plan, output, &mut buffers).unwrap_err();
    assert!(error.to_string().starts_with("cannot write /dev/full: No space left"), "{error}");
    // Buffers that were lost with it are made again.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    writing(&reader, &|| false).file(&plan, &path, &mut buffers).unwrap();
    assert!(fs::read(&path).unwrap() == wanted);
}

#[test]
fn an_error_of_the_source_ends_writing_and_is_what_the_caller_sees() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, plan) = broken();
    for direct in WAYS {
        let path = dir.path().join(format!("{direct}"));
        let error = writing(&reader, &|| false)
            .output(&plan, output(&path, direct), &mut Buffers::new())
            .unwrap_err();
        assert!(matches!(error, MaterializeError::Read(_)), "{error}");
    }
}
