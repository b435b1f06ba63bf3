//! The picture as SVG: for a README, light or dark as its reader has it, and drawn into the page of HTML.

mod marks;
mod names;

use std::fmt::Write;

use super::stretches::{Stretch, stretches, runs, share};
use super::columns::{short, words};
use super::escape::markup;
use super::palette::{COLOURS, DARK, Ink, PATTERNS, inks};
use super::sheet::{LEFT, Panel, Sheet};
use super::size::bytes;
use crate::inspect::{Map, Section, Side, Unit};
use marks::{fits, label, rect, text};
use names::Naming;

/// Lanes of a side that are drawn one by one; of more, those that look the same are drawn once.
pub(super) const MOST_LANES: usize = 32;
/// Height of the legend.
const LEGEND: f64 = 62.0;
/// Width of a character of a name.
const NAME: f64 = 5.5;
/// Least height of a strip with a name.
const LABEL: f64 = 10.0;

/// The picture of `map`.
#[must_use]
pub fn svg(map: &Map) -> String {
    drawn(map, &Sheet::new(map, MOST_LANES), Told::OnHover)
}

/// Who says what a stretch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The picture, to whoever points at it.
    OnHover,
    /// The page around it.
    Elsewhere,
}

/// The picture, measured.
pub(super) fn drawn(map: &Map, sheet: &Sheet, told: Told) -> String {
    let inks = inks(&map.from);
    let (width, height) = (sheet.width, sheet.bottom + LEGEND);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height:.0}\" width=\"{width}\" height=\"{height:.0}\" role=\"img\" aria-label=\"{}\">\n",
        markup(&title(map))
    );
    out.push_str(&style());
    rect(&mut out, "paper", (0.0, 0.0), (width, height), "");
    text(&mut out, "title", (LEFT, 22.0), &title(map));
    text(&mut out, "dim", (LEFT, 39.0), &subtitle(map));
    axis(&mut out, map, sheet);
    let pen = Pen { map, sheet, inks: &inks, told };
    pen.panel(&mut out, &map.from, &sheet.from, "source");
    pen.panel(&mut out, &map.to, &sheet.to, "view");
    legend(&mut out, map, sheet);
    out.push_str("</svg>\n");
    out
}

/// `megatron tp1pp32 → megatron tp8pp4`
pub(super) fn title(map: &Map) -> String {
    let named = |side: &Side| match side.layout.split_once('@') {
        // A long cut is seen better than read.
        Some((sizes, _)) if side.layout.len() > 32 => format!("{} {sizes}", side.format),
        _ if side.units.iter().all(|unit| unit.rank.is_none()) => side.format.to_owned(),
        _ => format!("{} {}", side.format, side.layout),
    };
    format!("{} \u{2192} {}", named(&map.from), named(&map.to))
}

/// How much there is, and in how many parts.
pub(super) fn subtitle(map: &Map) -> String {
    let of = |side: &Side| {
        let what = if side.units.iter().all(|unit| unit.rank.is_some()) { "rank" } else { "file" };
        let more = if side.units.len() == 1 { "" } else { "s" };
        format!("{} in {} {what}{more}", bytes(side.bytes), side.units.len())
    };
    format!("{} \u{2192} {}", of(&map.from), of(&map.to))
}

fn style() -> String {
    let mut out = String::from("<style>\n");
    out.push_str(include_str!("svg/style.css"));
    for (number, colour) in COLOURS.iter().enumerate() {
        let on = if DARK.get(number) == Some(&true) { "#fff" } else { "#000" };
        // Writing to a string does not fail.
        let _ = writeln!(out, ".c{number}{{fill:{colour}}}.on{number}{{fill:{on};stroke:{colour}}}");
    }
    out.push_str("</style>\n<defs>\n");
    for (number, path) in PATTERNS.iter().enumerate().skip(1) {
        let _ = writeln!(
            out,
            "<pattern id=\"p{number}\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\"><path d=\"{path}\" stroke=\"#000\" stroke-opacity=\".5\" stroke-width=\"1.1\"/></pattern>"
        );
    }
    out.push_str("</defs>\n");
    out
}

