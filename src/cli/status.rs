//! `ckpt-fs status`

use std::convert::Infallible;
use std::io::{ErrorKind, Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::StatusArgs;
use super::error::{CliError, Exit, harmless};
use super::messages::line;
use super::served::answering;
use super::table::{bytes, table};
use crate::fuse::mounts::{self, MountEntry};
use crate::fuse::{ControlError, messages, status};
use crate::metrics::{self, Mount};
use crate::parallel::Pool;
use crate::vfs::{NotShown, RunStatus, Status};

/// A mount and what it says, or why it says nothing.
struct Row {
    point: PathBuf,
    source: String,
    answer: Result<Status, String>,
}

pub(super) fn run(args: &StatusArgs) -> Result<Exit, CliError> {
    let all = mounts::all().map_err(|source| CliError::System { what: "list the mounts", source })?;
    let rows = match &args.mountpoint {
        // One that another program mounted may have any type.
        Some(path) => vec![one(path, &all, args.unguarded)?],
        None => every(&all.iter().filter(|entry| entry.is_ours()).collect::<Vec<_>>())?,
    };
    let text = match (args.json, args.verbose) {
        _ if args.prometheus => prometheus(rows),
        (true, _) => json(&rows, args.mountpoint.is_some()),
        (false, true) => verbose(&rows),
        (false, false) => text(&rows),
    };
    stdout().lock().write_all(text.as_bytes())?;
    Ok(Exit::Success)
}

/// Mounts that are asked at a time.
const AT_A_TIME: usize = 16;

/// All of them. Some may not answer, which the others do not wait for.
fn every(mounts: &[&MountEntry]) -> Result<Vec<Row>, CliError> {
    let asked = Pool::new(AT_A_TIME).map(mounts, |entry| {
        let answer = answering(&entry.point).and_then(|()| status(&entry.point));
        Ok::<_, Infallible>(row(entry, answer.map_err(|error| no_answer(&error))))
    });
    let failed = || CliError::System { what: "ask the mounts", source: ErrorKind::Other.into() };
    asked.map_err(|_| failed())
}

fn one(path: &Path, mounts: &[MountEntry], unguarded: bool) -> Result<Row, CliError> {
    if !unguarded {
        answering(path)?;
    }
    let found = status(path)?;
    // It answered, so it is there; which one it is, is the innermost that the path lies in.
    let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let entry = mounts
        .iter()
        .filter(|entry| entry.is_fuse() && absolute.starts_with(&entry.point))
        .max_by_key(|e| e.point.as_os_str().len());
    let entry = entry.ok_or_else(|| ControlError::NotOurs(path.to_owned()))?;
    Ok(row(entry, Ok(found)))
}

fn row(entry: &MountEntry, answer: Result<Status, String>) -> Row {
    Row { point: entry.point.clone(), source: entry.source.to_string_lossy().into_owned(), answer }
}

/// What is said of a mount that another user made, and lets nobody else in.
const NOT_YOURS: &str = "not yours";

/// Why a mount says nothing, in a few words.
fn no_answer(error: &ControlError) -> String {
    match error {
        ControlError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            NOT_YOURS.to_owned()
        }
        ControlError::Io { source, .. } => format!("does not answer: {source}"),
        ControlError::Silent(_) => "does not answer".to_owned(),
        ControlError::NotOurs(_) | ControlError::Answer(_) => {
            "does not answer in words of this version".to_owned()
        }
    }
}

/// Where mounts lie on each other, the one that is seen.
fn prometheus(rows: Vec<Row>) -> String {
    let mut mounts: Vec<Mount> = Vec::new();
    for Row { point, source, answer } in rows {
        // Whose mount may not be looked at is well for all that is known.
        if answer.as_ref().is_err_and(|why| why == NOT_YOURS) {
            continue;
        }
        let point = point.display().to_string();
        mounts.retain(|mount| mount.point != point);
        mounts.push(Mount { point, source, status: answer.ok() });
    }
    metrics::text(&mounts)
}

