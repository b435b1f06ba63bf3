//! `ckpt-fs verify`

use std::io::{Write, stdout};
use std::sync::atomic::AtomicBool;

use super::args::VerifyArgs;
use super::error::{CliError, Exit};
use super::open::{Opened, jobs};
use super::table::bytes;
use super::{open, progress};
use crate::verify::{Hooks, Report, check_replicas, compare};

pub(super) fn run(args: &VerifyArgs) -> Result<Exit, CliError> {
    let stop = progress::stop_on_signal()?;
    let first = open::source(&args.first, &args.from, None)?;
    let (report, missing) = match &args.second {
        Some(second) => {
            let second = open::source(second, &args.from, None)?;
            (two(&first, &second, args, &stop)?, Vec::new())
        }
        None => (one(&first, args, &stop)?, first.source.missing.clone()),
    };
    let text = if args.json { json(&report, &missing) } else { text(&report, &missing, args) };
    stdout().lock().write_all(text.as_bytes())?;
    let same = report.differences.is_empty() && missing.is_empty();
    Ok(if same { Exit::Success } else { Exit::Difference })
}

fn two(first: &Opened, second: &Opened, args: &VerifyArgs, stop: &AtomicBool) -> Result<Report, CliError> {
    let (first, second) = (first.weights(), second.weights());
    let bar = progress::bar(args.json);
    bar.set_length(crate::digest::bytes(&first));
    let report = compare(&first, &second, &Hooks { jobs: jobs(args.jobs), stop, done: &|n| bar.inc(n) });
    bar.finish_and_clear();
    Ok(report?)
}

fn one(first: &Opened, args: &VerifyArgs, stop: &AtomicBool) -> Result<Report, CliError> {
    Ok(check_replicas(&first.weights(), &Hooks { jobs: jobs(args.jobs), stop, done: &|_| {} })?)
}

fn text(report: &Report, missing: &[String], args: &VerifyArgs) -> String {
    let mut lines: Vec<String> = missing.iter().map(|file| format!("missing: {file}")).collect();
    if let Some((first, rest)) = report.differences.split_first() {
        lines.push(format!("different: {first}"));
        if !rest.is_empty() {
            lines.push(format!("and {} more of {} parameters", rest.len(), report.parameters));
        }
    }
    if lines.is_empty() {
        let what = if args.second.is_some() { "identical" } else { "consistent" };
        lines.push(format!("{what}: {} parameters, {} compared", report.parameters, bytes(report.bytes)));
    }
    if let Some(rows) = report.padding_ignored {
        lines.push(format!("{rows} padding rows of the vocabulary were not compared"));
    }
    lines.join("\n") + "\n"
}

fn json(report: &Report, missing: &[String]) -> String {
    let differences: Vec<_> = report
        .differences
        .iter()
        .map(|d| serde_json::json!({ "parameter": &*d.parameter, "message": d.to_string() }))
        .collect();
    let value = serde_json::json!({
        "identical": report.differences.is_empty() && missing.is_empty(),
        "parameters": report.parameters,
        "bytes": report.bytes,
        "differences": differences,
        "missing": missing,
        "padding_rows_ignored": report.padding_ignored,
    });
    format!("{value:#}\n")
}
