//! The picture for a terminal: a letter for each unit of the source, which its colour only repeats, and a table of who holds what.

mod table;

use super::stretches::runs;
use super::columns::short;
use super::escape::terminal;
use super::lanes::{Lane, lanes, merged};
use super::palette::{DARK, Ink, TERMINAL, inks};
use super::svg::{subtitle, title};
use crate::inspect::{Cell, Map, Section, Side, Unit};

/// What a terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Characters of a line.
    pub width: usize,
    /// Whether it shows colours.
    pub colour: bool,
    /// Whether it shows more characters than ASCII.
    pub unicode: bool,
}

/// What stands for units of the source, again and again where they are more.
const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// Most characters of a section.
const WIDEST: usize = 6;

/// The picture of `map`.
#[must_use]
pub fn text(map: &Map, style: Style) -> String {
    let inks = inks(&map.from);
    let sides = [("source", &map.from), ("view", &map.to)].map(|(name, side)| (name, side, merged(side, lanes(side))));
    let labels = sides.iter().flat_map(|(_, _, lanes)| lanes).map(|lane| lane.label.len());
    let gutter = labels.chain(["source".len()]).max().unwrap_or_default() + 2;
    let room = style.width.saturating_sub(gutter).max(10);
    let each = (room / map.sections.len().max(1)).clamp(1, WIDEST);
    let pen = Pen { map, inks: &inks, style, each, gutter };
    let mut out = format!("{}\n{}\n", pen.plain(&title(map)), pen.plain(&subtitle(map)));
    // Layers that find no room go on below, as a score does.
    let per_line = room / each;
    for start in (0..map.sections.len()).step_by(per_line) {
        let columns = start..(start + per_line).min(map.sections.len());
        out.push('\n');
        for (name, side, lanes) in &sides {
            if *name == "view" {
                pen.axis(&mut out, columns.clone());
            }
            pen.side(&mut out, name, side, lanes, columns.clone());
        }
    }
    out.push('\n');
    pen.letters(&mut out);
    out.push('\n');
    let rows = table::rows(map, &sides[1].2);
    out.push_str(&pen.plain(&table::aligned(&rows)));
    out
}

/// What is drawn with.
struct Pen<'a> {
    map: &'a Map,
    inks: &'a [Ink],
    style: Style,
    /// Characters of a section.
    each: usize,
    /// Characters in front of it all.
    gutter: usize,
}

type Columns = std::ops::Range<usize>;

