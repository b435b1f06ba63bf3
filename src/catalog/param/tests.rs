//! Parameters, their rows and what is read of replicas and copies.

use super::*;
use crate::extent::ObjectId;
use crate::layout::Rank;

fn chunk(ranges: &[Range<u64>], tp: u32) -> Chunk {
    Chunk {
        region: Region::new(ranges.to_vec()),
        rank: Rank { pp: 0, tp, ep: 0 },
        object: ObjectId(tp),
        start: 0,
        strides: vec![1; ranges.len()],
        period: None,
    }
}

fn param(size: u64, spans: &[(u64, u64, u32)]) -> Param {
    let mut param = Param::new("p".into(), Dtype::Int8, Shape(vec![size]), 0);
    spans.iter().for_each(|(start, end, tp)| param.add(chunk(&[*start..*end], *tp)));
    param
}

/// The rank that a position is read from.
fn tp_of(param: &Param, position: u64) -> Option<u32> {
    match param.row_at(position)?.held {
        Held::One(chunk) => Some(chunk.rank.tp),
        Held::Several(chunks) => panic!("{chunks:?}"),
    }
}

#[test]
fn replicas_are_kept_and_the_lowest_rank_is_read() {
    let param = param(8, &[(4, 8, 2), (0, 4, 1), (0, 4, 0), (4, 8, 3)]);
    assert_eq!(param.check(), Ok(()));
    assert_eq!(param.chunks().len(), 4);
    let read = [0, 3, 4, 7, 8].map(|position| tp_of(&param, position));
    assert_eq!(read, [Some(0), Some(0), Some(2), Some(2), None]);
    assert_eq!(param.chunk_of(&[5]).map(|chunk| chunk.rank.tp), Some(2));
    assert_eq!(param.chunk_of(&[8]), None);
}

/// Whichever is met first, and whatever the ranks.
#[test]
fn a_copy_is_read_only_where_there_is_nothing_else() {
    let mut param = param(8, &[(0, 4, 5)]);
    param.add_copy(chunk(&[4..8], 1));
    param.add_copy(chunk(&[0..4], 0));
    assert_eq!(param.check(), Ok(()));
    let read = [0, 3, 4, 8].map(|position| tp_of(&param, position));
    assert_eq!(read, [Some(5), Some(5), Some(1), None]);
    let stored: Vec<_> = param.stored().iter().map(|c| c.rank.tp).collect();
    assert_eq!((stored, param.chunks().len()), (vec![5, 0, 1], 1));
}

#[test]
fn gaps_and_overlaps_are_found() {
    let said = |spans: &[(u64, u64, u32)]| param(8, spans).check().unwrap_err().to_string();
    assert_eq!(said(&[(0, 4, 0)]), "no file holds positions 4 to 8 of its 8");
    assert_eq!(said(&[(4, 8, 0)]), "no file holds positions 0 to 4 of its 8");
    assert_eq!(said(&[(0, 2, 0), (6, 8, 1)]), "no file holds positions 2 to 6 of its 8");
    assert_eq!(
        said(&[(0, 4, 0), (2, 8, 1)]),
        "positions 0 to 4 in one file overlap positions 2 to 8 in another"
    );
    assert_eq!(param(0, &[]).check(), Ok(()));
}

/// A grid of two rows and two columns, the second column cut once more, with a replica.
#[test]
fn rows_of_a_grid_are_what_the_same_pieces_hold() {
    let mut param = Param::new("p".into(), Dtype::Int8, Shape(vec![8, 6]), 0);
    for (tp, ranges) in
        [[6..8, 4..6], [4..8, 0..4], [0..4, 4..6], [4..6, 4..6], [0..4, 0..4], [0..4, 0..4]].iter().enumerate()
    {
        param.add(chunk(ranges, tp as u32));
    }
    assert!(param.is_grid());
    assert_eq!(param.check(), Ok(()));
    let row = |position| {
        let row = param.row_at(position)?;
        let Held::Several(held) = row.held else { panic!("{row:?}") };
        Some((row.span, held.iter().map(|chunk| chunk.rank.tp).collect::<Vec<_>>()))
    };
    assert_eq!([row(0), row(3)], [Some((0..4, vec![4, 2])), Some((0..4, vec![4, 2]))]);
    assert_eq!([row(4), row(5)], [Some((4..6, vec![1, 3])), Some((4..6, vec![1, 3]))]);
    assert_eq!([row(6), row(7), row(8)], [Some((6..8, vec![1, 0])), Some((6..8, vec![1, 0])), None]);
    assert_eq!(param.chunk_of(&[5, 4]).map(|chunk| chunk.rank.tp), Some(3));
}

/// Whole rows between broken ones are one piece again, and end where another begins.
#[test]
fn whole_rows_among_broken_ones_are_held_by_one() {
    let mut param = Param::new("p".into(), Dtype::Int8, Shape(vec![6, 4]), 0);
    for (tp, ranges) in [[0..3, 0..4], [3..4, 0..1], [3..4, 1..4], [4..6, 0..4]].iter().enumerate() {
        param.add(chunk(ranges, tp as u32));
    }
    assert_eq!(param.check(), Ok(()));
    let spans = [0, 2, 4, 5].map(|position| param.row_at(position).unwrap());
    assert!(spans.iter().all(|row| matches!(row.held, Held::One(_))));
    assert_eq!(spans.iter().map(|row| row.span.clone()).collect::<Vec<_>>(), [0..3, 0..3, 4..6, 4..6]);
    let broken = param.row_at(3).unwrap();
    assert!(matches!(broken.held, Held::Several(held) if held.len() == 2));
    assert_eq!(broken.span, 3..4);
}
