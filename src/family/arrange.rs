//! Arrangements: which rows of a rank's tensor are which rows of the parameters it holds.
//!
//! Source: the layouts that Megatron-LM and Yuan-2.0 write, checked tensor by tensor against their files.

use crate::tensor::Band;

/// How a tensor holds its parameters along the axis they are cut on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// Every rank holds all of every parameter, one after the other.
    Replicated,
    /// A rank holds its part of each parameter, one after the other: gate then up.
    Concatenated,
    /// The parameters alternate in this many groups, and the whole is cut in equal parts: q, k, v per query group.
    Interleaved {
        /// Number of groups, at least 1.
        groups: u64,
    },
    /// The parameters one after the other, in each of which the rows of the two halves of a head alternate: the pairs that rotary embeddings turn stand together, as
    /// Meta's code has them, where the parameter has half beside half.
    Paired {
        /// Rows of a head, an even number.
        head: u64,
    },
}

/// Sizes that do not go into the arrangement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArrangeError {
    /// Rows that cannot be shared out.
    #[error("its {rows} rows do not divide by {by} ({why})")]
    Indivisible {
        /// Rows of the whole tensor.
        rows: u64,
        /// What they must divide by.
        by: u64,
        /// What that number is.
        why: &'static str,
    },
    /// Sizes beyond 64 bits.
    #[error("its size is beyond reason")]
    Overflow,
}

/// Rows of each parameter in a tensor of `rows` rows that shares them out by `shares`.
///
/// # Errors
/// [`ArrangeError`] where they do not divide.
pub fn part_sizes(rows: u64, shares: &[u64]) -> Result<Vec<u64>, ArrangeError> {
    let sum: u64 =
        shares.iter().try_fold(0u64, |sum, share| sum.checked_add(*share)).ok_or(ArrangeError::Overflow)?;
    if sum == 0 || !rows.is_multiple_of(sum) {
        return Err(ArrangeError::Indivisible { rows, by: sum, why: "the parameters it holds" });
    }
    shares.iter().map(|share| (rows / sum).checked_mul(*share).ok_or(ArrangeError::Overflow)).collect()
}

impl Arrangement {
    /// The bands of rank `rank` of `tp`, for parameters of these (global) sizes.
    ///
    /// # Errors
    /// [`ArrangeError`] where a size does not divide.
    pub fn bands(self, parts: &[u64], tp: u64, rank: u64) -> Result<Vec<Band>, ArrangeError> {
        self.bands_with_copies(parts, &[], tp, rank)
    }

    /// As [`Arrangement::bands`], where a part is cut in at most as many as `most` says for it: then several ranks hold the same. A tensor
    /// whose parts alternate knows no such bound.
    ///
    /// # Errors
    /// As [`Arrangement::bands`].
    pub fn bands_with_copies(
        self,
        parts: &[u64],
        most: &[Option<u64>],
        tp: u64,
        rank: u64,
    ) -> Result<Vec<Band>, ArrangeError> {
        match self {
            Self::Replicated => Ok(one_after_the_other(parts, |_, size| Ok((0, size)))?),
            Self::Concatenated => one_after_the_other(parts, |part, size| {
                let ways = most.get(part).copied().flatten().map_or(tp, |most| most.min(tp));
                let indivisible =
                    |rows, by| ArrangeError::Indivisible { rows, by, why: "the tensor-parallel size" };
                if ways == 0 || size % ways != 0 {
                    return Err(indivisible(size, ways));
                }
                if !tp.is_multiple_of(ways) {
                    return Err(indivisible(tp, ways));
                }
                Ok((size / ways * (rank / (tp / ways)), size / ways))
            }),
            Self::Interleaved { groups } => interleaved(parts, groups, tp, rank),
            Self::Paired { head } => paired(parts, head, tp, rank),
        }
    }
}

/// A band for each part: `take` says which of its rows.
fn one_after_the_other(
    parts: &[u64],
    take: impl Fn(usize, u64) -> Result<(u64, u64), ArrangeError>,
) -> Result<Vec<Band>, ArrangeError> {
    let mut at: u64 = 0;
    let mut bands = Vec::with_capacity(parts.len());
    for (part, size) in parts.iter().enumerate() {
        let (from, len) = take(part, *size)?;
        if len > 0 {
            bands.push(Band::once(part, at, from, len));
        }
        at = at.checked_add(len).ok_or(ArrangeError::Overflow)?;
    }
    Ok(bands)
}

