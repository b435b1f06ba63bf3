//! Bands that are not every position exactly once, and parameters that lack some, are refused: the bytes would be another tensor's.

use ckpt_fs::catalog::{Chunk, Param};
use ckpt_fs::extent::ObjectId;
use ckpt_fs::layout::Rank;
use ckpt_fs::plan::{Builder, Fill, GatherError, Part, Piece, Segment, Source, Stripe, Target, gather};
use ckpt_fs::tensor::{Band, Dtype, Region, Shape};
use proptest::prelude::*;
use proptest::sample::Index;

use super::case::{Case, Files, case};

/// What is done to one of the bands.
#[derive(Clone, Copy, Debug)]
enum Spoil {
    Drop,
    Double,
    At(i64),
    Len(i64),
    Repeat(i64),
    AtStep(i64),
    From(i64),
    FromStep(i64),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let by = prop_oneof![Just(-1i64), Just(1), Just(2), Just(1000)];
    (0..8u8, by).prop_map(|(kind, by)| match kind {
        0 => Spoil::Drop,
        1 => Spoil::Double,
        2 => Spoil::At(by),
        3 => Spoil::Len(by),
        4 => Spoil::Repeat(by),
        5 => Spoil::AtStep(by),
        6 => Spoil::From(by),
        _ => Spoil::FromStep(by),
    })
}

/// The bands with one of them spoiled; `None` where that leaves no band at all.
fn spoiled<'p>(bands: &[(Band, Source<'p>)], spoil: Spoil, which: Index) -> Option<Vec<(Band, Source<'p>)>> {
    let mut bands = bands.to_vec();
    let index = which.index(bands.len());
    let band = &mut bands[index].0;
    let add = |number: &mut u64, by: i64, least: u64| {
        *number = number.checked_add_signed(by).filter(|sum| *sum >= least)?;
        Some(())
    };
    match spoil {
        Spoil::Drop => {
            bands.remove(index);
        }
        Spoil::Double => bands.push(bands[index]),
        Spoil::At(by) => add(&mut band.at, by, 0)?,
        Spoil::Len(by) => add(&mut band.len, by, 1)?,
        Spoil::Repeat(by) => add(&mut band.repeat, by, 1)?,
        Spoil::AtStep(by) => add(&mut band.at_step, by, band.len)?,
        Spoil::From(by) => add(&mut band.from, by, 0)?,
        Spoil::FromStep(by) => add(&mut band.from_step, by, band.len)?,
    }
    Some(bands)
}

/// How often each position is described, and whether the parameters have all that is asked of them.
fn counted(bands: &[(Band, Source<'_>)], size: u64) -> (bool, bool) {
    let mut times = vec![0; size as usize];
    let (mut is_once, mut is_there) = (true, true);
    for (band, source) in bands {
        for run in band.runs() {
            for position in run.at..run.at + run.len {
                match times.get_mut(position as usize) {
                    Some(times) => *times += 1,
                    None => is_once = false,
                }
            }
            if let Source::Param(param) = source {
                is_there &= run.from + run.len <= param.size();
            }
        }
    }
    (is_once && times.iter().all(|times| *times == 1), is_there)
}

fn gathered(case: &Case, size: u64, bands: Vec<(Band, Source<'_>)>) -> Result<(), GatherError> {
    let shape = Shape([case.before.as_slice(), &[size], case.after.as_slice()].concat());
    gather(&Target::single(case.dtype, shape, case.axis(), bands), &mut Builder::new())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn spoiled_bands_are_refused(mut case in case(), rank in any::<Index>(), spoil in spoil(), which in any::<Index>()) {
        case.stack = 1;
        let stored = case.store(&mut Files::default());
        let rank = rank.index(case.target.1 as usize) as u64;
        let bands = case.bands(rank, &stored[0].1);
        let size = bands.iter().map(|(band, _)| band.positions()).sum();
        prop_assert_eq!(counted(&bands, size), (true, true));
        prop_assert_eq!(gathered(&case, size, bands.clone()), Ok(()));
        let Some(wrong) = spoiled(&bands, spoil, which) else { return Ok(()) };
        let result = gathered(&case, size, wrong.clone());
        match counted(&wrong, size) {
            (false, _) => {
                prop_assert!(matches!(result, Err(GatherError::Bands { size: said, .. }) if said == size), "{:?}: {:?}", wrong, result);
            }
            (true, false) => prop_assert!(matches!(result, Err(GatherError::Missing { .. })), "{:?}: {:?}", wrong, result),
            // Moved within the parameter: another tensor, but one that there is. Or nothing changed, as with the step of a single run.
            (true, true) => prop_assert_eq!(result, Ok(())),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    /// The first tensor of a stack is looked at like the others.
    #[test]
    fn every_part_of_a_stack_is_checked(mut case in case(), which in any::<Index>()) {
        case.stack = 3;
        let stored = case.store(&mut Files::default());
        let mut target = case.target(0, &stored);
        target.parts[which.index(3)].bands.pop();
        let result = gather(&target, &mut Builder::new());
        prop_assert!(matches!(result, Err(GatherError::Bands { .. })), "{:?}", result);
    }
}

/// New rows may repeat by themselves. Among others that repeat they would come before all of them, so that is refused.
#[test]
fn new_rows_stand_alone() {
    let mut param = Param::new("p".into(), Dtype::Float32, Shape(vec![6]), 0);
    param.add(Chunk {
        region: Region::new(vec![0..6]),
        rank: Rank { pp: 0, tp: 0, ep: 0 },
        object: ObjectId(0),
        start: 0,
        strides: vec![4],
        period: None,
    });
    let repeated = |at, len, at_step| Band { part: 0, at, from: 0, len, repeat: 3, at_step, from_step: 2 };
    let planned = |size, bands| {
        let mut builder = Builder::new();
        gather(&Target::single(Dtype::Float32, Shape(vec![size]), 0, bands), &mut builder)?;
        Ok::<_, GatherError>(builder.finish())
    };
    for fill in [Fill::Zero, Fill::Float(2.5), Fill::Last(&param)] {
        let alone = planned(6, vec![(repeated(0, 2, 2), Source::Fill(fill))]).unwrap();
        assert_eq!(alone.len(), 24);
        let wanted = match fill {
            Fill::Zero => vec![Segment::Zero(24)],
            Fill::Float(number) => vec![Segment::Literal([number.to_le_bytes(); 2].concat().into()); 3],
            Fill::Last(_) => {
                vec![Segment::Stripe(Stripe::new(2, vec![Piece::new(ObjectId(0), 20, 0, &[], 4)])); 3]
            }
        };
        assert_eq!(alone.segments(), wanted);
        let among = vec![(repeated(0, 2, 3), Source::Param(&param)), (repeated(2, 1, 3), Source::Fill(fill))];
        assert_eq!(planned(9, among).err(), Some(GatherError::Bands { axis: 0, position: 0, size: 9 }));
    }
}

/// Only rows can be new: a position in the middle of each row would be a stripe per row.
#[test]
fn nothing_is_filled_in_the_middle_of_rows() {
    for fill in [Fill::Zero, Fill::Float(1.0)] {
        let part = Part {
            shape: Shape(vec![2, 3]),
            axis: 1,
            bands: vec![(Band::once(0, 0, 0, 3), Source::Fill(fill))],
        };
        let target = Target { dtype: Dtype::Float32, shape: Shape(vec![2, 3]), parts: vec![part] };
        let result = gather(&target, &mut Builder::new());
        assert_eq!(result, Err(GatherError::Bands { axis: 1, position: 0, size: 3 }));
    }
}
