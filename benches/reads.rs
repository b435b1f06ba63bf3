//! What answering a read costs besides the copying: `FilePlan::resolve` alone, and the whole way through `Reader` against a plain loop of
//! copies over the same pieces.
//!
//! `cargo bench`; about a minute. Not here: anything with a kernel's file system in between (`scripts/bench`).

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use ckpt_fs::extent::ObjectId;
use ckpt_fs::plan::{Builder, FilePlan, Piece, Stripe};
use ckpt_fs::reader::{Checksums, CrcMode, Reader};
use ckpt_fs::store::{FileStore, MemoryStore, Store};
use criterion::{BenchmarkId, Criterion, Throughput};

/// What a kernel asks for at most.
const WINDOW: usize = 1 << 20;
/// One rank of this many: its pieces are this many times their length apart.
const WAYS: usize = 8;
/// Bytes of the source of a gather: more than caches hold, so that copying costs what it costs in earnest.
const SOURCE: usize = 128 << 20;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1200))
        .configure_from_args();
    resolve(&mut criterion);
    gather(&mut criterion);
    criterion.final_summary();
}

/// Places for windows in `len` bytes, multiples of `unit`: the same ones in every run.
fn places(len: u64, unit: u64) -> Vec<u64> {
    let room = (len - WINDOW as u64) / unit;
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % room * unit
    };
    (0..256).map(|_| next()).collect()
}

/// Every `WAYS`th run of `len` bytes of an object.
fn strided(object: ObjectId, run: usize, bytes: usize) -> Stripe {
    let (run, step) = (run as u64, (run * WAYS) as u64);
    Stripe::new(bytes as u64 / step, vec![Piece { object, start: 0, step, dims: Vec::new(), run }])
}

fn plan_of(stripes: impl IntoIterator<Item = Stripe>) -> FilePlan {
    let mut builder = Builder::new();
    stripes.into_iter().for_each(|stripe| builder.stripe(stripe));
    builder.finish()
}

fn resolve(criterion: &mut Criterion) {
    const BYTES: usize = 1 << 33;
    let object = ObjectId(0);
    let many = (0..4000_u64).map(|at| Stripe::contiguous(ObjectId((at % 7) as u32), at << 22, 40_000 + at));
    let plans = [
        ("contiguous", plan_of([Stripe::contiguous(object, 64, BYTES as u64)])),
        ("2 KiB pieces", plan_of([strided(object, 2 << 10, BYTES)])),
        ("4,000 segments", plan_of(many)),
    ];
    let mut group = criterion.benchmark_group("resolve 1 MiB");
    for (name, plan) in &plans {
        let mut at = places(plan.len(), 1).into_iter().cycle();
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                let at = at.next().unwrap();
                plan.resolve(at..at + WINDOW as u64, |read| {
                    black_box(read);
                });
            });
        });
    }
    group.finish();
}

/// A plain loop that copies the runs of a window, as fast as this can be done by a single thread.
fn copy_runs(source: &[u8], run: usize, at: usize, out: &mut [u8]) {
    let first = at / run;
    for (index, out) in out.chunks_exact_mut(run).enumerate() {
        let from = (first + index) * run * WAYS;
        out.copy_from_slice(&source[from..from + run]);
    }
}

fn gather(criterion: &mut Criterion) {
    let bytes: Vec<u8> = (0..SOURCE).map(|at| (at % 251) as u8).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let (memory, files) = (MemoryStore::new(), FileStore::new());
    let object = memory.add("source", bytes.clone()).unwrap();
    assert_eq!(files.add(file.path()).unwrap(), object, "both stores count from 0");
    let stores: [(&str, Arc<dyn Store>); 2] = [("memory", Arc::new(memory)), ("file", Arc::new(files))];
    let checksums = Checksums::new(CrcMode::Zero);
    let mut out = vec![0; WINDOW];
    let mut group = criterion.benchmark_group("gather 1 MiB");
    group.throughput(Throughput::Bytes(WINDOW as u64));
    for run in [2 << 10, 8 << 10, 64 << 10, WINDOW] {
        let plan = plan_of([strided(object, run, SOURCE)]);
        let pieces = format!("{} of {} KiB", WINDOW / run, run >> 10);
        let places = places(plan.len(), run as u64);
        let mut at = places.iter().copied().cycle();
        group.bench_function(BenchmarkId::new("plain copy", &pieces), |bencher| {
            bencher.iter(|| copy_runs(&bytes, run, at.next().unwrap() as usize, black_box(&mut out)));
        });
        for (name, store) in &stores {
            let reader = Reader::new(Arc::clone(store));
            let mut at = places.iter().copied().cycle();
            group.bench_function(BenchmarkId::new(*name, &pieces), |bencher| {
                bencher.iter(|| {
                    reader.read(&plan, &checksums, at.next().unwrap(), black_box(&mut out)).unwrap()
                });
            });
        }
    }
    group.finish();
}