/// The rows of all groups are cut in `tp` equal parts. A part is whole groups with at most one broken group at either end.
fn interleaved(parts: &[u64], groups: u64, tp: u64, rank: u64) -> Result<Vec<Band>, ArrangeError> {
    let mut in_group = Vec::with_capacity(parts.len());
    for size in parts {
        if groups == 0 || size % groups != 0 {
            return Err(ArrangeError::Indivisible { rows: *size, by: groups, why: "the number of groups" });
        }
        in_group.push(size / groups);
    }
    let group: u64 = in_group.iter().sum();
    let rows = group.checked_mul(groups).ok_or(ArrangeError::Overflow)?;
    if tp == 0 || rows % tp != 0 {
        return Err(ArrangeError::Indivisible { rows, by: tp, why: "the tensor-parallel size" });
    }
    if group == 0 {
        return Ok(Vec::new());
    }
    let (start, end) = (rows / tp * rank, rows / tp * (rank + 1));
    let first_whole = start.div_ceil(group);
    let after_whole = (end / group).max(first_whole);
    let mut bands = Vec::new();
    let broken = |index: u64, bands: &mut Vec<Band>| {
        let (from, to) = (start.max(index * group), end.min((index + 1) * group));
        let mut part_start = index * group;
        for (part, len) in in_group.iter().enumerate() {
            let (low, high) = (from.max(part_start), to.min(part_start + len));
            if low < high {
                bands.push(Band::once(part, low - start, index * len + (low - part_start), high - low));
            }
            part_start += len;
        }
    };
    if start < (first_whole * group).min(end) {
        broken(first_whole - 1, &mut bands);
    }
    let mut within = 0;
    for (part, len) in in_group.iter().enumerate() {
        if *len > 0 && after_whole > first_whole {
            bands.push(Band {
                part,
                at: first_whole * group - start + within,
                from: first_whole * len,
                len: *len,
                repeat: after_whole - first_whole,
                at_step: group,
                from_step: *len,
            });
        }
        within += len;
    }
    if after_whole >= first_whole && after_whole * group < end && after_whole * group >= start {
        broken(after_whole, &mut bands);
    }
    Ok(bands)
}

/// More heads has no model; each is two bands.
const MOST_HEADS: u64 = 1 << 16;

