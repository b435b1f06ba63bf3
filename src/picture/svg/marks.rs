//! The few marks that a picture is made of.

use std::fmt::Write;

use crate::picture::escape::markup;

/// A rectangle from its left top corner on, of a class or of a fill; none where nothing of it can be seen.
pub(super) fn rect(out: &mut String, class: &str, (x, y): (f64, f64), (wide, high): (f64, f64), fill: &str) {
    if high < 0.05 || wide < 0.05 {
        return;
    }
    let look = if fill.is_empty() { format!("class=\"{class}\"") } else { format!("fill=\"{fill}\"") };
    // Writing to a string does not fail.
    let _ = write!(out, "<rect {look} x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>", short(x), short(y), short(wide), short(high));
}

/// Text on its base line; the class says which point of it is at `x`.
pub(super) fn text(out: &mut String, class: &str, (x, y): (f64, f64), text: &str) {
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{}\" y=\"{}\">{}</text>", short(x), short(y), markup(text));
}

/// Text in the middle of a colour, of which it has a rim; without one, of something pale.
pub(super) fn label(out: &mut String, colour: Option<usize>, (x, y): (f64, f64), text: &str) {
    let on = colour.map_or_else(|| "onpale".to_owned(), |colour| format!("on{colour}"));
    let _ = write!(out, "<text class=\"label {on}\" x=\"{}\" y=\"{}\">{}</text>", short(x), short(y), markup(text));
}

/// Whether text with characters of about this width has room.
pub(super) fn fits(text: &str, wide: f64, each: f64) -> bool {
    text.chars().count() as f64 * each + 4.0 <= wide
}

/// A length with a digit behind the point, where there is something.
fn short(length: f64) -> String {
    let text = format!("{length:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}
