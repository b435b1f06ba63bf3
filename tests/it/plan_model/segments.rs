//! How many segments a plan is: known exactly, so that a stripe for each row, or for each group, cannot come back unseen.

use std::collections::BTreeSet;

use ckpt_fs::catalog::{Chunk, Param, Period};
use ckpt_fs::extent::ObjectId;
use ckpt_fs::family::Arrangement;
use ckpt_fs::layout::Rank;
use ckpt_fs::plan::{Builder, FilePlan, GatherError, Read, Segment, Source, Target, gather, whole};
use ckpt_fs::tensor::{Band, Dtype, Region, Shape};
use proptest::prelude::*;

use super::array::Storage;
use super::case::{Case, Cut, Files, case};

const CONCATENATED: Arrangement = Arrangement::Concatenated;
const GROUPS: Arrangement = Arrangement::Interleaved { groups: 8 };

fn plan(case: &Case, rank: u64) -> FilePlan {
    let stored = case.store(&mut Files::default());
    let mut builder = Builder::new();
    gather(&case.target(rank, &stored), &mut builder).unwrap();
    builder.finish()
}

/// Rows and pieces of each row, for every segment, all of which are source bytes.
fn stripes(plan: &FilePlan) -> Vec<(u64, usize)> {
    let of = |segment: &Segment| match segment {
        Segment::Stripe(stripe) => (stripe.repeat(), stripe.pieces().len()),
        other => panic!("{other:?}"),
    };
    plan.segments().iter().map(of).collect()
}

/// The fewest runs of source bytes that these are: what reads on in one object is one.
fn fewest_runs(plan: &FilePlan, bytes: u64) -> usize {
    let mut runs: Vec<(ObjectId, u64)> = Vec::new();
    plan.resolve(0..bytes, |read| match read {
        Read::Copy { object, from, len, .. } => match runs.last_mut() {
            Some((before, end)) if *before == object && *end == from => *end = from + len,
            _ => runs.push((object, from + len)),
        },
        other => panic!("{other:?}"),
    });
    runs.len()
}

/// A tensor like many: one, without new rows, contiguous.
fn plain(mut case: Case) -> Case {
    (case.stack, case.padding, case.storage) = (1, None, [Storage::Contiguous; 2]);
    case
}

/// The same where each rank has it in one piece.
fn whole_on_ranks(case: Case) -> Case {
    Case { cut: Cut::Whole, ..plain(case) }
}

/// The same where parameters stand one after the other on both sides.
fn in_order(mut case: Case) -> Case {
    for side in [&mut case.source.0, &mut case.target.0] {
        if matches!(side, Arrangement::Interleaved { .. } | Arrangement::Paired { .. }) {
            *side = CONCATENATED;
        }
    }
    case
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Parameters that lie and are wanted one after the other: a piece for each run that there is, and no row is one by itself.
    #[test]
    fn rows_in_order_are_as_many_pieces_as_there_are_runs(case in case()) {
        let case = in_order(whole_on_ranks(case));
        prop_assume!(case.before.iter().all(|size| *size == 1));
        for rank in 0..case.target.1 {
            let plan = plan(&case, rank);
            let pieces: usize = stripes(&plan).iter().map(|(rows, pieces)| { assert_eq!(*rows, 1); *pieces }).sum();
            prop_assert_eq!(pieces, fewest_runs(&plan, plan.len()), "{:?}", plan);
        }
    }

    /// A cut in the middle of rows is one stripe, or one run where whole rows are read on; a row has a piece for each of its runs.
    #[test]
    fn a_cut_of_every_row_is_one_segment(case in case()) {
        let mut case = whole_on_ranks(case);
        case.before.insert(0, 2);
        for rank in 0..case.target.1 {
            let plan = plan(&case, rank);
            let [(rows, pieces)] = stripes(&plan)[..] else { panic!("{plan:?}") };
            let outer: u64 = case.before.iter().product();
            let Segment::Stripe(stripe) = &plan.segments()[0] else { panic!("{plan:?}") };
            prop_assert_eq!((rows, stripe.row_bytes()), if rows == 1 { (1, plan.len()) } else { (outer, plan.len() / outer) });
            let loops: bool = stripe.pieces().iter().any(|piece| !piece.dims.is_empty());
            if !loops {
                prop_assert_eq!(pieces, fewest_runs(&plan, stripe.row_bytes()));
            }
        }
    }

    /// Pieces that are cut along several axes are a segment for each row of their grid, and not one for each row of the tensor.
    #[test]
    fn a_grid_is_a_segment_for_each_of_its_rows(case in case(), columns in any::<bool>()) {
        let mut case = in_order(plain(case));
        (case.before, case.after) = if columns { (vec![6], vec![]) } else { (vec![], vec![5]) };
        let stored = case.store(&mut Files::default());
        // Positions along the first axis where the grid of any parameter is cut.
        let mut cuts = BTreeSet::new();
        for chunk in stored[0].1.iter().flat_map(Param::chunks) {
            let first = chunk.region.along(0);
            cuts.extend([first.start, first.end]);
        }
        for rank in 0..case.target.1 {
            let plan = plan(&case, rank);
            let parameters = case.sizes.len();
            let most = if columns { cuts.len() } else { cuts.len() * parameters + parameters };
            prop_assert!(plan.segments().len() <= most, "{} of {most}: {plan:?}", plan.segments().len());
        }
    }
}