/// Numbers of layers between the two sides, as many as there is room for.
fn axis(out: &mut String, map: &Map, sheet: &Sheet) {
    let layers = map.sections.iter().filter(|section| matches!(section, Section::Layer(_))).count();
    let steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
    let wide = sheet.columns.span((layers.min(1), layers.min(1))).1;
    let step = steps.into_iter().find(|step| f64::from(*step) * wide >= 22.0).unwrap_or(1000);
    for (column, section) in map.sections.iter().enumerate() {
        let (left, wide) = sheet.columns.span((column, column));
        let centre = left + wide / 2.0;
        match section {
            Section::Layer(number) if number % step != 0 => {
                rect(out, "tick", (centre - 0.5, sheet.axis - 5.0), (1.0, 3.0), "");
            }
            section => text(out, "axis", (centre, sheet.axis), &short(*section)),
        }
    }
    text(out, "side", (LEFT - 8.0, sheet.axis), "layer");
}

/// What a side is drawn with.
struct Pen<'a> {
    map: &'a Map,
    sheet: &'a Sheet,
    inks: &'a [Ink],
    told: Told,
}

impl Pen<'_> {
    fn panel(&self, out: &mut String, side: &Side, panel: &Panel, name: &str) {
        let is_source = std::ptr::eq(side, &self.map.from);
        let mut before: Vec<((usize, usize), Vec<usize>)> = Vec::new();
        let naming = Naming::of(side, |unit, name| {
            let mut wide = runs(unit, &self.map.sections).into_iter().map(|run| self.sheet.columns.span(run).1);
            wide.all(|wide| fits(name, wide, NAME))
        });
        for (number, (lane, top)) in panel.lanes.iter().zip(&panel.tops).enumerate() {
            let middle = top + panel.height / 2.0 + 3.5;
            let called = if lane.label.is_empty() && number == 0 { name } else { &lane.label };
            text(out, "lane", (LEFT - 8.0, middle), called);
            let over = [(called != name).then_some(name), naming.of_what(side)];
            let over = over.into_iter().flatten().collect::<Vec<_>>().join(", ");
            if number == 0 {
                text(out, "side", (LEFT - 8.0, top - 4.0), &over);
            }
            let mut labelled = Vec::new();
            for (unit, index) in lane.units.iter().filter_map(|index| Some((side.units.get(*index)?, *index))) {
                if number == 0 || panel.is_named {
                    self.names(out, unit, naming.name(unit, index), *top);
                }
                for stretch in stretches(unit, &self.map.sections) {
                    let key = (stretch.columns, stretch.from.iter().map(|portion| portion.unit).collect());
                    // What the lane above says need not be said again.
                    let is_said = is_source || before.contains(&key);
                    self.stretch(out, unit, &stretch, (*top, panel.height), !is_said);
                    labelled.push(key);
                }
                for run in runs(unit, &self.map.sections) {
                    let (left, wide) = self.sheet.columns.span(run);
                    rect(out, "unit", (left, *top), (wide, panel.height), "");
                }
            }
            before = labelled;
        }
    }

    /// What a unit is called, over each stretch that it holds.
    fn names(&self, out: &mut String, unit: &Unit, name: Option<String>, top: f64) {
        let Some(name) = name else { return };
        for run in runs(unit, &self.map.sections) {
            let (left, wide) = self.sheet.columns.span(run);
            if fits(&name, wide, NAME) {
                text(out, "stage", (left + wide / 2.0, top - 3.5), &name);
            }
        }
    }

    /// A stretch: a strip for each unit of the source, as high as its share, and one for what is in no file.
    fn stretch(&self, out: &mut String, unit: &Unit, stretch: &Stretch, (top, height): (f64, f64), is_labelled: bool) {
        let (left, wide) = self.sheet.columns.span(stretch.columns);
        out.push_str("<g>");
        if self.told == Told::OnHover {
            let _ = write!(out, "<title>{}</title>", markup(&self.words(unit, stretch)));
        }
        let mut at = top;
        for portion in &stretch.from {
            let Some(ink) = self.inks.get(portion.unit) else { continue };
            let high = height * share(portion.bytes, stretch.bytes);
            rect(out, &format!("c{}", ink.colour), (left, at), (wide, high), "");
            if ink.pattern > 0 {
                rect(out, "", (left, at), (wide, high), &format!("url(#p{})", ink.pattern));
            }
            let pale = high * share(portion.shared, portion.bytes);
            // A hair of it would look like a flaw.
            if pale >= 0.8 {
                rect(out, "pale", (left, at + high - pale), (wide, pale), "");
            }
            at += high;
        }
        rect(out, "fill", (left, at), (wide, height * share(stretch.fill, stretch.bytes)), "");
        if is_labelled {
            self.labels(out, stretch, (left, wide), (top, height));
        }
        out.push_str("</g>\n");
    }

    /// The names of the units of the source, where there is room: above what is pale.
    fn labels(&self, out: &mut String, stretch: &Stretch, (left, wide): (f64, f64), (top, height): (f64, f64)) {
        let mut at = top;
        for portion in &stretch.from {
            let high = height * share(portion.bytes, stretch.bytes);
            if let (Some(unit), Some(ink)) = (self.map.from.units.get(portion.unit), self.inks.get(portion.unit)) {
                let pale = high * share(portion.shared, portion.bytes);
                let room = if high - pale >= LABEL { high - pale } else { high };
                let colour = (room < high || pale == 0.0).then_some(ink.colour);
                let name = names::within(unit, portion.unit).into_iter().find(|name| fits(name, wide, NAME));
                if let Some(name) = name.filter(|_| high >= LABEL) {
                    label(out, colour, (left + wide / 2.0, at + room / 2.0 + 3.2), &name);
                }
            }
            at += high;
        }
    }

    /// A stretch in words.
    fn words(&self, unit: &Unit, stretch: &Stretch) -> String {
        let held = words(&self.map.sections, stretch.columns);
        let mut told = format!("{}: {held}, {}", unit.name, bytes(stretch.bytes));
        let all: Vec<&str> = stretch.from.iter().filter_map(|from| self.map.from.units.get(from.unit)).map(|unit| unit.name.as_str()).collect();
        match all.as_slice() {
            [only] if *only == unit.name => {}
            [] => {}
            [first, second, third, .., last] if all.len() > 4 => {
                let _ = write!(told, ", from {first}, {second}, {third} .. {last} ({} in all)", all.len());
            }
            all => {
                let _ = write!(told, ", from {}", all.join(", "));
            }
        }
        told
    }
}

