//! What opening costs on storage that is far away: how often a file is asked for, and how many files are under way at once.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex};

use super::*;
use crate::extent::ObjectId;
use crate::store::{MemoryStore, Run, Store, StoreError};
use crate::value::Value;

/// Files as torch wrote them; larger than the end that is read first, so that what is not read again is not there by chance.
const TORCH: [&str; 3] = [
    "gpt-tiny/pp1_tp1_f16/iter_0000100/mp_rank_00/model_optim_rng.pt",
    "mcore-tiny/tied/tp1pp1_plain/iter_0000002/mp_rank_00/model_optim_rng.pt",
    "megatron-tiny/untied/dist_tp1pp2_first3/iter_0000005/mp_rank_00_001/model_optim_rng.pt",
];

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

/// Counts what it is asked for; reads wait until as many are under way as should be.
#[derive(Default)]
struct Watched {
    store: MemoryStore,
    reads: AtomicUsize,
    looks: AtomicUsize,
    /// Reads that must be under way before any is answered.
    consistent: usize,
    waiting: Mutex<usize>,
    met: Condvar,
}

impl Watched {
    fn counts(&self) -> (usize, usize) {
        (self.reads.swap(0, Relaxed), self.looks.swap(0, Relaxed))
    }

    fn meet(&self) {
        let mut waiting = self.waiting.lock();
        *waiting += 1;
        self.met.notify_all();
        while *waiting < self.consistent {
            // Only a failing test comes to the end of this.
            let late = self.met.wait_for(&mut waiting, Duration::from_secs(60)).timed_out();
            assert!(!late, "{} reads are under way, not {}", *waiting, self.consistent);
        }
    }
}

impl Store for Watched {
    fn name(&self, object: ObjectId) -> String {
        self.store.name(object)
    }

    fn len(&self, object: ObjectId) -> Result<u64, StoreError> {
        self.store.len(object)
    }

    fn modified(&self, object: ObjectId) -> Result<SystemTime, StoreError> {
        self.store.modified(object)
    }

    fn gather(&self, object: ObjectId, runs: &[Run], out: &mut [u8]) -> Result<(), StoreError> {
        // As a file does: a look before, one after.
        self.looks.fetch_add(2, Relaxed);
        self.reads.fetch_add(runs.len(), Relaxed);
        self.store.gather(object, runs, out)
    }

    fn read_unchecked(&self, object: ObjectId, offset: u64, out: &mut [u8]) -> Result<(), StoreError> {
        self.reads.fetch_add(1, Relaxed);
        self.meet();
        self.store.read_unchecked(object, offset, out)
    }

    fn check_unchanged(&self, object: ObjectId) -> Result<(), StoreError> {
        self.looks.fetch_add(1, Relaxed);
        self.store.check_unchanged(object)
    }
}

fn whole(tree: &Value) -> (Value, Vec<String>) {
    (tree.clone(), Vec::new())
}

#[test]
fn a_torch_file_is_read_twice_and_looked_at_once() {
    for name in TORCH {
        let store = Watched::default();
        let object = store.store.add(name, fixture(name)).unwrap();
        let read = torch_file::read(object, &store, whole).unwrap();
        assert!(read.storages.len() > 20, "{name} has tensors to be found");
        assert_eq!(store.counts(), (2, 1), "{name}: reads, looks");
    }
}

#[test]
fn a_file_that_torch_did_not_lay_out_has_its_local_headers_read() {
    for name in TORCH {
        let store = Watched::default();
        let bytes = fixture(name);
        let object = store.store.add(name, bytes.clone()).unwrap();
        let read = torch_file::read(object, &store, whole).unwrap();
        store.counts();
        // One entry no longer says that its sizes follow the data: it is read all the same.
        let mut other = bytes;
        let directory = other.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
        other[directory + 8] &= !8;
        let again = store.store.add(name, other).unwrap();
        let again = torch_file::read(again, &store, whole).unwrap();
        let (reads, looks) = store.counts();
        assert!(reads > read.storages.len() / 2, "{name}: {reads} reads");
        assert_eq!(looks, 1, "{name}");
        for (key, record) in &read.storages {
            let (a, b) = (record.extent, again.storages[key].extent);
            assert_eq!((a.offset, a.len), (b.offset, b.len), "{name}: {key}");
        }
    }
}

#[test]
fn a_safetensors_header_is_read_once() {
    for (tensors, reads) in [(1, 1), (400, 1), (2000, 2)] {
        let header: Vec<String> = (0..tensors)
            .map(|at| {
                format!(
                    r#""layers.{at}.weight":{{"dtype":"U8","shape":[1],"data_offsets":[{at},{}]}}"#,
                    at + 1
                )
            })
            .collect();
        let header = format!("{{{}}}", header.join(","));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; tensors]);
        let store = Watched::default();
        let object = store.store.add("model.safetensors", bytes).unwrap();
        assert_eq!(hf::header(object, &store).unwrap().tensors.len(), tensors);
        assert_eq!(store.counts(), (reads, 1), "{tensors} tensors: reads, looks");
    }
}

/// No read is answered before one of every file is under way.
#[test]
fn hundreds_of_files_are_under_way_at_once() {
    const FILES: usize = 200;
    let store = Watched { consistent: FILES, ..Watched::default() };
    let bytes = fixture("pt/kinds.pt");
    let objects: Vec<_> =
        (0..FILES).map(|at| store.store.add(at.to_string(), bytes.clone()).unwrap()).collect();
    let read = in_parallel(&objects, |object| torch_file::read(*object, &store, whole)).unwrap();
    let names: Vec<_> = read.into_iter().map(|file| file.name).collect();
    assert_eq!(names, (0..FILES).map(|at| at.to_string()).collect::<Vec<_>>(), "in the order of the files");
    assert_eq!(store.counts(), (FILES, FILES), "a small file is read once");
}
