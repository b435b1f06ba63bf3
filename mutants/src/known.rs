//! Mutants that are known to change nothing, each with the reason.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

/// Names of mutants and why none of them can be noticed. In the file, names stand one a line, and the reason of those above it behind `=`.
pub fn read(path: &Path) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let text = fs::read_to_string(path)?;
    let mut known = BTreeMap::new();
    let mut names = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("= ") {
            Some(reason) => known.extend(names.drain(..).map(|name| (name, reason.to_owned()))),
            None => names.push(line.to_owned()),
        }
    }
    match names.first() {
        None => Ok(known),
        Some(name) => Err(format!("{}: no reason for {name}", path.display()).into()),
    }
}