/// What colours, patterns and tints mean.
fn legend(out: &mut String, map: &Map, sheet: &Sheet) {
    let top = sheet.bottom + 16.0;
    let is_ranked = map.from.units.iter().all(|unit| unit.rank.is_some());
    let staged = map.from.units.iter().filter_map(|unit| unit.rank).any(|rank| rank.pp > 0);
    let told = match (is_ranked, staged) {
        (true, true) => "colour: stage of the source, pattern: its rank there; each comes again where there are many",
        (true, false) => "colour and pattern: rank of the source; each comes again where there are many",
        (false, _) => "colour and pattern: file of the source; each comes again where there are many",
    };
    text(out, "dim", (LEFT, top + 9.0), told);
    let all_ranks = is_ranked && map.to.units.iter().all(|unit| unit.rank.is_some());
    let cells = || map.to.units.iter().flat_map(|unit| &unit.cells);
    let keys = [
        (cells().any(|cell| cell.shared > 0), "pale", "c0", "pale: several ranks hold the same bytes"),
        (cells().any(|cell| cell.fill > 0), "fill", "", "in no file of the source: new rows, constants"),
        (true, "unit", "", if all_ranks { "a rank" } else { "a rank or a file" }),
    ];
    let mut at = LEFT;
    for (_, class, under, word) in keys.into_iter().filter(|(is_drawn, ..)| *is_drawn) {
        if !under.is_empty() {
            rect(out, under, (at, top + 20.0), (18.0, 11.0), "");
        }
        rect(out, class, (at, top + 20.0), (18.0, 11.0), "");
        text(out, "dim", (at + 24.0, top + 29.5), word);
        at += 24.0 + word.len() as f64 * 5.6 + 22.0;
    }
}
