//! `ckpt-fs digest`

use std::io::{Write, stdout};

use super::args::DigestArgs;
use super::error::{CliError, Exit};
use super::open::jobs;
use super::{idle, open, progress};
use crate::digest::{Digest, ParameterDigest, VERSION, VocabularyRows, digest};

pub(super) fn run(args: &DigestArgs) -> Result<Exit, CliError> {
    let stop = progress::stop_on_signal()?;
    let opened = open::source(&args.source, &args.from)?;
    idle::refuse_for_sources(&args.from, &[&opened.source])?;
    opened.say_what_is_not_looked_at();
    let weights = opened.weights();
    let bar = progress::bar(args.json);
    bar.set_length(weights.bytes());
    let digest = digest(&weights, jobs(args.jobs), &stop, &|n| bar.inc(n));
    bar.finish_and_clear();
    let digest = digest?;
    let text = if args.json { json(&digest, args.tensors) } else { text(&digest, args) };
    stdout().lock().write_all(text.as_bytes())?;
    Ok(Exit::Success)
}

fn text(digest: &Digest, args: &DigestArgs) -> String {
    let mut lines = Vec::new();
    if args.tensors {
        let line = |p: &ParameterDigest| format!("{}  {} {} {}", p.hash, p.name, p.dtype, p.shape);
        lines.extend(digest.parameters.iter().map(line));
        for (state, parameters) in &digest.states {
            let line =
                |p: &ParameterDigest| format!("{}  {state} of {} {} {}", p.hash, p.name, p.dtype, p.shape);
            lines.extend(parameters.iter().map(line));
        }
    }
    let padded = match digest.vocabulary {
        Some(VocabularyRows::PaddedTo(rows)) => {
            format!("  (vocabulary padded to {rows}; --vocab-size N leaves the padding out)")
        }
        Some(VocabularyRows::True(_)) | None => String::new(),
    };
    lines.push(format!("{VERSION}:{}  {}{padded}", digest.weights, args.source.display()));
    if let Some(optimizer) = &digest.optimizer {
        lines.push(format!("{VERSION}:{optimizer}  {} (optimizer)", args.source.display()));
    }
    lines.join("\n") + "\n"
}

fn json(digest: &Digest, with_tensors: bool) -> String {
    let described = |p: &ParameterDigest| serde_json::json!({ "name": &*p.name, "dtype": p.dtype.name(), "shape": p.shape.0, "hash": p.hash });
    let parameters: Vec<_> = digest.parameters.iter().map(described).collect();
    let states: serde_json::Map<String, serde_json::Value> = digest
        .states
        .iter()
        .map(|(state, parameters)| (state.to_string(), parameters.iter().map(described).collect()))
        .collect();
    let (true_size, padded) = match digest.vocabulary {
        Some(VocabularyRows::True(rows)) => (Some(rows), None),
        Some(VocabularyRows::PaddedTo(rows)) => (None, Some(rows)),
        None => (None, None),
    };
    let value = serde_json::json!({
        "digest": format!("{VERSION}:{}", digest.weights),
        "vocabulary": { "true_size": true_size, "padded_to": padded },
        "optimizer_digest": digest.optimizer.as_ref().map(|optimizer| format!("{VERSION}:{optimizer}")),
        "parameters": with_tensors.then_some(parameters),
        "optimizer_states": with_tensors.then_some(states),
    });
    format!("{value:#}\n")
}
