//! The text format of Prometheus, version 0.0.4: families of samples, each with its help and type, and labels escaped.
//!
//! Not here: which families there are (`families`).

use std::fmt::Write;

use super::families::FAMILIES;
use super::samples::{Family, Kind, Mount, Samples};

/// The figures of mounts, each mount once.
#[must_use]
pub fn text(mounts: &[Mount]) -> String {
    let mut text = String::new();
    for Family { name, kind, help, samples } in FAMILIES {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for mount in mounts {
            samples(mount, &mut Samples { text: &mut text, name, mount });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_may_hold_anything() {
        let mount = Mount { point: "/a\"b".to_owned(), source: "c\nd".to_owned(), status: None };
        let text = text(&[mount]);
        assert!(text.contains("ckpt_fs_up{mount=\"/a\\\"b\",source=\"c\\nd\"} 0\n"), "{text}");
    }

    #[test]
    fn every_family_has_a_help_and_a_type_and_a_name_by_the_rules() {
        for Family { name, kind, help, .. } in FAMILIES {
            assert!(name.starts_with("ckpt_fs_") && help.ends_with('.') && !help.contains(['\n', '\\']), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        }
        let names: std::collections::BTreeSet<_> = FAMILIES.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), FAMILIES.len());
    }
}
