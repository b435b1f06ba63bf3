//! Ranges along one axis cut into slabs, in each of which the same ranges lie from end to end.

use std::ops::Range;

/// Positions that the same ranges have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slab {
    /// The positions.
    pub span: Range<u64>,
    /// Which ranges have all of them, as indices, ascending.
    pub members: Vec<usize>,
}

/// Cuts `within` wherever a range begins or ends. The slabs follow each other without gaps; one that no range has has no members.
///
/// Takes time for each range in each slab, so in proportion to the answer.
#[must_use]
pub fn slabs(ranges: &[Range<u64>], within: Range<u64>) -> Vec<Slab> {
    let clipped = |(index, range): (usize, &Range<u64>)| {
        let range = range.start.max(within.start)..range.end.min(within.end);
        (!range.is_empty()).then_some((range, index))
    };
    let mut waiting: Vec<(Range<u64>, usize)> = ranges.iter().enumerate().filter_map(clipped).collect();
    waiting.sort_by_key(|(range, index)| (range.start, *index));
    let mut waiting = waiting.into_iter().peekable();
    let mut active: Vec<(Range<u64>, usize)> = Vec::new();
    let (mut found, mut at) = (Vec::new(), within.start);
    while at < within.end {
        active.retain(|(range, _)| range.end > at);
        while let Some(next) = waiting.next_if(|(range, _)| range.start <= at) {
            active.push(next);
        }
        let begins = waiting.peek().map(|(range, _)| range.start);
        let ends = active.iter().map(|(range, _)| range.end).min();
        let end = begins.into_iter().chain(ends).fold(within.end, u64::min);
        let mut members: Vec<usize> = active.iter().map(|(_, index)| *index).collect();
        members.sort_unstable();
        found.push(Slab { span: at..end, members });
        at = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(ranges: &[Range<u64>], within: Range<u64>) -> Vec<(Range<u64>, Vec<usize>)> {
        slabs(ranges, within).into_iter().map(|slab| (slab.span, slab.members)).collect()
    }

    #[test]
    fn slabs_begin_and_end_where_ranges_do() {
        assert_eq!(cut(&[0..4, 4..8], 0..8), [(0..4, vec![0]), (4..8, vec![1])]);
        assert_eq!(cut(&[4..8, 0..6], 0..8), [(0..4, vec![1]), (4..6, vec![0, 1]), (6..8, vec![0])]);
        assert_eq!(cut(&[2..3, 2..3], 0..4), [(0..2, vec![]), (2..3, vec![0, 1]), (3..4, vec![])]);
        assert_eq!(cut(&[0..9, 3..4], 2..6), [(2..3, vec![0]), (3..4, vec![0, 1]), (4..6, vec![0])]);
        assert_eq!(cut(&[5..5], 0..2), [(0..2, vec![])]);
        assert!(cut(&[0..4], 3..3).is_empty());
    }

    /// Against each position looked at alone.
    #[test]
    fn every_position_is_in_the_slab_of_its_ranges() {
        for seed in 0..500u64 {
            let number = |k: u64| (seed * 31 + k * 17) * (seed + 7 * k + 3) % 13;
            let ranges: Vec<_> = (0..seed % 6).map(|k| number(k)..number(k) + number(k + 100) % 5).collect();
            let found = slabs(&ranges, 1..12);
            assert!(found.windows(2).all(|pair| pair[0].span.end == pair[1].span.start && pair[0].members != pair[1].members));
            for position in 1..12 {
                let slab = found.iter().find(|slab| slab.span.contains(&position)).unwrap();
                let having = (0..ranges.len()).filter(|index| ranges[*index].contains(&position));
                assert_eq!(slab.members, having.collect::<Vec<_>>());
            }
        }
    }
}
