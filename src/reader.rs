//! Answers reads of planned files: resolves the plan, gathers from the store.
//!
//! Not here: which files there are (`view`), who asks (`vfs`, `materialize`). Holds no lock while it reads.

mod checksum;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

pub use checksum::{Checksums, CrcMode};

use crate::extent::ObjectId;
use crate::plan::{FilePlan, Read};
use crate::store::{Run, Store, StoreError};

/// Why bytes of a planned file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A plan that does not describe the range: never for a plan that was built.
    #[error("the plan of the file does not cover bytes {} to {}", .0.start, .0.end)]
    Plan(Range<u64>),
}

/// Reads planned files from a store.
#[derive(Clone)]
pub struct Reader {
    store: Arc<dyn Store>,
}

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
        Self { store }
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
        // No longer than the buffer, so it fits.
        let out = out.get_mut(..len as usize).unwrap_or_default();
        let mut runs = RUNS.take();
        let result = self.fill(plan, checksums, offset..offset + len, out, &mut runs);
        runs.iter_mut().for_each(|(_, runs)| runs.clear());
        RUNS.set(runs);
        result.map(|()| len as usize)
    }

    fn fill(
        &self,
        plan: &FilePlan,
        checksums: &Checksums,
        range: Range<u64>,
        out: &mut [u8],
        runs: &mut Runs,
    ) -> Result<(), ReadError> {
        let mut filled = 0;
        let mut failed = None;
        plan.resolve(range.clone(), |read| {
            if failed.is_some() {
                return;
            }
            let done = match read {
                Read::Copy { object, from, to, len } => {
                    add_run(runs, object, Run { from, to: to as usize, len: len as usize });
                    Ok(len)
                }
                Read::Literal { bytes, to } => put(out, to, bytes),
                Read::Zero { to, len } => zero(out, to, len),
                Read::Crc32 { of, part, to } => checksums.get(self, plan, of).and_then(|crc| {
                    let bytes = crc.to_le_bytes();
                    put(out, to, bytes.get(part.start as usize..part.end as usize).unwrap_or_default())
                }),
            };
            match done {
                Ok(len) => filled += len,
                Err(error) => failed = Some(error),
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if filled != range.end - range.start {
            return Err(ReadError::Plan(range));
        }
        for (object, runs) in runs.iter().filter(|(_, runs)| !runs.is_empty()) {
            self.store.gather(*object, runs, out)?;
        }
        Ok(())
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

fn put(out: &mut [u8], to: u64, bytes: &[u8]) -> Result<u64, ReadError> {
    let end = to + bytes.len() as u64;
    let slot = out.get_mut(to as usize..end as usize).ok_or(ReadError::Plan(to..end))?;
    slot.copy_from_slice(bytes);
    Ok(bytes.len() as u64)
}

fn zero(out: &mut [u8], to: u64, len: u64) -> Result<u64, ReadError> {
    let slot = out.get_mut(to as usize..(to + len) as usize).ok_or(ReadError::Plan(to..to + len))?;
    slot.fill(0);
    Ok(len)
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
}
