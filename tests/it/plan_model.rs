//! The plan against a deliberately naive model: load every parameter whole, concatenate, slice.
//!
//! A source cuts random parameters in random ways over its ranks; a target wants them cut in other ways. Whatever `gather` and
//! `resolve` say must give exactly the bytes that the naive model gives.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;

use ckpt_fs::catalog::{Chunk, Param, Period};
use ckpt_fs::extent::ObjectId;
use ckpt_fs::family::Arrangement;
use ckpt_fs::layout::Rank;
use ckpt_fs::plan::{Builder, FilePlan, Read, Source, Stripe, Target, gather};
use ckpt_fs::tensor::{Band, Dtype, Shape};
use proptest::prelude::*;

const DTYPE: Dtype = Dtype::Int16;

/// A dense row-major array of 2-byte elements.
#[derive(Clone, Debug)]
struct Array {
    shape: Vec<u64>,
    data: Vec<u16>,
}

impl Array {
    fn filled(shape: Vec<u64>, mut value: impl FnMut() -> u16) -> Self {
        let len = shape.iter().product::<u64>();
        Self { shape, data: (0..len).map(|_| value()).collect() }
    }

    /// The positions `pick` along `axis`, in that order, each from one of `arrays`.
    fn pick(arrays: &[Self], axis: usize, pick: &[(usize, u64)]) -> Self {
        let mut shape = arrays[0].shape.clone();
        shape[axis] = pick.len() as u64;
        let outer: u64 = shape[..axis].iter().product();
        let inner: u64 = shape[axis + 1..].iter().product();
        let mut data = Vec::new();
        for o in 0..outer {
            for (part, position) in pick {
                let start = (o * arrays[*part].shape[axis] + position) * inner;
                data.extend_from_slice(&arrays[*part].data[start as usize..(start + inner) as usize]);
            }
        }
        Self { shape, data }
    }

    fn bytes(&self) -> Vec<u8> {
        self.data.iter().flat_map(|element| element.to_le_bytes()).collect()
    }
}

/// What stands at each position of a rank's tensor, by the naive reading of an arrangement.
fn naive_positions(arrangement: Arrangement, sizes: &[u64], tp: u64, rank: u64) -> Vec<(usize, u64)> {
    let all = |part: usize, range: std::ops::Range<u64>| range.map(move |position| (part, position));
    match arrangement {
        Arrangement::Replicated => sizes.iter().enumerate().flat_map(|(p, n)| all(p, 0..*n)).collect(),
        Arrangement::Concatenated => {
            sizes.iter().enumerate().flat_map(|(p, n)| all(p, n / tp * rank..n / tp * (rank + 1))).collect()
        }
        Arrangement::Interleaved { groups } => {
            let mut whole = Vec::new();
            for g in 0..groups {
                whole.extend(
                    sizes.iter().enumerate().flat_map(|(p, n)| all(p, n / groups * g..n / groups * (g + 1))),
                );
            }
            let len = whole.len() / tp as usize;
            whole[len * rank as usize..len * (rank as usize + 1)].to_vec()
        }
    }
}

/// How a source keeps a rank's tensor in its file.
#[derive(Clone, Copy, Debug)]
enum Storage {
    Contiguous,
    /// A view into a storage whose rows are longer.
    Padded,
    /// Axes in reverse order.
    Transposed,
}

/// Writes `array` into `file` and returns where it starts and its strides, both in bytes.
fn store(array: &Array, storage: Storage, file: &mut Vec<u8>) -> (u64, Vec<u64>) {
    let rank = array.shape.len();
    let mut sizes: Vec<u64> = array.shape.clone();
    if let (Storage::Padded, Some(last)) = (storage, sizes.last_mut()) {
        *last += 3;
    }
    let order: Vec<usize> = match storage {
        Storage::Transposed => (0..rank).rev().collect(),
        _ => (0..rank).collect(),
    };
    let mut strides = vec![0; rank];
    let mut step = 2;
    for axis in order.iter().rev() {
        strides[*axis] = step;
        step *= sizes[*axis];
    }
    file.extend_from_slice(&[0xEE; 7]);
    let start = file.len() as u64;
    file.resize(file.len() + step as usize, 0xEE);
    for (index, element) in array.data.iter().enumerate() {
        let mut rest = index as u64;
        let mut at = start;
        for axis in (0..rank).rev() {
            at += rest % array.shape[axis] * strides[axis];
            rest /= array.shape[axis];
        }
        file[at as usize..at as usize + 2].copy_from_slice(&element.to_le_bytes());
    }
    (start, strides)
}