/// Two bands for each head: what stands at even places comes from its first half, what stands at odd ones from its second.
fn paired(parts: &[u64], head: u64, tp: u64, rank: u64) -> Result<Vec<Band>, ArrangeError> {
    if head == 0 || !head.is_multiple_of(2) {
        return Err(ArrangeError::Indivisible { rows: head, by: 2, why: "the halves of a head" });
    }
    let whole = head.checked_mul(tp).filter(|whole| *whole > 0).ok_or(ArrangeError::Overflow)?;
    let half = head / 2;
    let (mut bands, mut start) = (Vec::new(), 0);
    for (part, size) in parts.iter().enumerate() {
        if size % whole != 0 {
            return Err(ArrangeError::Indivisible { rows: *size, by: whole, why: "whole heads on every rank" });
        }
        let heads = size / whole;
        if heads > MOST_HEADS {
            return Err(ArrangeError::Overflow);
        }
        for (number, odd) in (0..heads).flat_map(|number| [(number, 0), (number, 1)]) {
            bands.push(Band {
                part,
                at: start + number * head + odd,
                from: (rank * heads + number) * head + odd * half,
                len: 1,
                repeat: half,
                at_step: if half > 1 { 2 } else { 1 },
                from_step: 1,
            });
        }
        start += heads * head;
    }
    Ok(bands)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What each row of the whole interleaved tensor is, row by row: (part, row of the part).
    fn naive_rows(parts: &[u64], groups: u64) -> Vec<(usize, u64)> {
        let mut rows = Vec::new();
        for g in 0..groups {
            for (part, size) in parts.iter().enumerate() {
                let len = size / groups;
                rows.extend((0..len).map(|row| (part, g * len + row)));
            }
        }
        rows
    }

    fn rows_of(bands: &[Band]) -> Vec<(usize, u64)> {
        let mut rows: Vec<(u64, usize, u64)> = Vec::new();
        for run in bands.iter().flat_map(|band| band.runs()) {
            rows.extend((0..run.len).map(|i| (run.at + i, run.part, run.from + i)));
        }
        rows.sort_unstable();
        assert!(rows.iter().enumerate().all(|(i, row)| row.0 == i as u64), "gap or overlap: {rows:?}");
        rows.into_iter().map(|(_, part, row)| (part, row)).collect()
    }

    #[test]
    fn gate_and_up_are_cut_each() {
        let bands = Arrangement::Concatenated.bands(&[8, 8], 4, 1).unwrap();
        assert_eq!(bands, [Band::once(0, 0, 2, 2), Band::once(1, 2, 2, 2)]);
        assert!(Arrangement::Concatenated.bands(&[8, 8], 3, 0).is_err());
    }

    #[test]
    fn ranks_beyond_the_groups_hold_copies() {
        let bands =
            |rank| Arrangement::Concatenated.bands_with_copies(&[16, 4], &[None, Some(2)], 8, rank).unwrap();
        assert_eq!(bands(0), [Band::once(0, 0, 0, 2), Band::once(1, 2, 0, 2)]);
        assert_eq!(bands(3), [Band::once(0, 0, 6, 2), Band::once(1, 2, 0, 2)]);
        assert_eq!(bands(4), [Band::once(0, 0, 8, 2), Band::once(1, 2, 2, 2)]);
        assert!(Arrangement::Concatenated.bands_with_copies(&[16, 4], &[None, Some(3)], 8, 0).is_err());
    }

    #[test]
    fn whole_groups_are_one_band_per_parameter() {
        let bands = Arrangement::Interleaved { groups: 4 }.bands(&[32, 16, 16], 2, 1).unwrap();
        assert_eq!(bands.len(), 3);
        assert_eq!(bands[0], Band { part: 0, at: 0, from: 16, len: 8, repeat: 2, at_step: 16, from_step: 8 });
    }

    #[test]
    fn heads_of_odd_length_have_no_halves() {
        let bands = |rows, head, tp| Arrangement::Paired { head }.bands(&[rows], tp, 0);
        assert!(bands(12, 4, 1).is_ok());
        assert!(bands(12, 3, 1).is_err());
        assert!(bands(12, 0, 1).is_err());
        assert!(bands(12, 4, 2).is_err());
        assert!(bands(1 << 40, 2, 1).is_err());
    }

    proptest! {
        /// As the code that makes such files of others says it: the rows of a head as two halves, transposed.
        #[test]
        fn pairs_are_halves_transposed(heads in 1u64..5, half in 1u64..6, tp in 1u64..4) {
            let (head, all) = (2 * half, heads * tp);
            let mut whole = vec![0; (all * head) as usize];
            for (h, i, j) in (0..all).flat_map(|h| (0..half).flat_map(move |i| (0..2).map(move |j| (h, i, j)))) {
                whole[(h * head + 2 * i + j) as usize] = h * head + j * half + i;
            }
            for rank in 0..tp {
                let bands = Arrangement::Paired { head }.bands(&[all * head], tp, rank).unwrap();
                let rows: Vec<u64> = rows_of(&bands).into_iter().map(|(_, row)| row).collect();
                let len = (heads * head) as usize;
                prop_assert_eq!(rows, &whole[rank as usize * len..(rank as usize + 1) * len]);
            }
        }

        #[test]
        fn interleaved_parts_are_the_naive_rows(
            groups in 1u64..6, per in proptest::collection::vec(0u64..5, 1..4), tp in 1u64..9,
        ) {
            let parts: Vec<u64> = per.iter().map(|n| n * groups).collect();
            let whole = naive_rows(&parts, groups);
            let tp_fits = (whole.len() as u64).is_multiple_of(tp);
            for rank in 0..tp {
                let bands = Arrangement::Interleaved { groups }.bands(&parts, tp, rank);
                prop_assert_eq!(bands.is_ok(), tp_fits);
                let Ok(bands) = bands else { continue };
                let len = whole.len() / tp as usize;
                prop_assert!(bands.len() <= 3 * parts.len());
                prop_assert_eq!(rows_of(&bands), &whole[rank as usize * len..(rank as usize + 1) * len]);
            }
        }
    }
}
