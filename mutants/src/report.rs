//! What was noticed and what not, for people and for the next run.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::Site;

/// What became of a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A test failed.
    Caught,
    /// A test did not end.
    TimedOut,
    /// Every test passed.
    Missed,
    /// It is no Rust.
    Refused,
}

/// Names of what the run before did not notice.
pub fn missed(results: &Path) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let text = fs::read_to_string(results).map_err(|_| "there was no run before")?;
    Ok(text.lines().filter_map(|line| line.strip_prefix("missed\t")).map(str::to_owned).collect())
}

/// Prints and keeps what became of each; says whether all that was missed is known to change nothing.
pub fn report(
    results: &Path,
    outcomes: &[(&Site, Outcome)],
    known: &BTreeMap<String, String>,
) -> Result<bool, Box<dyn Error>> {
    let mut table = String::new();
    let mut counts: BTreeMap<&str, [usize; 5]> = BTreeMap::new();
    let mut is_good = true;
    for (site, outcome) in outcomes {
        let is_known = known.contains_key(&site.name);
        let (word, column) = match outcome {
            Outcome::Caught => ("caught", 0),
            Outcome::TimedOut => ("timed out", 1),
            Outcome::Missed if is_known => ("equivalent", 2),
            Outcome::Missed => ("missed", 3),
            Outcome::Refused => ("no Rust", 4),
        };
        writeln!(table, "{word}\t{}", site.name)?;
        let area = crate::Set::of(&site.file).map_or("", |set| set.files[0]);
        counts.entry(area).or_default()[column] += 1;
        if is_known && column < 2 {
            println!("noticed, but in mutants/equivalent.txt: {}", site.name);
            is_good = false;
        }
        if word == "missed" {
            println!(
                "{}:{}: {}: {}",
                site.file.display(),
                site.mutant.line,
                site.mutant.function,
                site.mutant.change
            );
            is_good = false;
        }
    }
    fs::write(results, table)?;
    println!(
        "{:<24} {:>6} {:>9} {:>10} {:>7} {:>8}",
        "", "caught", "timed out", "equivalent", "missed", "no Rust"
    );
    let total =
        counts.values().fold([0; 5], |sum, row| std::array::from_fn(|column| sum[column] + row[column]));
    for (area, [caught, timed_out, equivalent, missed, refused]) in counts.into_iter().chain([("all", total)])
    {
        println!("{area:<24} {caught:>6} {timed_out:>9} {equivalent:>10} {missed:>7} {refused:>8}");
    }
    Ok(is_good)
}
