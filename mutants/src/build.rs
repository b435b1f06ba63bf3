//! Builds the tests with every mutant in them, leaving out those that are no Rust.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{SETS, Site, copy, rewrite};

/// What was built.
pub struct Built {
    /// Where the tests run.
    pub directory: PathBuf,
    /// Tests of the library, and with them those of `tests/it` that are asked for.
    pub tests: PathBuf,
    /// Sites whose change does not compile.
    pub refused: BTreeSet<usize>,
}

/// Asks whether a mutant is on. Sites count from 1; 0 is the code as it is.
const SWITCH: &str = "
/// The change that is on.
pub(crate) mod mutants {
    pub(crate) fn on(number: u32) -> bool {
        static ON: std::sync::LazyLock<u32> =
            std::sync::LazyLock::new(|| std::env::var(\"CKPT_FS_MUTANT\").ok().and_then(|text| text.parse().ok()).unwrap_or(0));
        *ON == number
    }
}
";

/// Rounds of leaving out what does not compile: types first, then lifetimes, then what was hidden behind those.
const ROUNDS: usize = 12;

/// Builds the tests of a copy of the repository in `scratch`, with every site switchable. What is found to be no Rust is kept for the next time.
pub fn build(root: &Path, scratch: &Path, sites: &[Site]) -> Result<Built, Box<dyn Error>> {
    let directory = scratch.join("copy");
    let list = scratch.join("refused.txt");
    let names = fs::read_to_string(&list).unwrap_or_default();
    let mut names: BTreeSet<String> = names.lines().map(str::to_owned).collect();
    for _ in 0..ROUNDS {
        let refused: BTreeSet<usize> =
            (1..=sites.len()).filter(|number| names.contains(&sites[number - 1].name)).collect();
        copy::update(root, &directory, &changed(root, sites, &refused)?)?;
        let messages = cargo(&directory, &["check", "--quiet", "--lib", "--message-format=json"])?;
        let errors: Vec<&Value> =
            messages.iter().filter(|message| message["message"]["level"] == "error").collect();
        if errors.is_empty() {
            return Ok(Built { tests: executable(&directory)?, directory, refused });
        }
        let before = names.len();
        for error in &errors {
            let blamed = blame(&directory, &error["message"])?;
            names.extend(blamed.into_iter().filter_map(|number| Some(sites.get(number - 1)?.name.clone())));
        }
        if names.len() == before {
            return Err(format!("the copy does not compile: {}", errors[0]["message"]["rendered"]).into());
        }
        fs::write(&list, names.iter().map(|name| format!("{name}\n")).collect::<String>())?;
    }
    Err("the copy does not compile after leaving out whatever cargo complains of".into())
}

/// Files with their mutants, by the sites that are left.
fn changed(
    root: &Path,
    sites: &[Site],
    refused: &BTreeSet<usize>,
) -> Result<Vec<(PathBuf, String)>, Box<dyn Error>> {
    let files: BTreeSet<&PathBuf> = sites.iter().map(|site| &site.file).collect();
    let mut changed = Vec::new();
    for file in files {
        let numbered = sites.iter().enumerate().map(|(index, site)| (index + 1, site));
        let of_file: Vec<_> = numbered
            .filter(|(number, site)| site.file == *file && !refused.contains(number))
            .map(|(number, site)| (number, &site.mutant))
            .collect();
        changed.push((file.clone(), rewrite::rewrite(&fs::read_to_string(root.join(file))?, &of_file)));
    }
    // A crate is what takes long to compile, so tests of `tests/it` become part of the library's.
    let mut modules = String::from("#[cfg(test)]\nextern crate self as ckpt_fs;\n");
    for name in SETS.iter().flat_map(|set| set.it).collect::<BTreeSet<_>>() {
        modules += &format!("#[cfg(test)]\nmod {name};\n");
        let own = Path::new("tests/it").join(name);
        for file in copy::files(root)? {
            if file == own.with_extension("rs") || file.starts_with(&own) {
                let to = Path::new("src").join(file.strip_prefix("tests/it")?);
                changed.push((to, fs::read_to_string(root.join(file))?));
            }
        }
    }
    let lib = PathBuf::from("src/lib.rs");
    // Inner attributes come after the module's own words, which begin the file.
    let text = fs::read_to_string(root.join(&lib))?;
    let words = text.lines().take_while(|line| line.starts_with("//!")).count();
    let (head, rest): (Vec<_>, Vec<_>) = text.lines().enumerate().partition(|(number, _)| *number < words);
    let join = |lines: Vec<(usize, &str)>| {
        lines.into_iter().map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    let allowed = "#![allow(warnings, arithmetic_overflow, unconditional_panic)]\n";
    changed.push((lib, [&join(head), allowed, &join(rest), &modules, SWITCH].concat()));
    Ok(changed)
}

/// Sites that an error of the compiler is about.
fn blame(directory: &Path, message: &Value) -> Result<Vec<usize>, Box<dyn Error>> {
    // Where the error is comes before what it is compared with, e.g. other arms of a match.
    let mut spans = message["spans"].as_array().cloned().unwrap_or_default();
    spans.sort_by_key(|span| span["is_primary"] != true);
    let mut on_lines = Vec::new();
    for span in &spans {
        if span["is_primary"] != true && !on_lines.is_empty() {
            break;
        }
        let Some(file) = span["file_name"].as_str() else { continue };
        let text = fs::read_to_string(directory.join(file))?;
        let place = |key: &str| span[key].as_u64().map_or(0, |number| number as usize);
        let line = text.lines().nth(place("line_start").saturating_sub(1)).unwrap_or_default();
        let on_line = switches(line);
        let column = place("column_start");
        let inside: Vec<usize> =
            on_line.iter().filter(|(_, range)| range.contains(&column)).map(|(number, _)| *number).collect();
        if !inside.is_empty() {
            return Ok(inside);
        }
        on_lines.extend(on_line.into_iter().map(|(number, _)| number));
    }
    Ok(on_lines)
}

/// Switches in a line, and the columns of what each of them puts in place of the code.
fn switches(line: &str) -> Vec<(usize, std::ops::Range<usize>)> {
    const ASK: &str = "crate::mutants::on(";
    let of = |at: usize| {
        let rest = &line[at + ASK.len()..];
        let (number, rest) = rest.split_once(')')?;
        let start = line.len() - rest.len();
        let mut depth = 0;
        let end = rest.char_indices().find(|(_, c)| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            *c == '}' && depth <= 0
        });
        let end = end.map_or(line.len(), |(at, _)| start + at);
        // Columns count characters, from 1.
        let column = |byte: usize| line[..byte].chars().count() + 1;
        Some((number.parse().ok()?, column(start)..column(end)))
    };
    line.match_indices(ASK).filter_map(|(at, _)| of(at)).collect()
}

fn executable(directory: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let messages = cargo(directory, &["test", "--no-run", "--quiet", "--lib", "--message-format=json"])?;
    let mut built = messages.iter().filter_map(|message| message["executable"].as_str());
    built.next().map(PathBuf::from).ok_or_else(|| {
        let error = messages.iter().find_map(|message| message["message"]["rendered"].as_str());
        format!("the tests do not compile: {}", error.unwrap_or_default()).into()
    })
}

fn cargo(directory: &Path, arguments: &[&str]) -> Result<Vec<Value>, Box<dyn Error>> {
    let target = directory.parent().ok_or("no place to build in")?.join("build");
    let output = Command::new("cargo")
        .args(arguments)
        .current_dir(directory)
        .env("CARGO_TARGET_DIR", target)
        .stderr(Stdio::inherit())
        .output()?;
    let lines = String::from_utf8(output.stdout)?;
    Ok(lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
