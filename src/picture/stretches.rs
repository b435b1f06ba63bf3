//! Neighbouring cells that look the same, as one stretch.

use crate::inspect::{Cell, Portion, Section, Unit};

/// A stretch of sections that a unit holds from the same places, in the same proportions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Columns of its first and its last section.
    pub(super) columns: (usize, usize),
    /// Bytes by unit of the source.
    pub(super) from: Vec<Portion>,
    /// Bytes that are in no file.
    pub(super) fill: u64,
    /// Bytes.
    pub(super) bytes: u64,
}

/// The stretches of a unit.
pub(super) fn stretches(unit: &Unit, sections: &[Section]) -> Vec<Stretch> {
    let mut all: Vec<Stretch> = Vec::new();
    for cell in &unit.cells {
        let Ok(column) = sections.binary_search(&cell.section) else { continue };
        match all.last_mut() {
            Some(stretch) if stretch.columns.1 + 1 == column && looks_like(stretch, cell) => {
                stretch.columns.1 = column;
                stretch.from.iter_mut().zip(&cell.from).for_each(|(all, more)| {
                    all.bytes += more.bytes;
                    all.shared += more.shared;
                });
                stretch.fill += cell.fill;
                stretch.bytes += cell.bytes;
            }
            _ => all.push(Stretch {
                columns: (column, column),
                from: cell.from.clone(),
                fill: cell.fill,
                bytes: cell.bytes,
            }),
        }
    }
    all
}

/// Whether shares differ by less than can be seen.
fn looks_like(stretch: &Stretch, cell: &Cell) -> bool {
    let near = |one: u64, other: u64| (share(one, stretch.bytes) - share(other, cell.bytes)).abs() < 0.05;
    stretch.from.len() == cell.from.len()
        && stretch.from.iter().zip(&cell.from).all(|(one, other)| {
            one.unit == other.unit && near(one.bytes, other.bytes) && near(one.shared, other.shared)
        })
        && near(stretch.fill, cell.fill)
}

/// `part` of `whole`, from 0 to 1.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Columns of the first and the last section of each stretch that a unit holds without a gap.
pub(super) fn runs(unit: &Unit, sections: &[Section]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for column in unit.cells.iter().filter_map(|cell| sections.binary_search(&cell.section).ok()) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == column => *last = column,
            _ => runs.push((column, column)),
        }
    }
    runs
}