fn rows(sizes: &[u64], source: (Arrangement, u64), target: (Arrangement, u64)) -> Case {
    Case {
        dtype: Dtype::Bfloat16,
        sizes: sizes.to_vec(),
        before: vec![],
        after: vec![5],
        source,
        target,
        storage: [Storage::Contiguous; 2],
        copies: 1,
        cut: Cut::Whole,
        stack: 1,
        padding: None,
        seed: 3,
    }
}

/// q, k and v of eight query groups, in every way that a model has them.
#[test]
fn grouped_rows_are_as_many_segments_as_files_make_them() {
    let qkv = [64, 32, 32];
    let counted = |source, target, rank| stripes(&plan(&rows(&qkv, source, target), rank));
    // The same arrangement: one run for each source rank that a target rank reads.
    assert_eq!(counted((GROUPS, 4), (GROUPS, 2), 1), [(1, 1), (1, 1)]);
    assert_eq!(counted((GROUPS, 2), (GROUPS, 4), 3), [(1, 1)]);
    assert_eq!(counted((GROUPS, 1), (GROUPS, 8), 7), [(1, 1)]);
    // Each parameter whole: a stripe each, with a piece for every file.
    assert_eq!(counted((GROUPS, 4), (CONCATENATED, 1), 0), [(1, 4), (1, 4), (1, 4)]);
    assert_eq!(counted((GROUPS, 1), (CONCATENATED, 2), 1), [(1, 1), (1, 1), (1, 1)]);
    // Groups made of parameters that lie after each other: a row for each group of a rank.
    assert_eq!(counted((CONCATENATED, 1), (GROUPS, 1), 0), [(8, 3)]);
    assert_eq!(counted((CONCATENATED, 1), (GROUPS, 2), 1), [(4, 3)]);
    assert_eq!(counted((CONCATENATED, 4), (GROUPS, 2), 1), [(2, 3), (2, 3)]);
    assert_eq!(counted((CONCATENATED, 1), (GROUPS, 8), 5), [(1, 1), (1, 1), (1, 1)]);
}

/// Rows that do not follow each other are loops within the pieces; the groups are rows of the stripe all the same.
#[test]
fn groups_of_padded_rows_are_rows_of_a_stripe() {
    let counted = |source, target, rank| {
        let case = Case { storage: [Storage::Padded; 2], ..rows(&[64, 32, 32], source, target) };
        stripes(&plan(&case, rank))
    };
    assert_eq!(counted((GROUPS, 1), (GROUPS, 1), 0), [(8, 3)]);
    assert_eq!(counted((GROUPS, 2), (GROUPS, 1), 0), [(4, 3), (4, 3)]);
    assert_eq!(counted((GROUPS, 1), (GROUPS, 2), 1), [(4, 3)]);
    assert_eq!(counted((CONCATENATED, 1), (GROUPS, 2), 1), [(4, 3)]);
    assert_eq!(counted((GROUPS, 2), (CONCATENATED, 1), 0), [(1, 2), (1, 2), (1, 2)]);
}

