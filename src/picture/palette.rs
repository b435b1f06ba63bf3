//! How units of a source are told apart: by a colour of Okabe and Ito's palette, which everybody tells apart, and by a pattern.

use crate::inspect::Side;

/// In an order in which neighbours, the last and the first too, are told apart best by those who see them worst: of all orders this has the
/// largest least difference, by Lab, of normal sight, protanopia, deuteranopia and tritanopia (as Machado and others model them, 2009).
pub(super) const COLOURS: [&str; 7] =
    ["#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2"];

/// Whether text on the colour is light.
pub(super) const DARK: [bool; 7] = [false, false, false, false, false, false, true];

/// The nearest colours of a terminal with 256.
pub(super) const TERMINAL: [u8; 7] = [74, 214, 36, 227, 175, 166, 25];

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

#[cfg(test)]
mod tests {
    use super::*;

    type Triple = [f64; 3];

    /// How red, green and blue are seen, in linear light.
    const SIGHTS: [(&str, [Triple; 3]); 4] = [
        ("all", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        ("no red", [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
        ("no green", [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
        ("no blue", [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
    ];
    const XYZ: [Triple; 3] = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]];

    fn by(matrix: &[Triple; 3], light: Triple) -> Triple {
        matrix.map(|row| row.iter().zip(light).map(|(factor, light)| factor * light).sum())
    }

    fn light(colour: &str) -> Triple {
        let part = |at: usize| f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
        [1, 3, 5].map(part).map(|part| if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) })
    }

    fn lab(light: Triple) -> Triple {
        let white = by(&XYZ, [1.0; 3]);
        let xyz = by(&XYZ, light.map(|part| part.clamp(0.0, 1.0)));
        let curve = |part: f64| if part > 0.008856 { part.cbrt() } else { 7.787 * part + 16.0 / 116.0 };
        let [x, y, z] = [0, 1, 2].map(|at| curve(xyz[at] / white[at]));
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    #[test]
    fn neighbours_are_told_apart_by_everybody() {
        for (number, colour) in COLOURS.iter().enumerate() {
            let next = COLOURS[(number + 1) % COLOURS.len()];
            for (sight, matrix) in &SIGHTS {
                let (one, other) = (lab(by(matrix, light(colour))), lab(by(matrix, light(next))));
                let difference = one.iter().zip(other).map(|(one, other)| (one - other).powi(2)).sum::<f64>().sqrt();
                assert!(difference > 24.0, "{colour} and {next} differ by {difference:.0} for {sight}");
            }
        }
    }

    #[test]
    fn text_is_light_on_what_is_dark() {
        for (colour, is_dark) in COLOURS.iter().zip(DARK) {
            let [_, luminance, _] = by(&XYZ, light(colour));
            let contrast = if is_dark { 1.05 / (luminance + 0.05) } else { (luminance + 0.05) / 0.05 };
            assert!(contrast >= 4.5, "{colour}: {contrast:.1}");
        }
    }
}
