//! Answers reads of planned files: resolves the plan, gathers from the store.
//!
//! Not here: which files there are (`view`), who asks (`vfs`, `materialize`, `verify`). Holds no lock while it reads.

#![deny(clippy::disallowed_methods)]

mod checksum;
mod plans;
mod sums;
mod tiles;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use checksum::{Checksums, CrcMode};
pub use plans::Plans;
pub use sums::Sums;

use crate::cache::Cache;
use crate::extent::ObjectId;
use crate::plan::{FilePlan, Read, Segment, SegmentPart};
use crate::store::{Run, Store, StoreError};

/// Why bytes of a planned file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A plan that does not describe the range: never for a plan that was built.
    #[error("the plan of the file does not cover bytes {} to {}; this is a bug", .0.start, .0.end)]
    Plan(Range<u64>),
}

/// Reads planned files from a store.
#[derive(Clone)]
pub struct Reader {
    store: Arc<dyn Store>,
    cache: Option<Arc<Cache>>,
    /// Bytes read from the store so far, also by copies of this reader.
    source_bytes: Arc<AtomicU64>,
    /// Told from others that share the cache: a number in one store is another object in the next.
    number: u64,
}

/// Readers so far.
static READERS: AtomicU64 = AtomicU64::new(0);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

/// Reads of one object within one answer.
type Runs = Vec<(ObjectId, Vec<Run>)>;

thread_local! {
    /// Kept between answers, so that a read allocates nothing.
    static RUNS: RefCell<Runs> = const { RefCell::new(Vec::new()) };
}

/// Bytes that are summed or compared at a time.
pub const BLOCK: usize = 4 << 20;

