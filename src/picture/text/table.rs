//! Who of a view holds what, in words: a row for each unit, or for those that look the same.

use crate::inspect::{Cell, Map, Unit};
use crate::picture::stretches::{runs, share};
use crate::picture::columns::words;
use crate::picture::lanes::{Lane, through};
use crate::picture::size::bytes;

/// Rows of the table, its head at first.
pub(super) fn rows(map: &Map, lanes: &[Lane]) -> Vec<[String; 6]> {
    let is_ranked = map.to.units.iter().all(|unit| unit.rank.is_some());
    let head = [if is_ranked { "rank" } else { "file" }, "holds", "from", "bytes", "cut", "held by others too"];
    let mut told: Vec<(usize, [String; 6])> = Vec::new();
    for lane in lanes {
        for (place, number) in lane.units.iter().enumerate() {
            let Some(unit) = map.to.units.get(*number) else { continue };
            let last = lane.alike.last().and_then(|units| units.get(place)).and_then(|last| map.to.units.get(*last));
            told.push((*number, row(map, unit, last, lane.alike.len())));
        }
    }
    told.sort_by_key(|(number, _)| *number);
    std::iter::once(head.map(str::to_owned)).chain(told.into_iter().map(|(_, row)| row)).collect()
}

fn row(map: &Map, unit: &Unit, last: Option<&Unit>, count: usize) -> [String; 6] {
    let name = match last {
        Some(last) if count > 1 => through(&unit.name, &last.name),
        _ => unit.name.clone(),
    };
    let held = runs(unit, &map.sections).into_iter().map(|run| words(&map.sections, run)).collect::<Vec<_>>().join(", ");
    let each = if count > 1 { format!("{} each", bytes(unit.bytes)) } else { bytes(unit.bytes) };
    let percent = |of: fn(&Cell) -> u64| format!("{:.0} %", 100.0 * share(unit.cells.iter().map(of).sum(), unit.bytes));
    [name, held, sources(map, unit), each, percent(|cell| cell.cut), percent(|cell| cell.shared)]
}

/// The units of the source that it is read from: all, or the first, the last and how many.
fn sources(map: &Map, unit: &Unit) -> String {
    let mut all: Vec<usize> = unit.cells.iter().flat_map(|cell| &cell.from).map(|portion| portion.unit).collect();
    all.sort_unstable();
    all.dedup();
    let names: Vec<&str> = all.iter().filter_map(|unit| map.from.units.get(*unit)).map(|unit| unit.name.as_str()).collect();
    match names.as_slice() {
        [first, .., last] if names.len() > 3 => format!("{first} .. {last} ({})", names.len()),
        names => names.join(", "),
    }
}

/// Columns two spaces apart, numbers aligned right.
pub(super) fn aligned(rows: &[[String; 6]]) -> String {
    let widths: [usize; 6] = std::array::from_fn(|column| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default().min(80)
    });
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if column < 3 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}
