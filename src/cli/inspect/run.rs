//! `ckpt-fs inspect --iteration all`: the iterations of a run, and which of them are whole.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::super::args::{InspectArgs, Iterations, SETTLE};
use super::super::error::{CliError, message};
use super::super::idle::Unasked;
use super::super::open::{self, Opened};
use super::super::table::{bytes, table};
use crate::source::{Iteration, IterationChoice, Run, Saved};

/// An iteration as it is now.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// Its number; none of a release.
    number: Option<u64>,
    /// Whether the tracker names it.
    is_tracked: bool,
    /// Whether a mount of the run would show it.
    is_whole: bool,
    /// Why not.
    why: Option<String>,
    format: Option<&'static str>,
    layout: Option<String>,
    /// Bytes of its weights.
    bytes: Option<u64>,
}

/// A line for each iteration, or JSON.
pub(super) fn text(args: &InspectArgs) -> Result<String, CliError> {
    if args.tensors {
        return Err(CliError::Usage(
            "--tensors lists those of one iteration; choose it with --iteration N".into(),
        ));
    }
    let run = Run::open(&args.source, Duration::from_secs(SETTLE))?;
    let failed = |source| CliError::File { path: args.source.display().to_string(), source };
    let rows: Vec<Row> =
        run.look().map_err(failed)?.into_iter().map(|found| row(&run, args, found)).collect();
    if args.json {
        let value = serde_json::json!({ "run": args.source.to_string_lossy(), "iterations": rows });
        return Ok(format!("{value:#}\n"));
    }
    Ok(if rows.is_empty() { empty(&args.source) } else { lines(&rows) })
}

fn empty(run: &Path) -> String {
    format!("{}: no iterations yet\n", run.display())
}

fn lines(rows: &[Row]) -> String {
    let head = ["ITERATION", "FORMAT", "LAYOUT", "WEIGHTS", "STATE"].map(str::to_owned).to_vec();
    let lines = rows.iter().map(|row| {
        let or_none = |text: Option<&str>| text.unwrap_or("-").to_owned();
        let state = match (&row.why, row.is_tracked) {
            (Some(why), _) => format!("not whole: {why}"),
            (None, true) => "whole, the latest".to_owned(),
            (None, false) => "whole".to_owned(),
        };
        let size = row.bytes.map(bytes);
        vec![
            row.name.clone(),
            or_none(row.format),
            or_none(row.layout.as_deref()),
            or_none(size.as_deref()),
            state,
        ]
    });
    table(&std::iter::once(head).chain(lines).collect::<Vec<_>>(), &[3])
}

/// Opens an iteration that may be whole.
fn row(run: &Run, args: &InspectArgs, found: Iteration) -> Row {
    let Iteration { name, choice, is_tracked, state, .. } = found;
    let opened = match state {
        Saved::Waiting(why) => Err(why),
        Saved::Whole | Saved::Quiet => run.examine(&name).and_then(|_| opened(run, args, &name)),
    };
    let number = match choice {
        IterationChoice::Number(number) => Some(number),
        IterationChoice::Release => None,
    };
    let opened = opened.map(|opened| {
        let (format, catalog) = (opened.source.format, &opened.source.catalog);
        let sizes = catalog.params().iter().filter_map(|param| param.shape.bytes(param.dtype));
        (format.name(), format.layout_name(&catalog.layout), sizes.fold(0, u64::saturating_add))
    });
    let (seen, why) = match opened {
        Ok(seen) => (Some(seen), None),
        Err(why) => (None, Some(why)),
    };
    let (format, layout, bytes) = match seen {
        Some((format, layout, bytes)) => (Some(format), Some(layout), Some(bytes)),
        None => (None, None, None),
    };
    Row { name, number, is_tracked, is_whole: why.is_none(), why, format, layout, bytes }
}

fn opened(run: &Run, args: &InspectArgs, name: &str) -> Result<Opened, String> {
    let Some((path, choice)) = run.source_of(name) else { return Err("it is no iteration".to_owned()) };
    let mut from = args.from.clone();
    from.iteration = Some(Iterations::One(choice));
    open::another(&path, &from, &args.layout, &args.format, Unasked::Every).map_err(|error| message(&error))
}