impl Reader {
    /// A reader of files planned over `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, cache: None, source_bytes: Arc::default(), number: READERS.fetch_add(1, Relaxed) }
    }

    /// A reader that keeps in `cache` what is worth it.
    #[must_use]
    pub fn with_cache(store: Arc<dyn Store>, cache: Arc<Cache>) -> Self {
        Self { cache: Some(cache).filter(|cache| cache.is_on()), ..Self::new(store) }
    }

    /// The same, whose bytes from the store are added to `bytes`.
    #[must_use]
    pub fn counting(self, bytes: Arc<AtomicU64>) -> Self {
        Self { source_bytes: bytes, ..self }
    }

    /// What it reads from.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Fills `out` with the file's bytes from `offset` on; returns how many there were before its end.
    ///
    /// # Errors
    /// [`ReadError`]; `out` then holds nothing of value.
    pub fn read(
        &self,
        plan: &FilePlan,
        checksums: &Checksums,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, ReadError> {
        let len = plan.len().saturating_sub(offset).min(out.len() as u64);
        let out = out.get_mut(..len as usize).ok_or(ReadError::Plan(offset..offset + len))?;
        let mut runs = RUNS.take();
        let result = self.fill(plan, checksums, offset..offset + len, out, &mut runs);
        runs.iter_mut().for_each(|(_, runs)| runs.clear());
        RUNS.set(runs);
        result.map(|()| len as usize)
    }

    /// A reader of the same files that keeps nothing.
    #[must_use]
    pub fn without_cache(&self) -> Self {
        Self { cache: None, ..self.clone() }
    }

    /// Fails where a source of bytes `range` of the file is no longer what was opened.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn check(&self, plan: &FilePlan, range: Range<u64>) -> Result<(), ReadError> {
        let mut objects = BTreeSet::new();
        for part in plan.parts(range) {
            if let Segment::Stripe(stripe) = part.segment {
                objects.extend(stripe.objects());
            }
        }
        objects.into_iter().try_for_each(|object| Ok(self.store.check_unchanged(object)?))
    }

    /// Makes later reads of bytes `range` fast: keeps what the cache is for, and reads the rest once, for the system to keep. Returns the
    /// bytes that the cache holds now.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn warm(&self, plan: &FilePlan, range: Range<u64>) -> Result<u64, ReadError> {
        let plain = self.without_cache();
        let mut buffer = Vec::new();
        let mut kept = 0;
        for part in plan.parts(range.clone()) {
            if let (Segment::Stripe(stripe), Some(cache)) = (part.segment, &self.cache)
                && tiles::is_worth_it(stripe)
            {
                kept += tiles::warm(self, cache, stripe, part.within)?;
                continue;
            }
            let mut at = range.start + part.to;
            let end = at + (part.within.end - part.within.start);
            while at < end && matches!(part.segment, Segment::Stripe(_)) {
                buffer.resize(BLOCK.min((end - at) as usize), 0);
                at += plain.read(plan, &Checksums::new(CrcMode::Zero), at, &mut buffer)? as u64;
            }
        }
        Ok(kept)
    }

    fn fill(
        &self,
        plan: &FilePlan,
        checksums: &Checksums,
        range: Range<u64>,
        out: &mut [u8],
        runs: &mut Runs,
    ) -> Result<(), ReadError> {
        let mut filled = Filled::from(0);
        for part in plan.parts(range.clone()) {
            filled.add(part.to, part.within.end - part.within.start);
            if let (Segment::Stripe(stripe), Some(cache)) = (part.segment, &self.cache)
                && tiles::is_worth_it(stripe)
            {
                tiles::read(self, cache, stripe, &part, out, runs)?;
            } else {
                self.fill_part(plan, checksums, part, out, runs)?;
            }
        }
        filled.check(0..range.end - range.start)?;
        self.gather(runs, out)
    }

    /// Fills a part of the answer, or notes what is to be read for it.
    fn fill_part(
        &self,
        plan: &FilePlan,
        checksums: &Checksums,
        part: SegmentPart<'_>,
        out: &mut [u8],
        runs: &mut Runs,
    ) -> Result<(), ReadError> {
        let mut result = Ok(());
        let range = part.to..part.to + (part.within.end - part.within.start);
        let mut filled = Filled::from(range.start);
        part.resolve(&mut |read| {
            let done = match read {
                Read::Copy { object, from, to, len } => {
                    filled.add(to, len);
                    add_run(runs, object, Run { from, to: to as usize, len: len as usize });
                    Ok(())
                }
                Read::Literal { bytes, to } => {
                    filled.add(to, bytes.len() as u64);
                    put(out, to, bytes)
                }
                Read::Zero { to, len } => {
                    filled.add(to, len);
                    zero(out, to, len)
                }
                Read::Crc32 { of, part, to } => {
                    filled.add(to, part.end - part.start);
                    checksums.get(self, plan, of).and_then(|crc| put_part(out, to, &crc.to_le_bytes(), part))
                }
            };
            if result.is_ok() {
                result = done;
            }
        });
        result.and_then(|()| filled.check(range))
    }

    /// Reads what was noted.
    fn gather(&self, runs: &Runs, out: &mut [u8]) -> Result<(), ReadError> {
        for (object, runs) in runs.iter().filter(|(_, runs)| !runs.is_empty()) {
            self.store.gather(*object, runs, out)?;
            let bytes: usize = runs.iter().map(|run| run.len).sum();
            self.source_bytes.fetch_add(bytes as u64, Relaxed);
        }
        Ok(())
    }
}

/// How far an answer is described, from its first byte on: what is skipped or described twice would be bytes of something else.
struct Filled {
    end: u64,
    is_gapless: bool,
}

impl Filled {
    fn from(start: u64) -> Self {
        Self { end: start, is_gapless: true }
    }

    /// So many bytes from `to` on are described, which must follow those before.
    fn add(&mut self, to: u64, len: u64) {
        self.is_gapless &= to == self.end;
        self.end += len;
    }

    /// Whether that was all of `range`, which begins where this began.
    fn check(&self, range: Range<u64>) -> Result<(), ReadError> {
        if self.is_gapless && self.end == range.end { Ok(()) } else { Err(ReadError::Plan(range)) }
    }
}

/// A read of another object goes to a list of its own; objects are few in one answer.
fn add_run(all: &mut Runs, object: ObjectId, run: Run) {
    if let Some((_, runs)) = all.iter_mut().find(|(known, _)| *known == object) {
        runs.push(run);
    } else if let Some((slot, runs)) = all.iter_mut().find(|(_, runs)| runs.is_empty()) {
        *slot = object;
        runs.push(run);
    } else {
        all.push((object, vec![run]));
    }
}

fn put(out: &mut [u8], to: u64, bytes: &[u8]) -> Result<(), ReadError> {
    let end = to + bytes.len() as u64;
    let slot = out.get_mut(to as usize..end as usize).ok_or(ReadError::Plan(to..end))?;
    slot.copy_from_slice(bytes);
    Ok(())
}

