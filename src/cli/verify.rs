//! `ckpt-fs verify`

use std::io::{Write, stdout};
use std::sync::atomic::AtomicBool;

use super::args::VerifyArgs;
use super::error::{CliError, Exit, harmless};
use super::open::{Opened, jobs};
use super::table::bytes;
use super::{idle, open, progress};
use crate::layout::Format;
use crate::source::SourceError;
use crate::verify::{Hooks, Report, What, check_records, check_replicas, compare};

pub(super) fn run(args: &VerifyArgs) -> Result<Exit, CliError> {
    let stop = progress::stop_on_signal()?;
    if args.layout.is_given() || args.format.is_given() {
        return Err(CliError::Usage(
            "layouts and formats are compared whatever they are: options of a view are for --partial".into(),
        ));
    }
    let first = open::source(&args.first, &args.from)?;
    first.say_what_is_not_looked_at();
    let (report, missing) = match &args.second {
        Some(second) => {
            let second = open::source(second, &args.from).inspect_err(say_how_parts_are_compared)?;
            idle::refuse_for_sources(&args.from, &[&first.source, &second.source])?;
            second.say_what_is_not_looked_at();
            refuse_names_alone(&first, &second)?;
            (two(&first, &second, args, &stop)?, Vec::new())
        }
        None => {
            idle::refuse_for_sources(&args.from, &[&first.source])?;
            (one(&first, args, &stop)?, first.source.missing.clone())
        }
    };
    let is_distributed = matches!(first.source.format, Format::TorchDist | Format::Dcp);
    let text =
        if args.json { json(&report, &missing) } else { text(&report, &missing, args, is_distributed) };
    stdout().lock().write_all(text.as_bytes())?;
    let same = report.differences.is_empty() && missing.is_empty();
    Ok(if same { Exit::Success } else { Exit::Difference })
}

/// Where nothing says what the tensors of one are, they have the names that they are stored under, and the other's are those of a model.
fn refuse_names_alone(first: &Opened, second: &Opened) -> Result<(), CliError> {
    let is_known = |opened: &Opened| !opened.source.model.family().is_undescribed();
    let unknown = match (is_known(first), is_known(second)) {
        (true, false) => second,
        (false, true) => first,
        (true, true) | (false, false) => return Ok(()),
    };
    Err(CliError::Usage(format!(
        "{}: nothing says what its tensors are, so they cannot be compared with those of a model that is known; --template DIR names a \
         directory with the config.json of the model",
        unknown.source.directory.display()
    )))
}

/// A copy of some ranks is no checkpoint, and can be compared all the same.
fn say_how_parts_are_compared(error: &CliError) {
    use SourceError::{MissingParameter, MissingTensor, Uncovered};
    if let CliError::Source(
        Uncovered { missing, .. } | MissingTensor { missing, .. } | MissingParameter { missing, .. },
    ) = error
        && !missing.is_empty()
    {
        eprintln!("ckpt-fs: note: copies of some ranks of a view are compared with --partial");
    }
}

/// The two against each other, and the replicas of each: a rank that loads another copy than the one compared would load other bytes.
fn two(first: &Opened, second: &Opened, args: &VerifyArgs, stop: &AtomicBool) -> Result<Report, CliError> {
    let (first, second) = (first.weights(), second.weights());
    let bar = progress::bar(args.json);
    bar.set_length(first.bytes());
    let hooks = Hooks { jobs: jobs(args.jobs), stop, done: &|n| bar.inc(n) };
    let report = compare(&first, &second, &hooks).and_then(|report| {
        let quiet = Hooks { jobs: hooks.jobs, stop, done: &|_| {} };
        Ok(report.and(check_replicas(&first, &quiet)?).and(check_replicas(&second, &quiet)?))
    });
    bar.finish_and_clear();
    Ok(report?)
}

fn one(first: &Opened, args: &VerifyArgs, stop: &AtomicBool) -> Result<Report, CliError> {
    let weights = first.weights();
    let bar = progress::bar(args.json);
    bar.set_length(weights.bytes());
    let hooks = Hooks { jobs: jobs(args.jobs), stop, done: &|n| bar.inc(n) };
    let report = check_records(&weights, &hooks).and_then(|report| {
        Ok(report.and(check_replicas(&weights, &Hooks { jobs: hooks.jobs, stop, done: &|_| {} })?))
    });
    bar.finish_and_clear();
    Ok(report?)
}

/// Differences that are listed before the rest are counted.
pub(super) const LISTED: usize = 10;

fn text(report: &Report, missing: &[String], args: &VerifyArgs, is_distributed: bool) -> String {
    let mut lines: Vec<String> = missing.iter().map(|file| format!("missing: {file}")).collect();
    lines.extend(report.differences.iter().take(LISTED).map(|difference| format!("different: {difference}")));
    if report.differences.len() > LISTED {
        lines.push(format!("and {} more", report.differences.len() - LISTED));
    }
    if lines.is_empty() {
        let what = if args.second.is_some() { "identical" } else { "consistent" };
        let read = match report.bytes {
            0 if is_distributed => {
                "nothing to compare: no replicas, no tied copies (checksums in pieces are not looked at)"
                    .to_owned()
            }
            0 => "nothing to compare: no replicas, no tied copies, no checksums".to_owned(),
            count => format!("{} compared", bytes(count)),
        };
        let states = match report.states {
            0 => String::new(),
            count => format!(" and {count} states of the optimizer"),
        };
        lines.push(format!("{what}: {} parameters{states}, {read}", report.parameters));
    }
    if let Some(rows) = report.padding_ignored {
        lines.push(format!("{rows} padding rows of the vocabulary were not compared"));
    }
    harmless(&(lines.join("\n") + "\n"))
}

fn json(report: &Report, missing: &[String]) -> String {
    let differences: Vec<_> = report
        .differences
        .iter()
        .map(|d| {
            let (index, files) = match &d.what {
                What::Bytes { index, first, second } => (Some(index.clone()), vec![first.clone(), second.clone()]),
                What::Damaged { file, .. } => (None, vec![file.clone()]),
                What::OnlyInFirst | What::OnlyInSecond | What::Kind { .. } => (None, Vec::new()),
            };
            serde_json::json!({ "parameter": &*d.parameter, "message": d.to_string(), "index": index, "files": files })
        })
        .collect();
    let value = serde_json::json!({
        "identical": report.differences.is_empty() && missing.is_empty(),
        "parameters": report.parameters,
        "optimizer_states": report.states,
        "bytes": report.bytes,
        "differences": differences,
        "missing": missing,
        "padding_rows_ignored": report.padding_ignored,
    });
    format!("{value:#}\n")
}
