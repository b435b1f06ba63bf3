//! `ckpt-fs verify SRC COPY --partial`: some files of a view, against the source.

use std::io::{Write, stdout};

use super::args::VerifyArgs;
use super::error::{CliError, Exit, harmless};
use super::idle::Unasked;
use super::open::jobs;
use super::table::bytes;
use super::verify::LISTED;
use super::{layout, open, progress};
use crate::verify::{Copies, CopyProblem, Hooks, compare_copies};
use crate::vfs::Shape;

pub(super) fn run(args: &VerifyArgs) -> Result<Exit, CliError> {
    let missing =
        || CliError::Usage("--partial holds a copy against its source: verify SRC COPY --partial".into());
    let copy = args.second.as_deref().ok_or_else(missing)?;
    let stop = progress::stop_on_signal()?;
    let spec = layout::from_name(copy, &args.layout)?.unwrap_or_default();
    let opened = open::views(&args.first, &args.from, &args.layout, &args.format, Unasked::Own)?;
    let view = opened.conversions.view(opened.format, &opened.layout(&spec)?)?;
    let shape = Shape::One(opened.format, view.layout().clone());
    let bar = progress::bar(args.json);
    let hooks = Hooks { jobs: jobs(args.jobs), stop: &stop, done: &|n| bar.inc(n) };
    let copies = compare_copies(&*view, &opened.reader, copy, &hooks);
    bar.finish_and_clear();
    let copies = copies?;
    let text = if args.json { json(&copies, &shape) } else { text(&copies, &shape, args) };
    stdout().lock().write_all(text.as_bytes())?;
    Ok(if copies.differences.is_empty() { Exit::Success } else { Exit::Difference })
}

fn text(copies: &Copies, shape: &Shape, args: &VerifyArgs) -> String {
    let Copies { files, all, bytes: size, differences } = copies;
    let mut lines: Vec<String> =
        differences.iter().take(LISTED).map(|difference| format!("different: {difference}")).collect();
    if differences.len() > LISTED {
        lines.push(format!("and {} more", differences.len() - LISTED));
    }
    let verdict = if differences.is_empty() { "identical" } else { "compared" };
    let source = args.first.display();
    let size = if differences.is_empty() { format!(", {}", bytes(*size)) } else { String::new() };
    lines.push(format!("{verdict}: {files} of the {all} files of {source} as {shape}{size}"));
    harmless(&(lines.join("\n") + "\n"))
}

fn json(copies: &Copies, shape: &Shape) -> String {
    let differences: Vec<_> = copies
        .differences
        .iter()
        .map(|difference| {
            let (at, tensor, index) = match &difference.what {
                CopyProblem::Bytes { at, tensor: Some((name, index)) } => (Some(at), Some(name), Some(index)),
                CopyProblem::Bytes { at, tensor: None } => (Some(at), None, None),
                CopyProblem::NotOfView | CopyProblem::Size { .. } | CopyProblem::Unreadable(_) => (None, None, None),
            };
            let message = difference.to_string();
            serde_json::json!({ "file": difference.file, "message": message, "byte": at, "tensor": tensor, "index": index })
        })
        .collect();
    let value = serde_json::json!({
        "identical": copies.differences.is_empty(),
        "view": shape.to_string(),
        "files": copies.files,
        "files_of_view": copies.all,
        "bytes": copies.bytes,
        "differences": differences,
    });
    format!("{value:#}\n")
}