/// A chunk per band, as a source makes them.
fn chunk(band: &Band, axis: usize, object: u32, start: u64, strides: &[u64]) -> Chunk {
    let stride = strides[axis];
    Chunk {
        span: band.from..band.from + band.positions(),
        rank: Rank { pp: 0, tp: object, ep: 0 },
        object: ObjectId(object),
        start: start + band.at * stride,
        strides: strides.to_vec(),
        period: (band.repeat > 1).then_some(Period { len: band.len, step: band.at_step * stride }),
    }
}

fn read(plan: &FilePlan, range: std::ops::Range<u64>, files: &HashMap<u32, Vec<u8>>) -> Vec<u8> {
    let mut answer = Vec::new();
    plan.resolve(range, |instruction| match instruction {
        Read::Copy { object, from, to, len } => {
            assert_eq!(to, answer.len() as u64);
            answer.extend_from_slice(&files[&object.0][from as usize..(from + len) as usize]);
        }
        Read::Zero { len, .. } => answer.extend(std::iter::repeat_n(0, len as usize)),
        Read::Literal { bytes, .. } => answer.extend_from_slice(bytes),
        Read::Crc32 { .. } => panic!("no checksum in a tensor"),
    });
    answer
}

#[derive(Clone, Debug)]
struct Case {
    sizes: Vec<u64>,
    axis: usize,
    before: Vec<u64>,
    after: Vec<u64>,
    source: (Arrangement, u64),
    target: (Arrangement, u64),
    storage: Storage,
    seed: u16,
}

fn case() -> impl Strategy<Value = Case> {
    let sizes = (1u64..4, 1u64..4, proptest::collection::vec(0u64..3, 1..4));
    let around = (proptest::collection::vec(1u64..4, 0..3), proptest::collection::vec(1u64..4, 0..3));
    let storage = prop_oneof![Just(Storage::Contiguous), Just(Storage::Padded), Just(Storage::Transposed)];
    (sizes, around, 0usize..3, 0usize..3, 1u64..7, 1u64..7, storage, any::<u16>()).prop_map(
        |((groups, unit, shares), (before, after), source, target, source_tp, target_tp, storage, seed)| {
            let kinds =
                [Arrangement::Replicated, Arrangement::Concatenated, Arrangement::Interleaved { groups }];
            // Sizes that every TP divides, so that most cases are real ones.
            let sizes =
                shares.iter().map(|share| (share + 1) * unit * groups * source_tp * target_tp).collect();
            Case {
                sizes,
                axis: before.len(),
                before,
                after,
                source: (kinds[source], source_tp),
                target: (kinds[target], target_tp),
                storage,
                seed,
            }
        },
    )
}

/// Parameters, the files of the source, and what the catalog knows of them.
fn source(case: &Case) -> (Vec<Array>, HashMap<u32, Vec<u8>>, Vec<Param>) {
    let shape = |size: u64| [case.before.as_slice(), &[size], case.after.as_slice()].concat();
    let mut state = u64::from(case.seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u16
    };
    let arrays: Vec<_> = case.sizes.iter().map(|size| Array::filled(shape(*size), &mut next)).collect();
    let mut params: Vec<_> = case
        .sizes
        .iter()
        .enumerate()
        .map(|(i, size)| Param::new(format!("p{i}").into(), DTYPE, Shape(shape(*size)), case.axis))
        .collect();
    let (arrangement, tp) = case.source;
    let mut files = HashMap::new();
    for rank in 0..tp {
        let local = Array::pick(&arrays, case.axis, &naive_positions(arrangement, &case.sizes, tp, rank));
        let file = files.entry(rank as u32).or_insert_with(Vec::new);
        let (start, strides) = store(&local, case.storage, file);
        for band in arrangement.bands(&case.sizes, tp, rank).unwrap() {
            params[band.part].add(chunk(&band, case.axis, rank as u32, start, &strides));
        }
    }
    for param in &params {
        param.check().unwrap();
    }
    (arrays, files, params)
}

