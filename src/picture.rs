//! Pictures of what makes which part of a view: as text for a terminal, as SVG, and as a page of HTML.
//!
//! Columns are sections of the model, one for the source and the view alike; lanes are ranks that differ in their stage alone, one behind the
//! other. A unit of the source has a colour and a pattern, and whatever is read from it has them too. Not here: what makes what (`inspect`).

mod stretches;
mod columns;
mod escape;
mod html;
mod lanes;
mod palette;
mod sheet;
mod size;
mod svg;
mod text;
#[cfg(test)]
mod tests;

pub use html::html;
pub use size::bytes;
pub use svg::svg;
pub use text::{Style, text};
