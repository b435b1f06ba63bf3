//! Pieces of bands against each position looked at alone.

use super::*;
use crate::extent::ObjectId;
use crate::layout::Rank;

fn piece(ranges: &[Range<u64>], start: u64, strides: &[u64]) -> Chunk {
    Chunk {
        region: Region::new(ranges.to_vec()),
        rank: Rank { pp: 0, tp: 0, ep: 0 },
        object: ObjectId(0),
        start,
        strides: strides.to_vec(),
        period: None,
    }
}

/// Every band on every piece of a tensor of some rows, against looking at each position alone.
#[test]
fn pieces_of_a_band_are_its_positions() {
    let rows = 24u64;
    let bands = [
        Band::once(0, 3, 5, 9),
        Band { part: 0, at: 2, from: 4, len: 3, repeat: 4, at_step: 5, from_step: 3 },
        Band { part: 0, at: 1, from: 7, len: 1, repeat: 6, at_step: 2, from_step: 1 },
        Band { part: 0, at: 0, from: 0, len: 2, repeat: 3, at_step: 7, from_step: 4 },
        Band { part: 0, at: 0, from: 0, len: 4, repeat: 6, at_step: 4, from_step: 4 },
    ];
    for band in bands {
        for (start, end) in (0..=rows).flat_map(|start| (start..=rows).map(move |end| (start, end))) {
            // Position p of the tensor is at byte 1000 + 10 * (p - start).
            let piece = piece(&[start..end, 2..5], 1000, &[10, 1]);
            let mut found = Vec::new();
            of_band(&piece, &band, 0, &mut found).unwrap();
            let mut got: Vec<(u64, u64)> = Vec::new();
            for chunk in &found {
                assert_eq!(chunk.region.along(1), 2..5);
                got.extend(chunk.region.along(0).map(|position| (position, chunk.byte_of(position, 0, 10))));
            }
            got.sort_unstable();
            let runs = band.runs().flat_map(|run| (0..run.len).map(move |k| (run.from + k, run.at + k)));
            let held = runs.filter(|(_, at)| (start..end).contains(at));
            let mut wanted: Vec<(u64, u64)> = held.map(|(from, at)| (from, 1000 + 10 * (at - start))).collect();
            wanted.sort_unstable();
            assert_eq!(got, wanted, "{band:?} of {start}..{end}");
            assert!(found.len() <= if band.from_step == band.len || band.repeat == 1 { 3 } else { 5 });
        }
    }
}

#[test]
fn pieces_beyond_64_bits_are_none() {
    let mut found = Vec::new();
    assert_eq!(of_band(&piece(&[0..4], u64::MAX, &[1]), &Band::once(0, 1, 0, 2), 0, &mut found), None);
    assert_eq!(of_band(&piece(&[0..4], 0, &[]), &Band::once(0, 1, 0, 2), 1, &mut found), Some(()));
    assert_eq!(pieces_at(&[piece(&[0..4], 0, &[])], 2), None);
}

#[test]
fn what_stands_at_an_index_is_what_pieces_have_there() {
    let all = [piece(&[0..2, 0..6], 100, &[60, 10]), piece(&[2..4, 0..3], 500, &[30, 10]), piece(&[2..4, 3..6], 0, &[30, 10])];
    let at = |index| {
        let found = pieces_at(&all, index).unwrap();
        found.iter().map(|piece| (piece.region.to_string(), piece.start)).collect::<Vec<_>>()
    };
    assert_eq!(at(1), [("[0:6]".to_owned(), 160)]);
    assert_eq!(at(3), [("[0:3]".to_owned(), 530), ("[3:6]".to_owned(), 30)]);
    assert!(at(4).is_empty());
}
