//! `ckpt-fs status`

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use super::args::StatusArgs;
use super::error::{CliError, Exit};
use super::table::{bytes, table};
use crate::fuse::mounts::{self, MountEntry};
use crate::fuse::{ControlError, status};
use crate::vfs::Status;

/// A mount and what it says; `None` of one that does not answer.
struct Row {
    point: PathBuf,
    source: String,
    status: Option<Status>,
}

pub(super) fn run(args: &StatusArgs) -> Result<Exit, CliError> {
    let all = mounts::all().map_err(|source| CliError::System { what: "list the mounts", source })?;
    let ours: Vec<MountEntry> = all.into_iter().filter(MountEntry::is_ours).collect();
    let rows = match &args.mountpoint {
        Some(path) => vec![one(path, &ours)?],
        None => ours.iter().map(|entry| row(entry, status(&entry.point).ok())).collect(),
    };
    let text = if args.json { json(&rows, args.mountpoint.is_some()) } else { text(&rows) };
    stdout().lock().write_all(text.as_bytes())?;
    Ok(Exit::Success)
}

fn one(path: &Path, ours: &[MountEntry]) -> Result<Row, CliError> {
    let found = status(path)?;
    // It answered, so it is there; which one it is, is the innermost that the path lies in.
    let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let entry = ours
        .iter()
        .filter(|entry| absolute.starts_with(&entry.point))
        .max_by_key(|e| e.point.as_os_str().len());
    let entry = entry.ok_or_else(|| ControlError::NotOurs(path.to_owned()))?;
    Ok(row(entry, Some(found)))
}

fn row(entry: &MountEntry, status: Option<Status>) -> Row {
    Row { point: entry.point.clone(), source: entry.source.to_string_lossy().into_owned(), status }
}

fn text(rows: &[Row]) -> String {
    let heads = ["MOUNT", "SOURCE", "READ", "KEPT", "OF", "HITS", "MISSES", "WHOLE FILES"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for row in rows {
        let mut line = vec![row.point.display().to_string(), row.source.clone()];
        match &row.status {
            Some(Status { read_bytes, cache, .. }) => line.extend([
                bytes(*read_bytes),
                bytes(cache.bytes),
                bytes(cache.budget),
                cache.hits.to_string(),
                cache.misses.to_string(),
                cache.files.to_string(),
            ]),
            None => line.push("does not answer".to_owned()),
        }
        lines.push(line);
    }
    table(&lines, &[2, 3, 4, 5, 6, 7])
}

fn json(rows: &[Row], is_one: bool) -> String {
    let values: Vec<_> = rows
        .iter()
        .map(|row| serde_json::json!({ "mount": row.point, "source": row.source, "status": row.status }))
        .collect();
    match values.as_slice() {
        [only] if is_one => format!("{only:#}\n"),
        _ => format!("{:#}\n", serde_json::Value::Array(values)),
    }
}