/// A chunk in groups that begins in the middle of the numbers: groups count from its own start.
#[test]
fn groups_of_a_chunk_count_from_its_start() {
    let mut param = Param::new("p".into(), Dtype::Int8, Shape(vec![7]), 0);
    for (span, object, period) in [(0..1, 0, None), (1..7, 1, Some(Period { len: 3, step: 100 }))] {
        param.add(Chunk {
            region: Region::new(vec![span]),
            rank: Rank { pp: 0, tp: object, ep: 0 },
            object: ObjectId(object),
            start: 10,
            strides: vec![1],
            period,
        });
    }
    let read = |from, len| {
        let bands = vec![(Band::once(0, 0, from, len), Source::Param(&param))];
        let mut builder = Builder::new();
        gather(&Target::single(Dtype::Int8, Shape(vec![len]), 0, bands), &mut builder).unwrap();
        let mut runs = Vec::new();
        builder.finish().resolve(0..len, |read| match read {
            Read::Copy { object, from, len, .. } => runs.push((object.0, from, len)),
            other => panic!("{other:?}"),
        });
        runs
    };
    assert_eq!(read(1, 3), [(1, 10, 3)]);
    assert_eq!(read(2, 2), [(1, 11, 2)]);
    assert_eq!(read(3, 2), [(1, 12, 1), (1, 110, 1)]);
    assert_eq!(read(0, 7), [(0, 10, 1), (1, 10, 3), (1, 110, 3)]);
}

/// Groups that are cut in the middle by both: as many stripes as there are pieces of groups in files, not rows.
#[test]
fn groups_cut_in_the_middle_do_not_fall_apart_into_rows() {
    let counted = |source, target| {
        let case = rows(&[6 * 64, 64, 64], source, target);
        (0..case.target.1).map(|rank| stripes(&plan(&case, rank)).len()).collect::<Vec<_>>()
    };
    let two = Arrangement::Interleaved { groups: 2 };
    assert_eq!(counted((two, 8), (two, 4)), [1, 2, 1, 2]);
    assert_eq!(counted((CONCATENATED, 1), (two, 4)), [1, 3, 1, 3]);
    assert_eq!(counted((two, 4), (CONCATENATED, 1)), [3]);
}

#[test]
fn a_column_cut_of_a_large_weight_is_one_segment() {
    let mut param = Param::new("w".into(), Dtype::Bfloat16, Shape(vec![8192, 8192]), 1);
    for tp in 0..2u32 {
        param.add(Chunk {
            region: Region::new(vec![0..8192, u64::from(tp) * 4096..u64::from(tp + 1) * 4096]),
            rank: Rank { pp: 0, tp, ep: 0 },
            object: ObjectId(tp),
            start: 0,
            strides: vec![8192, 2],
            period: None,
        });
    }
    let plan = whole(&param, 8192).unwrap();
    let [Segment::Stripe(stripe)] = plan.segments() else { panic!("{:?}", plan.segments()) };
    assert_eq!((stripe.repeat(), stripe.pieces().len(), stripe.bytes()), (8192, 2, 8192 * 8192 * 2));
    let runs: Vec<_> = stripe.pieces().iter().map(|p| (p.object.0, p.start, p.step, p.run)).collect();
    assert_eq!(runs, [(0, 0, 8192, 8192), (1, 0, 8192, 8192)]);
}

/// A parameter of one file with these sizes and strides, cut along its last axis.
fn strided(sizes: &[u64], strides: &[u64]) -> Result<FilePlan, GatherError> {
    let axis = sizes.len() - 1;
    let mut param = Param::new("w".into(), Dtype::Int8, Shape(sizes.to_vec()), axis);
    param.add(Chunk {
        region: Region::whole(&Shape(sizes.to_vec())),
        rank: Rank { pp: 0, tp: 0, ep: 0 },
        object: ObjectId(0),
        start: 0,
        strides: strides.to_vec(),
        period: None,
    });
    let bands = vec![(Band::once(0, 0, 0, sizes[axis]), Source::Param(&param))];
    let mut builder = Builder::new();
    gather(&Target::single(Dtype::Int8, Shape(sizes.to_vec()), axis, bands), &mut builder)?;
    Ok(builder.finish())
}

