//! Which views a mount shows: one, or every one that there can be.
//!
//! Not here: how they are laid out (`views`).

use crate::layout::{Format, Layout};

/// What a mount shows.
#[derive(Debug, Clone)]
pub enum Shape {
    /// One format and layout, at the root.
    One(Format, Layout),
    /// Every layout, each in a directory of its name: those of this format, at the root. Without one those of the source's own format at the
    /// root, and those of others in a directory for each format.
    Many(Option<Format>),
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(format, _) if format.is_single() => write!(f, "{format}"),
            Self::One(format, layout) => write!(f, "{format} {}", format.layout_name(layout)),
            Self::Many(Some(format)) => write!(f, "every layout of {format}"),
            Self::Many(None) => f.write_str("every layout and format"),
        }
    }
}
