//! What a family of samples is, and how one sample is written.
//!
//! Not here: which families there are (`families`).

use std::fmt::Write;

use crate::vfs::Status;

/// A mount, and its figures if it told them.
#[derive(Debug)]
pub struct Mount {
    /// Where it is.
    pub point: String,
    /// What it shows.
    pub source: String,
    /// `None` where it does not answer.
    pub status: Option<Status>,
}

/// What a family counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// All samples of one name.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) samples: fn(&Mount, &mut Samples<'_>),
}

/// Where samples of one mount go.
pub(super) struct Samples<'text> {
    pub(super) text: &'text mut String,
    pub(super) name: &'static str,
    pub(super) mount: &'text Mount,
}

impl Samples<'_> {
    /// A sample without labels beyond those of every sample.
    pub(super) fn add(&mut self, value: u64) {
        self.with(&[], value);
    }

    /// A sample with labels.
    pub(super) fn with(&mut self, labels: &[(&str, &str)], value: u64) {
        self.line("", labels, &value.to_string());
    }

    /// A sample of a name that goes on: `_bucket` and the like of a histogram.
    pub(super) fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: &str) {
        let own = [("mount", self.mount.point.as_str()), ("source", self.mount.source.as_str())];
        let labels = own.iter().chain(labels).map(|(name, value)| format!("{name}=\"{}\"", escape(value)));
        let labels = labels.collect::<Vec<_>>().join(",");
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{}{suffix}{{{labels}}} {value}", self.name);
    }
}

/// A label's value: paths may hold anything.
fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_may_hold_anything() {
        assert_eq!(escape("a\"b\\c\nd é"), "a\\\"b\\\\c\\nd é");
    }
}
