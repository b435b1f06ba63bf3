//! Reading stripes of short runs through the cache.
//!
//! Not here: what is kept and what gives way (`cache`).

use std::iter;
use std::ops::Range;
use std::sync::Arc;

use super::{Filled, ReadError, Reader, Runs, add_run, put_part};
use crate::cache::{Cache, Lookup, TILE, TileKey};
use crate::plan::{SegmentPart, Stripe};
use crate::store::Run;

/// Runs from here on are read as fast from the page cache as from a tile.
const LONG_RUN: u64 = 64 << 10;

/// Whether tiles of the stripe could be better than reading it: its runs are short, and it is no small thing.
pub(super) fn is_worth_it(stripe: &Stripe) -> bool {
    stripe.bytes() >= TILE && stripe.mean_run() < LONG_RUN
}

/// Fills `part` of the answer, which is bytes of `stripe`, or notes in `runs` what is to be read for it.
pub(super) fn read(
    reader: &Reader,
    cache: &Cache,
    stripe: &Stripe,
    part: &SegmentPart<'_>,
    out: &mut [u8],
    runs: &mut Runs,
) -> Result<(), ReadError> {
    let fingerprint = stripe.fingerprint();
    let mut at = part.within.start;
    while at < part.within.end {
        let number = at / TILE;
        let tile = number * TILE..((number + 1) * TILE).min(stripe.bytes());
        let wanted = at..part.within.end.min(tile.end);
        let to = part.to + (at - part.within.start);
        let key = TileKey { reader: reader.number, stripe: fingerprint, tile: number };
        let kept = match cache.tile(key, wanted.start == tile.start) {
            Lookup::Kept(bytes) => {
                check_sources(reader, stripe)?;
                Some(bytes)
            }
            Lookup::Wanted => {
                let bytes = assemble(reader, stripe, tile.clone())?;
                cache.keep_tile(key, Arc::clone(&bytes));
                Some(bytes)
            }
            Lookup::Passing => None,
        };
        match kept {
            Some(bytes) => {
                put_part(out, to, &bytes, wanted.start - tile.start..wanted.end - tile.start)?;
            }
            None => note(stripe, wanted.clone(), to, runs)?,
        }
        at = wanted.end;
    }
    Ok(())
}

/// Assembles what is missing of the tiles that start in bytes `within` and keeps them, read before or not, as long as nothing has to give way
/// for it. Returns the bytes that are kept.
pub(super) fn warm(
    reader: &Reader,
    cache: &Cache,
    stripe: &Stripe,
    within: Range<u64>,
) -> Result<u64, ReadError> {
    let fingerprint = stripe.fingerprint();
    let mut kept = 0;
    // A tile belongs to the range that its first byte is in, so that ranges one after the other do it once.
    for number in within.start.div_ceil(TILE)..within.end.div_ceil(TILE) {
        let tile = number * TILE..((number + 1) * TILE).min(stripe.bytes());
        let key = TileKey { reader: reader.number, stripe: fingerprint, tile: number };
        let bytes = tile.end - tile.start;
        if !matches!(cache.tile(key, false), Lookup::Kept(_)) {
            let assembled = assemble(reader, stripe, tile)?;
            if !cache.has_room(bytes) {
                continue;
            }
            cache.keep_tile(key, assembled);
        }
        kept += bytes;
    }
    Ok(kept)
}

fn assemble(reader: &Reader, stripe: &Stripe, tile: Range<u64>) -> Result<Arc<[u8]>, ReadError> {
    // Collected and then filled, so that the bytes are where they stay.
    let mut bytes: Arc<[u8]> = iter::repeat_n(0, (tile.end - tile.start) as usize).collect();
    let mut runs = Runs::new();
    note(stripe, tile.clone(), 0, &mut runs)?;
    reader.gather(&runs, Arc::get_mut(&mut bytes).ok_or(ReadError::Plan(tile))?)?;
    Ok(bytes)
}

fn note(stripe: &Stripe, wanted: Range<u64>, to: u64, runs: &mut Runs) -> Result<(), ReadError> {
    let mut filled = Filled::from(0);
    let len = wanted.end - wanted.start;
    stripe.resolve(wanted, |object, from, at, len| {
        filled.add(at, len);
        add_run(runs, object, Run { from, to: (to + at) as usize, len: len as usize });
    });
    filled.check(0..len)
}