/// Puts bytes `part` of `bytes` in their place.
fn put_part(out: &mut [u8], to: u64, bytes: &[u8], part: Range<u64>) -> Result<(), ReadError> {
    let bytes = bytes.get(part.start as usize..part.end as usize).ok_or(ReadError::Plan(part))?;
    put(out, to, bytes)
}

fn zero(out: &mut [u8], to: u64, len: u64) -> Result<(), ReadError> {
    let slot = out.get_mut(to as usize..(to + len) as usize).ok_or(ReadError::Plan(to..to + len))?;
    slot.fill(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Builder, Dim, Piece, Stripe};
    use crate::store::MemoryStore;

    #[test]
    fn bytes_of_several_objects_literals_zeros_and_checksums_come_together() {
        let store = MemoryStore::new();
        let a = store.add("a", (0..100).collect::<Vec<u8>>()).unwrap();
        let b = store.add("b", (100..200).collect::<Vec<u8>>()).unwrap();
        let mut builder = Builder::new();
        builder.literal(b"ab".as_slice());
        let dims = vec![Dim { count: 2, step: 4 }];
        let piece = |object, start| Piece { object, start, step: 10, dims: dims.clone(), run: 2 };
        builder.stripe(Stripe::new(2, vec![piece(a, 0), piece(b, 50)]));
        builder.zero(3);
        builder.crc32(0..21);
        let plan = builder.finish();
        let mut wanted = b"ab".to_vec();
        wanted.extend([0, 1, 4, 5, 150, 151, 154, 155, 10, 11, 14, 15, 160, 161, 164, 165, 0, 0, 0]);
        wanted.extend(crc32fast::hash(&wanted).to_le_bytes());
        let reader = Reader::new(Arc::new(store));
        let checksums = Checksums::new(CrcMode::Exact);
        for start in 0..wanted.len() {
            for end in start..wanted.len() + 3 {
                let mut out = vec![0xAA; end - start];
                let len = reader.read(&plan, &checksums, start as u64, &mut out).unwrap();
                assert_eq!(&out[..len], &wanted[start..end.min(wanted.len())], "{start}..{end}");
            }
        }
        let mut out = [0xAA; 4];
        let zero = Checksums::new(CrcMode::Zero);
        assert_eq!(reader.read(&plan, &zero, 21, &mut out).unwrap(), 4);
        assert_eq!(out, [0; 4]);
        assert_eq!(reader.read(&plan, &zero, 99, &mut out).unwrap(), 0);
    }

    #[test]
    fn a_plan_with_gaps_is_not_followed() {
        let reader = Reader::new(Arc::new(MemoryStore::new()));
        let read = |starts: [u64; 2], len: u64| {
            let segments = [b"ab", b"cd"].map(|bytes| Segment::Literal(bytes.as_slice().into()));
            let plan = FilePlan::flawed(starts.into_iter().zip(segments).collect(), len);
            let mut out = vec![0xAA; len as usize];
            reader.read(&plan, &Checksums::default(), 0, &mut out).map(|_| out)
        };
        assert_eq!(read([0, 2], 4).unwrap(), b"abcd");
        for (starts, len) in [([0, 3], 5), ([0, 1], 3), ([1, 3], 5), ([0, 2], 5)] {
            let refused = read(starts, len);
            assert!(matches!(&refused, Err(ReadError::Plan(range)) if *range == (0..len)), "{refused:?}");
        }
    }

    #[test]
    fn an_answer_with_gaps_or_twice_the_same_is_none() {
        let check = |parts: &[(u64, u64)], range: Range<u64>| {
            let mut filled = Filled::from(range.start);
            parts.iter().for_each(|(to, len)| filled.add(*to, *len));
            filled.check(range).is_ok()
        };
        assert!(check(&[(3, 4), (7, 1), (8, 0)], 3..8) && check(&[], 5..5));
        for wrong in [
            &[(3, 4)][..],
            &[(3, 4), (8, 0)],
            &[(3, 4), (6, 2)],
            &[(4, 4)],
            &[(3, 6)],
            &[(7, 1), (3, 4)],
            &[],
        ] {
            assert!(!check(wrong, 3..8), "{wrong:?}");
        }
        assert!(put_part(&mut [0; 4], 0, &[1, 2, 3, 4], 2..5).is_err());
        assert!(put_part(&mut [0; 4], 3, &[1, 2, 3, 4], 2..4).is_err());
        assert!(matches!(zero(&mut [0; 4], 3, 2), Err(ReadError::Plan(range)) if range == (3..5)));
    }
}
