//! What the reader asks of the store: each source byte once, each checksum once, and nothing after an error.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use ckpt_fs::extent::ObjectId;
use ckpt_fs::plan::{Builder, FilePlan, Stripe};
use ckpt_fs::reader::{BLOCK, Checksums, CrcMode, ReadError, Reader};
use ckpt_fs::store::{MemoryStore, Run, Store, StoreError};

/// A store that notes what is asked of it.
#[derive(Default)]
struct Noting {
    inner: MemoryStore,
    read: Mutex<Vec<(u32, u64, usize)>>,
    checked: Mutex<Vec<u32>>,
}

impl Noting {
    /// What was read since this was last asked.
    fn reads(&self) -> Vec<(u32, u64, usize)> {
        std::mem::take(&mut self.read.lock().unwrap())
    }
}

impl Store for Noting {
    fn name(&self, object: ObjectId) -> String {
        self.inner.name(object)
    }

    fn len(&self, object: ObjectId) -> Result<u64, StoreError> {
        self.inner.len(object)
    }

    fn modified(&self, object: ObjectId) -> Result<SystemTime, StoreError> {
        self.inner.modified(object)
    }

    fn gather(&self, object: ObjectId, runs: &[Run], out: &mut [u8]) -> Result<(), StoreError> {
        self.read.lock().unwrap().extend(runs.iter().map(|run| (object.0, run.from, run.len)));
        self.inner.gather(object, runs, out)
    }

    fn read_unchecked(&self, object: ObjectId, offset: u64, out: &mut [u8]) -> Result<(), StoreError> {
        self.inner.read_unchecked(object, offset, out)
    }

    fn check_unchanged(&self, object: ObjectId) -> Result<(), StoreError> {
        self.checked.lock().unwrap().push(object.0);
        self.inner.check_unchanged(object)
    }
}

fn noting(objects: &[usize]) -> (Arc<Noting>, Reader) {
    let store = Noting::default();
    for (number, len) in objects.iter().enumerate() {
        store.inner.add("object", (0..*len).map(|at| (at * 7 + number) as u8).collect::<Vec<_>>()).unwrap();
    }
    let store = Arc::new(store);
    (Arc::clone(&store), Reader::new(store))
}

fn planned(build: impl FnOnce(&mut Builder)) -> FilePlan {
    let mut builder = Builder::new();
    build(&mut builder);
    builder.finish()
}

fn run(object: u32, start: u64, len: u64) -> Stripe {
    Stripe::contiguous(ObjectId(object), start, len)
}

#[test]
fn a_range_is_checked_by_the_objects_it_is_of() {
    let (store, reader) = noting(&[50, 50, 50]);
    let plan = planned(|builder| {
        builder.stripe(run(0, 0, 10));
        builder.zero(5);
        builder.stripe(run(2, 0, 10));
        builder.stripe(run(1, 0, 10));
        builder.stripe(run(2, 20, 10));
    });
    let checked = |range| {
        reader.check(&plan, range).unwrap();
        std::mem::take(&mut *store.checked.lock().unwrap())
    };
    assert_eq!(checked(0..45), [0, 1, 2]);
    assert_eq!(checked(9..16), [0, 2]);
    assert_eq!(checked(10..15), [0; 0]);
    assert!(store.reads().is_empty());
    let missing = planned(|builder| builder.stripe(run(9, 0, 10)));
    assert!(matches!(reader.check(&missing, 0..1), Err(ReadError::Store(StoreError::Unknown(_)))));
}

#[test]
fn warming_reads_the_source_once_block_by_block() {
    let long = 2 * BLOCK + 1000;
    let (store, reader) = noting(&[long, 40]);
    let plan = planned(|builder| {
        builder.literal(b"head".as_slice());
        builder.stripe(run(0, 0, long as u64));
        builder.zero(7);
        builder.stripe(run(1, 3, 20));
    });
    assert_eq!(reader.warm(&plan, 0..plan.len()).unwrap(), 0);
    let block = BLOCK as u64;
    assert_eq!(store.reads(), [(0, 0, BLOCK), (0, block, BLOCK), (0, 2 * block, 1000), (1, 3, 20)]);
    assert_eq!(reader.warm(&plan, 10..20).unwrap(), 0);
    assert_eq!(store.reads(), [(0, 6, 10)]);
    assert_eq!(reader.warm(&plan, 0..4).unwrap(), 0);
    assert!(store.reads().is_empty());
}

#[test]
fn a_checksum_is_made_once_of_all_its_bytes() {
    let long = BLOCK + 1000;
    let (store, reader) = noting(&[long]);
    let plan = planned(|builder| {
        builder.literal(b"head".as_slice());
        builder.stripe(run(0, 0, long as u64));
        builder.crc32(2..4 + long as u64);
    });
    let mut bytes = b"ad".to_vec();
    bytes.extend((0..long).map(|at| (at * 7) as u8));
    let crc = |checksums: &Checksums| {
        let mut out = [0; 4];
        assert_eq!(reader.read(&plan, checksums, 4 + long as u64, &mut out).unwrap(), 4);
        u32::from_le_bytes(out)
    };
    let exact = Checksums::new(CrcMode::Exact);
    assert_eq!(crc(&exact), crc32fast::hash(&bytes));
    assert_eq!(store.reads().iter().map(|(_, _, len)| len).sum::<usize>(), long);
    assert_eq!((crc(&exact), store.reads()), (crc32fast::hash(&bytes), vec![]));
    let noted = Checksums::new(CrcMode::Exact);
    noted.note(2..4 + long as u64, 77);
    assert_eq!((crc(&noted), store.reads()), (77, vec![]));
    let zero = Checksums::new(CrcMode::Zero);
    assert_eq!((crc(&zero), store.reads()), (0, vec![]));
    // A sum of what the file does not have is none.
    let beyond = planned(|builder| builder.crc32(10..20));
    let refused = reader.read(&beyond, &exact, 0, &mut [0; 4]);
    assert!(matches!(refused, Err(ReadError::Plan(range)) if range == (10..20)));
}

#[test]
fn an_error_leaves_nothing_to_the_next_read() {
    let (store, reader) = noting(&[50]);
    let (bad, good) = (planned(|b| b.stripe(run(0, 45, 10))), planned(|b| b.stripe(run(0, 5, 10))));
    let none = Checksums::default();
    let mut out = [0; 10];
    assert!(matches!(
        reader.read(&bad, &none, 0, &mut out),
        Err(ReadError::Store(StoreError::OutOfRange { .. }))
    ));
    store.reads();
    assert_eq!(reader.read(&good, &none, 0, &mut out).unwrap(), 10);
    assert_eq!((store.reads(), out[0]), (vec![(0, 5, 10)], 35));
    // Past the end there is nothing to read, and the buffer is not touched.
    out = [9; 10];
    assert_eq!((reader.read(&good, &none, 8, &mut out).unwrap(), out[2]), (2, 9));
    assert_eq!(
        (reader.read(&good, &none, 10, &mut out).unwrap(), reader.read(&good, &none, 99, &mut out).unwrap()),
        (0, 0)
    );
}
