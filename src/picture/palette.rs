//! How units of a source are told apart: by a colour of Okabe and Ito's palette, which everybody tells apart, and by a pattern.

use crate::inspect::Side;

/// Colours whose neighbours differ most, also in lightness.
pub(super) const COLOURS: [&str; 7] =
    ["#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00"];

/// Whether text on the colour is light.
pub(super) const DARK: [bool; 7] = [false, false, false, false, false, true, false];

/// The nearest colours of a terminal with 256.
pub(super) const TERMINAL: [u8; 7] = [74, 214, 36, 175, 227, 25, 166];

/// Paths of the patterns in a tile of eight by eight; the first is none.
pub(super) const PATTERNS: [&str; 6] = [
    "",
    "M-2 2L2 -2M0 8L8 0M6 10L10 6",
    "M-2 6L2 10M0 0L8 8M6 -2L10 2",
    "M0 2H8M0 6H8",
    "M2 0V8M6 0V8",
    "M0 0L8 8M8 0L0 8",
];

/// A colour and a pattern, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ink {
    pub(super) colour: usize,
    pub(super) pattern: usize,
}

/// The ink of every unit of a source: stages have colours and the ranks of a stage have patterns; of files each has the next colour.
pub(super) fn inks(source: &Side) -> Vec<Ink> {
    let mut ranks: Vec<(u32, u32)> = source.units.iter().filter_map(|unit| unit.rank).map(|rank| (rank.tp, rank.ep)).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let stages = source.units.iter().filter_map(|unit| unit.rank).map(|rank| rank.pp).max();
    let ink = |(number, unit): (usize, &crate::inspect::Unit)| match unit.rank {
        // Without stages, ranks would differ in nothing but the pattern.
        Some(rank) if stages > Some(0) => {
            let (Ok(beside) | Err(beside)) = ranks.binary_search(&(rank.tp, rank.ep));
            Ink { colour: rank.pp as usize % COLOURS.len(), pattern: beside % PATTERNS.len() }
        }
        _ => Ink { colour: number % COLOURS.len(), pattern: number / COLOURS.len() % PATTERNS.len() },
    };
    source.units.iter().enumerate().map(ink).collect()
}