fn text(rows: &[Row]) -> String {
    let heads = ["MOUNT", "SOURCE", "VIEW", "READ", "KEPT", "OF", "HITS", "MISSES", "WHOLE FILES", "ERRORS"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for row in rows {
        let mut line = vec![row.point.display().to_string(), row.source.clone()];
        match &row.answer {
            Ok(Status { view, read_bytes, cache, errors, .. }) => line.extend([
                view.clone(),
                bytes(*read_bytes),
                bytes(cache.bytes),
                bytes(cache.budget),
                cache.hits.to_string(),
                cache.misses.to_string(),
                cache.files.to_string(),
                errors.to_string(),
            ]),
            Err(why) => line.push(why.clone()),
        }
        lines.push(line);
    }
    table(&lines, &[3, 4, 5, 6, 7, 8, 9])
}

/// A paragraph for each mount.
fn verbose(rows: &[Row]) -> String {
    let paragraph = |row: &Row| {
        let mut lines = vec![row.point.display().to_string(), format!("  source    {}", row.source)];
        match &row.answer {
            Ok(status) => lines.extend(details(status, &row.point)),
            Err(why) => lines.push(format!("  {why}")),
        }
        harmless(&(lines.join("\n") + "\n"))
    };
    rows.iter().map(paragraph).collect::<Vec<_>>().join("\n")
}

/// Messages that are shown of each mount; `ckpt-fs log` has the rest.
const LATEST: usize = 10;

fn details(status: &Status, point: &Path) -> Vec<String> {
    let Status { version, pid, view, seconds, errors, source_problem, reads, read_bytes, cache, run, .. } =
        status;
    let health = match (source_problem, run) {
        (Some(problem), _) => format!("NOT AS IT WAS: {problem}"),
        (None, Some(run)) => shown(run),
        (None, None) => "as it was when mounted".to_owned(),
    };
    let since = humantime::format_duration(Duration::from_secs(*seconds));
    let mut lines = vec![
        format!("            {health}"),
        format!("  view      {view}"),
        format!("  since     {since} (process {pid}, version {version})"),
        format!("  read      {} in {reads} reads", bytes(*read_bytes)),
        format!(
            "  kept      {} of {}, {} hits, {} misses",
            bytes(cache.bytes),
            bytes(cache.budget),
            cache.hits,
            cache.misses
        ),
        format!("  errors    {errors}"),
    ];
    lines.extend(run.iter().flat_map(not_shown));
    // A mount that answers one question and not the next has just gone.
    let messages = messages(point).unwrap_or_default();
    let latest = messages.iter().skip(messages.len().saturating_sub(LATEST));
    lines.extend(latest.map(|message| format!("            {}", line(message))));
    lines
}

/// `12 iterations, 2 of them open; the newest is iter_0001000`
fn shown(run: &RunStatus) -> String {
    let RunStatus { shown, open, latest, .. } = run;
    let newest = latest.as_ref().map_or_else(String::new, |latest| format!("; the newest is {latest}"));
    let iterations = if *shown == 1 { "iteration" } else { "iterations" };
    format!("{shown} {iterations}, {open} of them open{newest}")
}

/// A line for each iteration that is not shown, as far as the mount names them.
fn not_shown(run: &RunStatus) -> Vec<String> {
    let mut lines: Vec<String> =
        run.not_shown.iter().map(|NotShown { name, why }| format!("  not shown {name}: {why}")).collect();
    let more = run.hidden.saturating_sub(run.not_shown.len() as u64);
    if more > 0 {
        lines.push(format!("  not shown {more} more"));
    }
    lines
}

fn json(rows: &[Row], is_one: bool) -> String {
    let value = |row: &Row| {
        let (status, problem) = match &row.answer {
            Ok(status) => (Some(status), None),
            Err(why) => (None, Some(why)),
        };
        let point = row.point.to_string_lossy();
        serde_json::json!({ "mount": point, "source": row.source, "status": status, "problem": problem })
    };
    let values: Vec<_> = rows.iter().map(value).collect();
    match values.as_slice() {
        [only] if is_one => format!("{only:#}\n"),
        _ => format!("{:#}\n", serde_json::Value::Array(values)),
    }
}
