//! Where the sections of a model are drawn: layers share the width, what stands before and behind them has room for a name.

use crate::inspect::Section;

/// Left edges and widths.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    places: Vec<(f64, f64)>,
}

const NAMED: f64 = 36.0;
const WIDEST_LAYER: f64 = 104.0;

impl Columns {
    /// From `left` on, in `width` at most.
    pub(super) fn new(sections: &[Section], left: f64, width: f64) -> Self {
        let is_layer = |section: &Section| matches!(section, Section::Layer(_));
        let layers = sections.iter().filter(|section| is_layer(section)).count();
        let named = (sections.len() - layers) as f64 * NAMED;
        let each = ((width - named).max(0.0) / layers.max(1) as f64).min(WIDEST_LAYER);
        let mut at = left;
        let places = sections.iter().map(|section| {
            let wide = if is_layer(section) { each } else { NAMED };
            at += wide;
            (at - wide, wide)
        });
        Self { places: places.collect() }
    }

    /// Left edge and width of columns `first` to `last`.
    pub(super) fn span(&self, (first, last): (usize, usize)) -> (f64, f64) {
        let place = |column: usize| self.places.get(column).copied().unwrap_or_default();
        let (left, end) = (place(first).0, place(last));
        (left, end.0 + end.1 - left)
    }

    /// Right edge of the last one.
    pub(super) fn right(&self) -> f64 {
        self.places.last().map_or(0.0, |(left, wide)| left + wide)
    }
}

/// What a column is called where there is little room.
pub(super) fn short(section: Section) -> String {
    match section {
        Section::Embedding => "emb".to_owned(),
        Section::Layer(number) => number.to_string(),
        Section::Prediction(number) => format!("mtp {number}"),
        Section::Head => "head".to_owned(),
        Section::Other => "other".to_owned(),
    }
}

/// Sections `first` to `last` in words.
pub(super) fn words(sections: &[Section], (first, last): (usize, usize)) -> String {
    let Some(held) = sections.get(first..=last) else { return String::new() };
    let layers: Vec<u32> = held.iter().filter_map(|section| if let Section::Layer(n) = section { Some(*n) } else { None }).collect();
    let mut parts: Vec<String> = Vec::new();
    for section in held {
        match (section, layers.as_slice()) {
            (Section::Layer(n), [first, .., last]) if n == first => parts.push(format!("layers {first} to {last}")),
            (Section::Layer(_), [_, _, ..]) => {}
            (section, _) => parts.push(section.to_string()),
        }
    }
    parts.join(", ")
}