impl Pen<'_> {
    /// Text without what the terminal does not show.
    fn plain(&self, text: &str) -> String {
        let text = terminal(text);
        if self.style.unicode { text } else { text.replace('\u{2192}', "->").replace(|c: char| !c.is_ascii(), "?") }
    }

    fn side(&self, out: &mut String, name: &str, side: &Side, lanes: &[Lane], columns: Columns) {
        for (number, lane) in lanes.iter().enumerate() {
            let is_named = number == 0 || side.units.iter().any(|unit| unit.rank.is_none());
            let names = if is_named { self.names(side, lane, columns.clone()) } else { String::new() };
            let mut label = lane.label.clone();
            if number == 0 {
                if label.is_empty() {
                    name.clone_into(&mut label);
                }
                let over = if label == name { "" } else { name };
                self.line(out, over, &names);
            } else {
                self.line(out, "", &names);
            }
            self.line(out, &label, &self.cells(side, lane, columns.clone()));
        }
    }

    fn line(&self, out: &mut String, label: &str, text: &str) {
        if !(label.is_empty() && text.trim().is_empty()) {
            out.push_str(format!("{label:<gutter$}{text}", gutter = self.gutter).trim_end());
            out.push('\n');
        }
    }

    /// Stages, or numbers of files, over what they hold.
    fn names(&self, side: &Side, lane: &Lane, columns: Columns) -> String {
        let mut line = vec![' '; columns.len() * self.each];
        let (left, dash, right) = if self.style.unicode { ('\u{251c}', '\u{2500}', '\u{2524}') } else { ('|', '-', '|') };
        for (unit, index) in lane.units.iter().filter_map(|index| Some((side.units.get(*index)?, *index))) {
            let name = match unit.rank {
                Some(rank) if unit.name.starts_with("pp") => format!("pp{}", rank.pp),
                Some(_) => continue,
                None => format!("file {}", index + 1),
            };
            for (first, last) in runs(unit, &self.map.sections) {
                let (first, after) = (first.max(columns.start), (last + 1).min(columns.end));
                let Some(count) = after.checked_sub(first).filter(|count| *count > 0) else { continue };
                let at = (first - columns.start) * self.each;
                let wide = count * self.each;
                let mut mark = vec![dash; wide];
                let number = name.trim_start_matches(|c: char| !c.is_ascii_digit());
                let fitting = [name.as_str(), number].into_iter().find(|name| name.len() + 2 <= wide);
                for (place, c) in fitting.iter().flat_map(|name| name.chars().enumerate()) {
                    let start = (wide - fitting.map_or(0, str::len)) / 2;
                    mark.get_mut(start + place).into_iter().for_each(|at| *at = c);
                }
                mark.first_mut().into_iter().for_each(|at| *at = left);
                if wide > 1 {
                    mark.last_mut().into_iter().for_each(|at| *at = right);
                }
                line.splice(at..at + wide, mark);
            }
        }
        line.into_iter().collect()
    }

    /// Numbers of layers, where there is room.
    fn axis(&self, out: &mut String, columns: Columns) {
        let mut line = String::new();
        for (place, column) in columns.enumerate() {
            let Some(section) = self.map.sections.get(column) else { continue };
            let (at, name) = (place * self.each, short(*section));
            let is_round = !matches!(section, Section::Layer(number) if number % 5 != 0 && self.each < 3);
            // One stays free between two.
            if is_round && (line.is_empty() || line.len() < at) {
                line = format!("{line:<at$}{name}");
            }
        }
        self.line(out, "layer", &line);
    }

    fn cells(&self, side: &Side, lane: &Lane, columns: Columns) -> String {
        let mut line = String::new();
        for section in self.map.sections.get(columns).into_iter().flatten() {
            let units = lane.units.iter().filter_map(|unit| side.units.get(*unit));
            match units.filter_map(|unit: &Unit| unit.cells.iter().find(|cell| cell.section == *section)).next() {
                Some(cell) => self.cell(&mut line, cell),
                None => line.push_str(&" ".repeat(self.each)),
            }
        }
        line
    }

    /// The letters of the units that a cell is of, as many of each as it has shares; `+` where there are more than places, `.` of what is
    /// in no file.
    fn cell(&self, line: &mut String, cell: &Cell) {
        let parts = cell.from.iter().map(|portion| (Some(portion.unit), portion.bytes));
        let fill = (cell.fill > 0).then_some((None, cell.fill));
        let parts: Vec<(Option<usize>, u64)> = parts.chain(fill).filter(|(_, bytes)| *bytes > 0).collect();
        if parts.len() > self.each {
            line.push_str(&"+".repeat(self.each));
            return;
        }
        // Everybody has a place; those with most of it share the rest.
        let spare = (self.each - parts.len()) as u64;
        let mut given = 0;
        let mut before = 0;
        for (unit, bytes) in &parts {
            before += bytes;
            let until = (spare * before + cell.bytes / 2).checked_div(cell.bytes).unwrap_or(spare).min(spare);
            let places = 1 + (until - given) as usize;
            given = until;
            match unit {
                Some(unit) => self.letter(line, *unit, places),
                None => line.push_str(&".".repeat(places)),
            }
        }
    }

    fn letter(&self, line: &mut String, unit: usize, places: usize) {
        let letter = LETTERS.get(unit % LETTERS.len()).map_or('?', |letter| char::from(*letter));
        let text = letter.to_string().repeat(places);
        let ink = self.inks.get(unit).filter(|_| self.style.colour);
        match ink.and_then(|ink| Some((TERMINAL.get(ink.colour)?, DARK.get(ink.colour)?))) {
            Some((back, is_dark)) => {
                let front = if *is_dark { 15 } else { 16 };
                line.push_str(&format!("\u{1b}[48;5;{back};38;5;{front}m{text}\u{1b}[0m"));
            }
            None => line.push_str(&text),
        }
    }

    /// What each letter stands for.
    fn letters(&self, out: &mut String) {
        let mut used = self.style.width;
        let units = &self.map.from.units;
        for (number, unit) in units.iter().enumerate().take(LETTERS.len()) {
            let name = self.plain(&unit.name);
            let wide = name.chars().count() + 4;
            if used + wide > self.style.width {
                out.push_str(if number == 0 { "" } else { "\n" });
                used = 0;
            } else {
                out.push_str("  ");
            }
            self.letter(out, number, 1);
            out.push_str(&format!(" {name}"));
            used += wide;
        }
        out.push('\n');
        if units.len() > LETTERS.len() {
            out.push_str(&format!("and {} more, for which the letters come again\n", units.len() - LETTERS.len()));
        }
        let signs = [("+", "several of them"), (".", "in no file of the source")];
        let drawn = |sign: &str| match sign {
            "+" => self.map.to.units.iter().flat_map(|unit| &unit.cells).any(|cell| cell.from.len() > self.each),
            _ => self.map.to.units.iter().flat_map(|unit| &unit.cells).any(|cell| cell.fill > 0 && cell.from.len() < self.each),
        };
        let signs = signs.iter().filter(|(sign, _)| drawn(sign)).map(|(sign, what)| format!("{sign} {what}"));
        let signs = signs.collect::<Vec<_>>().join("   ");
        if !signs.is_empty() {
            out.push_str(&format!("{signs}\n"));
        }
    }
}
