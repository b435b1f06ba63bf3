//! Changes the code of `ckpt-fs` on purpose, one place at a time, and says which changes no test notices (README.md).
//!
//! All changes are compiled in at once, each behind a switch; a run of the tests turns one of them on. So a change costs a run of the tests
//! that can see it, and no build.

mod build;
mod copy;
mod known;
mod report;
mod returns;
mod rewrite;
mod run;
mod sites;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use report::Outcome;
use sites::Mutant;

/// A place that is changed.
struct Site {
    /// The file, from the root of the repository.
    file: PathBuf,
    /// What it is called, whatever line it comes to stand in.
    name: String,
    mutant: Mutant,
}

/// What is changed, and which tests can see it: modules of the library with tests, and those of `tests/it` that need nothing beside them.
const SETS: &[Set] = &[
    Set { files: &["src/plan.rs", "src/plan/"], lib: &["plan", "reader"], it: &["plan_model"] },
    Set { files: &["src/reader.rs", "src/reader/"], lib: &["reader", "plan"], it: &["plan_model"] },
    Set { files: &["src/layout.rs", "src/layout/"], lib: &["layout"], it: &[] },
    Set {
        files: &["src/format/zip.rs", "src/format/zip/"],
        lib: &["format::zip", "format::torch"],
        it: &["torch_files"],
    },
];

struct Set {
    files: &'static [&'static str],
    lib: &'static [&'static str],
    it: &'static [&'static str],
}

impl Set {
    /// Tests that run one after the other, quick ones first, until one notices.
    fn passes(&self) -> impl Iterator<Item = &'static [&'static str]> {
        std::iter::once(self.lib).chain(self.it.chunks(1))
    }

    fn of(file: &Path) -> Option<&'static Self> {
        let file = file.to_str()?;
        SETS.iter().find(|set| set.files.iter().any(|prefix| file.starts_with(prefix)))
    }
}

struct Options {
    /// Only what the run before did not notice.
    missed: bool,
    /// Say what there is to change, and change nothing.
    list: bool,
    /// Only files whose path begins so.
    files: Vec<String>,
}

fn main() -> ExitCode {
    match mutants() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every change was noticed, or is known to change nothing.
fn mutants() -> Result<bool, Box<dyn Error>> {
    let options = options()?;
    let root = PathBuf::from(
        std::env::var_os("CKPT_FS_ROOT").ok_or("CKPT_FS_ROOT is not set; run scripts/mutants")?,
    );
    let scratch = root.join("target/mutants");
    let known = known::read(&root.join("mutants/equivalent.txt"))?;
    let mut sites = sites(&root)?;
    let names: Vec<&str> = sites.iter().map(|site| site.name.as_str()).collect();
    let mut current = true;
    for stale in known.keys().filter(|name| !names.contains(&name.as_str())) {
        println!("no longer there, but in mutants/equivalent.txt: {stale}");
        current = false;
    }
    if !options.files.is_empty() {
        // In the order in which they were named.
        let named = |site: &Site| {
            options
                .files
                .iter()
                .position(|prefix| site.file.starts_with(prefix) || site.name.starts_with(prefix))
        };
        sites.retain(|site| named(site).is_some());
        sites.sort_by_key(named);
    }
    if options.list {
        sites.iter().for_each(|site| println!("{}", site.name));
        return Ok(current);
    }
    let results = scratch.join("results.tsv");
    if options.missed {
        let missed = report::missed(&results)?;
        sites.retain(|site| missed.contains(&site.name));
    }
    let built = build::build(&root, &scratch, &sites)?;
    let outcomes = run::run(&built, &sites)?;
    let outcomes: Vec<(&Site, Outcome)> = sites.iter().zip(outcomes).collect();
    Ok(report::report(&results, &outcomes, &known)? && current)
}

fn options() -> Result<Options, String> {
    let mut options = Options { missed: false, list: false, files: Vec::new() };
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--missed" => options.missed = true,
            "--list" => options.list = true,
            other if other.starts_with('-') => return Err(format!("there is no option {other}")),
            _ => options.files.push(argument),
        }
    }
    Ok(options)
}

fn sites(root: &Path) -> Result<Vec<Site>, Box<dyn Error>> {
    let mut sites: Vec<Site> = Vec::new();
    for file in copy::files(root)? {
        let is_test = file.with_extension("").iter().any(|name| name == "tests");
        if file.extension().is_none_or(|extension| extension != "rs") || is_test || Set::of(&file).is_none() {
            continue;
        }
        let text = std::fs::read_to_string(root.join(&file))?;
        let mut mutants = sites::find(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        mutants.sort_by_key(|mutant| mutant.line);
        let mut names = std::collections::HashMap::new();
        for mutant in mutants {
            let name = format!("{} {}: {}", file.display(), mutant.function, mutant.change);
            let times = names.entry(name.clone()).and_modify(|times| *times += 1).or_insert(1);
            let name = if *times == 1 { name } else { format!("{name} #{times}") };
            sites.push(Site { file: file.clone(), name, mutant });
        }
    }
    Ok(sites)
}