/// Fails where the bytes would no longer be read from the source: what is kept is no reason to go on after a change.
fn check_sources(reader: &Reader, stripe: &Stripe) -> Result<(), ReadError> {
    for object in stripe.objects() {
        reader.store.check_unchanged(object)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Builder, FilePlan, Piece};
    use crate::reader::{Checksums, CrcMode};
    use crate::store::{MemoryStore, Store};

    const RUN: usize = 100;
    const STEP: usize = 300;
    const RUNS: usize = 40_000;

    /// A header, four MB in runs of 100 bytes, a footer; and what they are.
    fn file() -> (MemoryStore, FilePlan, Vec<u8>) {
        let source: Vec<u8> = (0..RUNS * STEP).map(|n| (n * 31 / 7) as u8).collect();
        let store = MemoryStore::new();
        let mut wanted = b"head".to_vec();
        wanted.extend(source.chunks(STEP).flat_map(|row| &row[7..7 + RUN]));
        wanted.extend(b"foot");
        let object = store.add("source", source).unwrap();
        let mut builder = Builder::new();
        builder.literal(b"head".as_slice());
        let piece = Piece { object, start: 7, step: STEP as u64, dims: Vec::new(), run: RUN as u64 };
        builder.stripe(Stripe::new(RUNS as u64, vec![piece]));
        builder.literal(b"foot".as_slice());
        (store, builder.finish(), wanted)
    }

    /// Reads the whole file front to back as the kernel would, and says whether all is right.
    fn pass(reader: &Reader, plan: &FilePlan, wanted: &[u8], request: usize) -> bool {
        wanted.chunks(request).enumerate().all(|(number, chunk)| {
            let mut out = vec![0xAA; chunk.len()];
            let checksums = Checksums::new(CrcMode::Zero);
            let read = reader.read(plan, &checksums, (number * request) as u64, &mut out).unwrap();
            read == chunk.len() && out == chunk
        })
    }

    #[test]
    fn what_is_read_again_comes_from_tiles_and_is_the_same() {
        for request in [1 << 20, 128 << 10, 1_500_001] {
            let (store, plan, wanted) = file();
            let cache = Arc::new(Cache::new(64 << 20, None));
            let reader = Reader::with_cache(Arc::new(store), Arc::clone(&cache));
            let kept: Vec<u64> = (0..4)
                .map(|_| {
                    assert!(pass(&reader, &plan, &wanted, request));
                    cache.stats().tile_bytes
                })
                .collect();
            assert_eq!(kept, [0, 4_000_000, 4_000_000, 4_000_000], "{request}");
            assert!(cache.stats().hits >= 8);
        }
    }

    #[test]
    fn a_small_cache_bounds_what_is_kept_and_changes_nothing() {
        let (store, plan, wanted) = file();
        let cache = Arc::new(Cache::new(2 << 20, None));
        let reader = Reader::with_cache(Arc::new(store), Arc::clone(&cache));
        assert!((0..4).all(|_| pass(&reader, &plan, &wanted, 1 << 20)));
        // One part of it again and again is worth keeping, also there.
        let checksums = Checksums::new(CrcMode::Zero);
        for _ in 0..3 {
            let mut out = vec![0; 1 << 20];
            reader.read(&plan, &checksums, 4, &mut out).unwrap();
            assert_eq!(out, wanted[4..4 + (1 << 20)]);
        }
        let stats = cache.stats();
        assert!(stats.hits > 0 && (1..=2 << 20).contains(&stats.tile_bytes), "{stats:?}");
    }

    #[test]
    fn a_warm_file_is_kept_from_the_first_read_on() {
        let (store, plan, wanted) = file();
        let cache = Arc::new(Cache::new(64 << 20, None));
        let reader = Reader::with_cache(Arc::new(store), Arc::clone(&cache));
        let steps = (0..plan.len()).step_by(1_000_000);
        let kept: u64 = steps.map(|at| reader.warm(&plan, at..at + 1_000_000).unwrap()).sum();
        assert_eq!((kept, cache.stats().tile_bytes), (4_000_000, 4_000_000));
        assert!(pass(&reader, &plan, &wanted, 1 << 20));
        assert_eq!(cache.stats().misses, 0);
    }

    #[test]
    fn warming_takes_nothing_from_what_is_kept() {
        let (store, plan, wanted) = file();
        let cache = Arc::new(Cache::new(2 << 20, None));
        let reader = Reader::with_cache(Arc::new(store), Arc::clone(&cache));
        assert_eq!(reader.warm(&plan, 0..plan.len()).unwrap(), 2 << 20);
        assert_eq!(reader.warm(&plan, 0..plan.len()).unwrap(), 2 << 20);
        let stats = cache.stats();
        assert_eq!((stats.tile_bytes, stats.evicted), (2 << 20, 0));
        assert!(pass(&reader, &plan, &wanted, 1 << 20));
    }

    #[test]
    fn what_is_kept_of_a_changed_source_is_not_served() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("source");
        let (memory, plan, wanted) = file();
        let mut source = vec![0; RUNS * STEP];
        memory.read_exact_at(crate::extent::ObjectId(0), 0, &mut source).unwrap();
        std::fs::write(&path, &source).unwrap();
        let store = crate::store::FileStore::new();
        store.add(&path).unwrap();
        let cache = Arc::new(Cache::new(64 << 20, None));
        let reader = Reader::with_cache(Arc::new(store), Arc::clone(&cache));
        assert!((0..3).all(|_| pass(&reader, &plan, &wanted, 1 << 20)));
        assert!(cache.stats().hits > 0);
        std::fs::write(&path, &source[1..]).unwrap();
        let read = reader.read(&plan, &Checksums::new(CrcMode::Zero), 4, &mut [0; 1000]);
        assert!(matches!(read, Err(ReadError::Store(crate::store::StoreError::Changed { .. }))));
        assert!(reader.check(&plan, 0..plan.len()).is_err());
    }

    #[test]
    fn what_a_stripe_does_not_have_is_not_noted() {
        let stripe = Stripe::contiguous(crate::extent::ObjectId(0), 5, 10);
        assert!(note(&stripe, 3..10, 0, &mut Runs::new()).is_ok());
        let beyond = note(&stripe, 3..11, 0, &mut Runs::new());
        assert!(matches!(&beyond, Err(ReadError::Plan(range)) if *range == (0..8)), "{beyond:?}");
    }

    #[test]
    fn long_runs_and_small_tensors_go_around_it() {
        let stripe = |rows, run| {
            let piece =
                Piece { object: crate::extent::ObjectId(0), start: 0, step: 2 * run, dims: Vec::new(), run };
            Stripe::new(rows, vec![piece])
        };
        assert!(is_worth_it(&stripe(1024, 1024)));
        assert!(!is_worth_it(&stripe(1000, 1024)));
        assert!(!is_worth_it(&stripe(1024, LONG_RUN)));
    }
}