/// Axes in an order that no loop walks are written out, up to a bound; beyond it a plan would be a list of elements.
#[test]
fn scattered_tensors_are_written_out_up_to_a_bound() {
    let turned = |n: u64| strided(&[n, 3, 2], &[6, 1, 3]);
    // One loop walks the axes before the last: 3 within, then the next 6.
    assert_eq!(turned(5).map(|plan| plan.segments().len()), Ok(5));
    assert_eq!(turned(4096).map(|plan| plan.segments().len()), Ok(4096));
    assert_eq!(turned(4097).err(), Some(GatherError::Scattered));
    assert!(GatherError::Scattered.to_string().contains("save it contiguous"));
    // An axis of one position is none.
    assert_eq!(strided(&[1, 5000, 2], &[77, 2, 1]).map(|plan| stripes(&plan)), Ok(vec![(1, 1)]));
    assert_eq!(strided(&[5000, 1, 2], &[4, 99, 1]).map(|plan| stripes(&plan)), Ok(vec![(5000, 1)]));
}

/// Several axes that no loop walks: each element by itself, found by counting through all of them.
#[test]
fn several_axes_that_are_written_out_are_counted_through() {
    let (sizes, strides) = ([2, 3, 4, 2], [1, 2, 6, 24]);
    let plan = strided(&sizes, &strides).unwrap();
    let mut wanted = Vec::new();
    for index in 0..48u64 {
        let at = [index / 24, index / 8 % 3, index / 2 % 4, index % 2];
        wanted.push(at.iter().zip(strides).map(|(n, stride)| n * stride).sum::<u64>());
    }
    let mut found = Vec::new();
    plan.resolve(0..48, |read| match read {
        Read::Copy { from, len, .. } => found.extend(from..from + len),
        other => panic!("{other:?}"),
    });
    assert_eq!(found, wanted);
    // One axis is a loop; the two around it are not.
    assert_eq!(stripes(&plan), [(4, 1); 6]);
}

#[test]
fn tensors_without_axes_and_without_elements() {
    let mut scalar = Param::new("s".into(), Dtype::Float32, Shape(vec![]), 0);
    scalar.add(Chunk {
        region: Region::new(vec![]),
        rank: Rank { pp: 0, tp: 0, ep: 0 },
        object: ObjectId(7),
        start: 12,
        strides: vec![],
        period: None,
    });
    let plan = whole(&scalar, 1).unwrap();
    let Some(Segment::Stripe(stripe)) = plan.segments().first() else { panic!("{plan:?}") };
    assert_eq!((stripe.bytes(), stripe.pieces()[0].start, stripe.pieces()[0].object), (4, 12, ObjectId(7)));
    let mut vector = Param::new("v".into(), Dtype::Float32, Shape(vec![5]), 0);
    vector.add(Chunk { region: Region::new(vec![0..5]), strides: vec![4], ..scalar.chunks()[0].clone() });
    assert_eq!(stripes(&whole(&vector, 5).unwrap()), [(1, 1)]);
    assert_eq!(whole(&vector, 2).unwrap().len(), 8);
    // Nothing is asked of files for a tensor that has no bytes, whichever of its sizes says so.
    for (shape, positions) in [(vec![0, 3], 0), (vec![2, 0], 2)] {
        let empty = Param::new("e".into(), Dtype::Float32, Shape(shape), 0);
        assert_eq!(whole(&empty, positions).unwrap().len(), 0);
    }
    let missing = Param::new("m".into(), Dtype::Float32, Shape(vec![2, 3]), 0);
    let refused = whole(&missing, 2).err();
    assert_eq!(refused, Some(GatherError::Missing { param: "m".into(), position: 0 }));
}