fn plan_of(case: &Case, rank: u64, params: &[Param], shape: &[u64]) -> FilePlan {
    let (arrangement, tp) = case.target;
    let bands = arrangement.bands(&case.sizes, tp, rank).unwrap();
    let bands = bands.into_iter().map(|band| (band, Source::Param(&params[band.part]))).collect();
    let target = Target::single(DTYPE, Shape(shape.to_vec()), case.axis, bands);
    let mut builder = Builder::new();
    gather(&target, &mut builder).unwrap();
    builder.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn plans_give_the_naive_bytes(case in case(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 3)) {
        let (arrays, files, params) = source(&case);
        for rank in 0..case.target.1 {
            let wanted = Array::pick(&arrays, case.axis, &naive_positions(case.target.0, &case.sizes, case.target.1, rank));
            let plan = plan_of(&case, rank, &params, &wanted.shape);
            let wanted = wanted.bytes();
            prop_assert_eq!(plan.len(), wanted.len() as u64);
            prop_assert_eq!(&read(&plan, 0..plan.len(), &files), &wanted);
            // Any split of the file resolves to the same bytes.
            let mut ends: Vec<u64> = cuts.iter().map(|cut| cut.index(wanted.len() + 1) as u64).chain([plan.len()]).collect();
            ends.sort_unstable();
            let mut start = 0;
            let mut pieced = Vec::new();
            for end in ends {
                pieced.extend(read(&plan, start..end, &files));
                start = end;
            }
            prop_assert_eq!(&pieced, &wanted);
        }
    }

    /// The bound that makes big models possible: segments grow with shards and parts, never with rows.
    #[test]
    fn a_recut_tensor_is_a_few_segments(mut case in case()) {
        case.target.0 = case.source.0;
        case.storage = Storage::Contiguous;
        let (_, _, params) = source(&case);
        for rank in 0..case.target.1 {
            let shape = Array::pick(&source(&case).0, case.axis, &naive_positions(case.target.0, &case.sizes, case.target.1, rank)).shape;
            let plan = plan_of(&case, rank, &params, &shape);
            let bound = case.source.1 * case.sizes.len() as u64;
            let groups = if let Arrangement::Interleaved { .. } = case.source.0 { 3 } else { 1 };
            let pieces: u64 = plan.segments().iter().map(|s| match s {
                ckpt_fs::plan::Segment::Stripe(stripe) => stripe.pieces().len() as u64,
                _ => 1,
            }).sum();
            prop_assert!(pieces <= groups * bound + groups * case.sizes.len() as u64, "{pieces} pieces for {case:?}");
        }
    }
}

#[test]
fn a_column_cut_of_a_large_weight_is_one_segment() {
    let mut param = Param::new("w".into(), Dtype::Bfloat16, Shape(vec![8192, 8192]), 1);
    for tp in 0..2u32 {
        param.add(Chunk {
            span: u64::from(tp) * 4096..u64::from(tp + 1) * 4096,
            rank: Rank { pp: 0, tp, ep: 0 },
            object: ObjectId(tp),
            start: 0,
            strides: vec![8192, 2],
            period: None,
        });
    }
    let bands = vec![(Band::once(0, 0, 0, 8192), Source::Param(&param))];
    let target = Target::single(Dtype::Bfloat16, Shape(vec![8192, 8192]), 1, bands);
    let mut builder = Builder::new();
    gather(&target, &mut builder).unwrap();
    let plan = builder.finish();
    let [ckpt_fs::plan::Segment::Stripe(stripe)] = plan.segments() else { panic!("{:?}", plan.segments()) };
    assert_eq!((stripe.repeat(), stripe.pieces().len(), stripe.bytes()), (8192, 2, 8192 * 8192 * 2));
    assert_eq!(stripe.pieces()[0], Stripe::new(8192, stripe.pieces().to_vec()).pieces()[0].clone());
}

#[test]
fn the_same_arrangement_of_grouped_rows_is_one_run() {
    let case = Case {
        sizes: vec![64, 32, 32],
        axis: 0,
        before: vec![],
        after: vec![5],
        source: (Arrangement::Interleaved { groups: 8 }, 4),
        target: (Arrangement::Interleaved { groups: 8 }, 2),
        storage: Storage::Contiguous,
        seed: 3,
    };
    let (_, _, params) = source(&case);
    let plan = plan_of(&case, 1, &params, &[64, 5]);
    assert_eq!(plan.segments().len(), 2, "one run per source rank: {:?}", plan.segments());
}
