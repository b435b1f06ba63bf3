//! The plan against a deliberately naive model: load every parameter whole, concatenate, slice.
//!
//! A source cuts random parameters in random ways over its ranks; a target wants them cut in other ways, padded, stacked on each other, with
//! other things between them. Whatever `gather` and `resolve` say must give exactly the bytes that the naive model gives; and it must say so
//! in as few segments as there are to say.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod array;
mod bands;
mod case;
mod reading;
mod segments;
mod stripes;

use std::ops::Range;
use std::sync::Arc;

use ckpt_fs::plan::{Builder, FilePlan, Read, gather};
use ckpt_fs::reader::{Checksums, CrcMode, Reader};
use ckpt_fs::store::MemoryStore;
use proptest::prelude::*;
use proptest::sample::Index;

use case::{Case, Files, case};

/// What stands between the tensors of a file.
#[derive(Clone, Debug)]
enum Between {
    Literal(Vec<u8>),
    Zero(u64),
    /// The checksum of what stands before it, from the given byte on.
    Crc32(Index),
    /// Nothing, but the tensors are kept apart.
    Cut,
}

fn between() -> impl Strategy<Value = Between> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..5).prop_map(Between::Literal),
        (0u64..5).prop_map(Between::Zero),
        any::<Index>().prop_map(Between::Crc32),
        Just(Between::Cut),
    ]
}

/// A file that is planned, and its bytes by the naive reading.
struct Planned {
    plan: FilePlan,
    bytes: Vec<u8>,
    files: Files,
}

/// One rank's tensors after each other, with other things between them.
fn planned(cases: &[Case], between: &[Vec<Between>], rank: Index) -> Planned {
    let (mut builder, mut bytes, mut files) = (Builder::new(), Vec::new(), Files::default());
    for (case, between) in cases.iter().zip(between) {
        for other in between {
            match other {
                Between::Literal(literal) => {
                    builder.literal(literal.as_slice());
                    bytes.extend(literal);
                }
                Between::Zero(len) => {
                    builder.zero(*len);
                    bytes.extend(vec![0; *len as usize]);
                }
                Between::Crc32(from) => {
                    let from = from.index(bytes.len() + 1);
                    builder.crc32(from as u64..bytes.len() as u64);
                    bytes.extend(crc32fast::hash(&bytes[from..]).to_le_bytes());
                }
                Between::Cut => builder.cut(),
            }
            assert_eq!(builder.position(), bytes.len() as u64);
        }
        let rank = rank.index(case.target.1 as usize) as u64;
        let stored = case.store(&mut files);
        gather(&case.target(rank, &stored), &mut builder).unwrap();
        bytes.extend(case.wanted(rank, &stored).into_iter().flat_map(|array| array.data));
    }
    Planned { plan: builder.finish(), bytes, files }
}

impl Planned {
    /// Follows the plan's instructions for a range, without the reader.
    fn follow(&self, range: Range<u64>) -> Vec<u8> {
        let mut answer = Vec::new();
        self.plan.resolve(range, |instruction| match instruction {
            Read::Copy { object, from, to, len } => {
                assert_eq!(to, answer.len() as u64);
                let file = &self.files.files[object.0 as usize];
                answer.extend_from_slice(&file[from as usize..(from + len) as usize]);
            }
            Read::Zero { to, len } => {
                assert_eq!(to, answer.len() as u64);
                answer.extend(vec![0; len as usize]);
            }
            Read::Literal { bytes, to } => {
                assert_eq!(to, answer.len() as u64);
                answer.extend_from_slice(bytes);
            }
            Read::Crc32 { of, part, to } => {
                assert_eq!(to, answer.len() as u64);
                let sum = crc32fast::hash(&self.bytes[of.start as usize..of.end as usize]).to_le_bytes();
                answer.extend_from_slice(&sum[part.start as usize..part.end as usize]);
            }
        });
        answer
    }

    fn reader(&self) -> Reader {
        let store = MemoryStore::new();
        for file in &self.files.files {
            store.add("file", file.clone()).unwrap();
        }
        Reader::new(Arc::new(store))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn plans_give_the_naive_bytes(
        cases in proptest::collection::vec(case(), 1..4),
        between in proptest::collection::vec(proptest::collection::vec(between(), 0..4), 3),
        rank in any::<Index>(),
        cuts in proptest::collection::vec(any::<Index>(), 4),
    ) {
        let file = planned(&cases, &between, rank);
        let len = file.bytes.len() as u64;
        prop_assert_eq!(file.plan.len(), len);
        prop_assert_eq!(&file.follow(0..len), &file.bytes);
        // Any split of the file resolves to the same bytes, and the reader follows the plan as it says.
        let mut ends: Vec<u64> = cuts.iter().map(|cut| cut.index(file.bytes.len() + 1) as u64).chain([len]).collect();
        ends.sort_unstable();
        let (reader, checksums) = (file.reader(), Checksums::new(CrcMode::Exact));
        let mut start = 0;
        for end in ends {
            let wanted = &file.bytes[start as usize..end as usize];
            prop_assert_eq!(&file.follow(start..end), wanted);
            let mut out = vec![0xAA; wanted.len()];
            prop_assert_eq!(reader.read(&file.plan, &checksums, start, &mut out).unwrap(), wanted.len());
            prop_assert_eq!(&out, wanted);
            start = end;
        }
        // Segments are where the plan says, one after the other.
        let mut at = 0;
        for (start, segment) in file.plan.located() {
            prop_assert_eq!(start, at);
            prop_assert!(segment.bytes() > 0);
            at += segment.bytes();
        }
        prop_assert_eq!(at, len);
    }
}
