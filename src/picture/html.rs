//! The picture as a page: one file that loads nothing, tells every tensor of what is pointed at or moved to, and looks for tensors by name.

mod data;

use super::escape::{markup, script};
use super::sheet::Sheet;
use super::svg::{MOST_LANES, Told, drawn, subtitle, title};
use crate::inspect::Map;

/// The page of `map`. It is XML too.
#[must_use]
pub fn html(map: &Map) -> String {
    let sheet = Sheet::new(map, MOST_LANES);
    let parts = [
        ("TITLE", markup(&title(map))),
        ("SUBTITLE", markup(&subtitle(map))),
        ("STYLE", include_str!("html/page.css").to_owned()),
        ("PICTURE", drawn(map, &sheet, Told::Elsewhere)),
        ("DATA", script(&data::data(map, &sheet).to_string())),
        ("SCRIPT", include_str!("html/page.js").to_owned()),
    ];
    // The page is cut at its marks before anything is put in, so that nothing of a checkpoint is taken for one.
    let mut page = String::new();
    for (number, piece) in include_str!("html/page.html").split("@@").enumerate() {
        match parts.iter().find(|(name, _)| number % 2 == 1 && *name == piece) {
            Some((_, part)) => page.push_str(part),
            None => page.push_str(piece),
        }
    }
    page
}
