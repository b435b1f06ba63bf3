//! Sizes for people.

/// `1.5 GB`: powers of 1000, as disks are sold and checkpoints are talked about.
#[must_use]
pub fn bytes(count: u64) -> String {
    let mut rest = count as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if rest < 1000.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{rest:.1} {unit}") };
        }
        rest /= 1000.0;
    }
    format!("{rest:.1} PB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 999, 1000, 102_400_000_000].map(bytes);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "102.4 GB"]);
    }
}
