//! Plain tables and sizes for people.

use super::error::in_one_line;

pub(super) use crate::picture::bytes;

/// Rows with their columns aligned, two spaces apart. Columns named in `right` are aligned right.
///
/// A cell longer than a screen is wide moves what stands right of it; nothing else is moved for its sake.
pub(super) fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    const WIDEST: usize = 200;
    // Names in files may hold anything.
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| in_one_line(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0).min(WIDEST)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = widths.get(column).copied().unwrap_or(0);
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".into(), "10".into()], vec!["bcd".into(), "9".into()]];
        assert_eq!(table(&rows, &[1]), "a    10\nbcd   9\n");
    }

    #[test]
    fn a_cell_stays_in_its_row() {
        assert_eq!(table(&[vec!["a\nb".into(), "c".into()]], &[]), "a\\nb  c\n");
    }

    #[test]
    fn a_cell_may_be_longer_than_a_width_can_be() {
        let rows = [vec!["x".repeat(70_000), "1".into()], vec!["a".into(), "2".into()]];
        let text = table(&rows, &[]);
        let lines: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(lines, [70_003, 203]);
    }
}
