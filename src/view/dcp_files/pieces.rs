//! In which pieces tensors are stored, so that who wants a part of one reads little else.
//!
//! A loader reads whole pieces. It wants a tensor-parallel rank's rows or columns of one layer or expert, so a tensor is cut there as a run of
//! many ranks would have cut it: each half of a gated tensor by itself, query groups left whole. More pieces than a reader gains from cost it
//! time, for each is an archive of its own.

use std::ops::Range;

use crate::plan::{Part, Source};
use crate::tensor::Band;

/// Tensor-parallel ranks that tensors are cut for, if pieces are not too small then. Those of fewer ranks read several.
const RANKS: u64 = 8;
/// Bytes above which a piece is cut further where it can be: what a rank reads too much is less than twice that for a tensor.
const LARGEST: u64 = 64 << 20;
/// About as many pieces as a checkpoint has at most, where cutting less can help it.
const MANY: u64 = 1 << 16;

/// Bytes below which pieces of a checkpoint of so many bytes are not cut, unless `least` is more.
pub(in crate::view) fn least_bytes(all: u64, least: u64) -> u64 {
    least.max((all / MANY).min(LARGEST))
}

/// The pieces of a tensor that is this part: positions along its axis, in order, that together are all of it. `position` is the bytes of one,
/// `least` those of the smallest piece.
pub(in crate::view) fn of(part: &Part<'_>, position: u64, least: u64) -> Vec<Range<u64>> {
    let mut pieces = Vec::new();
    for Stretch { from, len, unit } in stretches(part) {
        let units = len / unit;
        let ways = ways(units, len.saturating_mul(position), least);
        // Evenly, as far as that goes.
        let start = |way: u64| from + (u128::from(units) * u128::from(way) / u128::from(ways)) as u64 * unit;
        pieces.extend((0..ways).map(|way| start(way)..start(way + 1)));
    }
    pieces
}

/// In how many pieces `units` are cut that have so many bytes together.
fn ways(units: u64, bytes: u64, least: u64) -> u64 {
    let mut ways = 1;
    while ways * 2 <= units && ((ways < RANKS && bytes / (ways * 2) >= least) || bytes / ways > LARGEST) {
        ways *= 2;
    }
    ways
}

/// Positions that ranks share out among them, in whole units.
struct Stretch {
    from: u64,
    len: u64,
    unit: u64,
}

/// The stretches of a part: one for each parameter it holds; where these stand in it group by group, one of all groups.
fn stretches(part: &Part<'_>) -> Vec<Stretch> {
    let mut bands: Vec<&Band> = part.bands.iter().map(|(band, _)| band).collect();
    bands.sort_by_key(|band| band.at);
    if let Some(group) = bands.iter().find(|band| band.repeat > 1) {
        return vec![Stretch { from: 0, len: group.at_step * group.repeat, unit: group.at_step }];
    }
    let mut found: Vec<(usize, Stretch)> = Vec::new();
    for band in bands {
        match found.last_mut() {
            Some((of, stretch)) if *of == band.part => stretch.len += band.positions(),
            _ => found.push((band.part, Stretch { from: band.at, len: band.positions(), unit: 1 })),
        }
    }
    found.into_iter().map(|(_, stretch)| stretch).collect()
}

/// What stands at these positions of a part: a piece of [`of`], which never ends within a group.
pub(in crate::view) fn window<'c>(part: &Part<'c>, piece: &Range<u64>) -> Part<'c> {
    let bands = part.bands.iter().filter_map(|(band, source)| Some((cut(band, piece)?, *source)));
    let bands: Vec<(Band, Source<'c>)> = bands.collect();
    Part { shape: part.shape.with(part.axis, piece.end - piece.start), axis: part.axis, bands }
}

/// The runs of a band that begin at these positions, as far as they lie there, counted from where these begin.
fn cut(band: &Band, piece: &Range<u64>) -> Option<Band> {
    if band.repeat > 1 {
        let first = piece.start.saturating_sub(band.at).div_ceil(band.at_step);
        let after = piece.end.saturating_sub(band.at).div_ceil(band.at_step).min(band.repeat);
        let (at, from) = (band.at + first * band.at_step, band.from + first * band.from_step);
        return (first < after).then(|| Band { at: at - piece.start, from, repeat: after - first, ..*band });
    }
    let (start, end) = (piece.start.max(band.at), piece.end.min(band.at + band.len));
    (start < end).then(|| Band::once(band.part, start - piece.start, band.from + (start - band.at), end - start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Fill;
    use crate::tensor::Shape;

    fn part(bands: &[Band]) -> Part<'static> {
        let rows = bands.iter().map(Band::positions).sum();
        let bands = bands.iter().map(|band| (*band, Source::Fill(Fill::Zero))).collect();
        Part { shape: Shape(vec![rows, 4]), axis: 0, bands }
    }

    fn group(part: usize, at: u64, len: u64) -> Band {
        Band { part, at, from: 0, len, repeat: 6, at_step: 10, from_step: len }
    }

    #[test]
    fn halves_are_cut_each_by_itself_and_groups_stay_whole() {
        let gated = part(&[Band::once(0, 0, 0, 12), Band::once(1, 12, 0, 12)]);
        assert_eq!(of(&gated, 4, 24), [0..6, 6..12, 12..18, 18..24]);
        // New rows belong to what they lengthen.
        let padded = part(&[Band::once(0, 0, 0, 5), Band::once(0, 5, 5, 3)]);
        assert_eq!(of(&padded, 4, 16), [0..4, 4..8]);
        let fused = part(&[group(0, 0, 6), group(1, 6, 2), group(2, 8, 2)]);
        assert_eq!(of(&fused, 4, 1), [0..10, 10..30, 30..40, 40..60]);
    }

    #[test]
    fn pieces_are_neither_small_nor_large() {
        assert_eq!([1, 2, 7, 8, 100].map(|units| ways(units, 1 << 20, 1)), [1, 2, 4, 8, 8]);
        assert_eq!([1 << 20, (1 << 20) - 1, 1 << 23].map(|bytes| ways(100, bytes, 1 << 19)), [2, 1, 8]);
        assert_eq!(ways(1 << 20, 1 << 30, 1 << 20), 16);
        assert_eq!((least_bytes(1 << 30, 1 << 20), least_bytes(1 << 40, 1 << 20)), (1 << 20, 1 << 24));
    }

    #[test]
    fn pieces_together_are_the_part() {
        let fused = part(&[group(0, 0, 6), group(1, 6, 2), group(2, 8, 2)]);
        let gated = part(&[Band::once(0, 0, 3, 7), Band::once(1, 7, 0, 9)]);
        for whole in [fused, gated] {
            let positions = |part: &Part<'_>, start: u64| {
                let runs = part.bands.iter().flat_map(|(band, _)| band.runs());
                let each = runs.flat_map(|run| (0..run.len).map(move |k| (run.part, run.at + k, run.from + k)));
                each.map(|(part, at, from)| (start + at, part, from)).collect::<Vec<_>>()
            };
            for least in [1, 8, 40] {
                let pieces = of(&whole, 4, least);
                let parts = pieces.iter().map(|piece| (piece.start, window(&whole, piece)));
                let mut all: Vec<_> = parts.flat_map(|(start, part)| positions(&part, start)).collect();
                let mut wanted = positions(&whole, 0);
                all.sort_unstable();
                wanted.sort_unstable();
                assert_eq!(all, wanted);
            }
        }
    }
}
