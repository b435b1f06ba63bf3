//! `ckpt-fs inspect`

mod run;

use std::io::{Write, stdout};

use super::args::{InspectArgs, Iterations};
use super::error::{CliError, Exit, harmless};
use super::idle::Unasked;
use super::table::{bytes, table};
use super::{layout, open};
use crate::inspect::{OptimizerSummary, ParameterSummary, Summary, parameters, summary};
use crate::layout::Format;

pub(super) fn run(args: &InspectArgs) -> Result<Exit, CliError> {
    if args.from.iteration == Some(Iterations::All) {
        stdout().lock().write_all(run::text(args)?.as_bytes())?;
        return Ok(Exit::Success);
    }
    let spec = layout::from_flags(&args.layout)?;
    let opened = open::views(&args.source, &args.from, &args.layout, &args.format, Unasked::Every)?;
    let layout = opened.layout(&spec)?;
    let summary = summary(&opened.source, &opened.conversions, opened.format, &layout)?;
    let parameters = args.tensors.then(|| parameters(&opened.source));
    let text = if args.json {
        json(&summary, parameters.as_deref())?
    } else {
        harmless(&text(&summary, parameters.as_deref()))
    };
    stdout().lock().write_all(text.as_bytes())?;
    Ok(Exit::Success)
}

fn json(summary: &Summary, parameters: Option<&[ParameterSummary]>) -> Result<String, CliError> {
    let mut value = serde_json::to_value(summary).map_err(std::io::Error::from)?;
    if let (Some(parameters), Some(object)) = (parameters, value.as_object_mut()) {
        object.insert("tensors".into(), serde_json::to_value(parameters).map_err(std::io::Error::from)?);
    }
    Ok(format!("{value:#}\n"))
}

fn text(summary: &Summary, parameters: Option<&[ParameterSummary]>) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row("checkpoint", summary.directory.clone());
    row("format", format!("{} ({})", summary.format, summary.format_title));
    row("family", format!("{} ({})", summary.family, summary.family_title));
    let is_model = [Format::Hf, Format::Dcp].iter().any(|format| summary.format == format.name());
    if !is_model || summary.iteration != "release" {
        row("iteration", summary.iteration.clone());
    }
    if !is_model {
        row("layout", summary.layout.clone());
    }
    let groups = match (summary.heads, summary.query_groups) {
        (Some(heads), Some(groups)) if groups != heads => format!(", {heads} heads in {groups} query groups"),
        (Some(heads), _) => format!(", {heads} heads"),
        (None, _) => String::new(),
    };
    let experts = summary.experts.map_or_else(String::new, |experts| format!(", {experts} experts"));
    let is_described = summary.layers > 0;
    if is_described {
        row("model", format!("{} layers{groups}{experts}", summary.layers));
    }
    if let Some(vocabulary) = summary.vocabulary {
        let real = vocabulary.true_size.map_or_else(
            || "true size not recorded (where padding depends on it, --vocab-size N says it)".to_owned(),
            |size| format!("{size} of them real"),
        );
        row("vocabulary", format!("{} rows, {real}", vocabulary.padded));
    }
    let dtypes: Vec<_> =
        summary.dtypes.iter().map(|(name, size)| format!("{name} {}", bytes(*size))).collect();
    row(
        "weights",
        format!("{} parameters, {} ({})", summary.elements, bytes(summary.bytes), dtypes.join(", ")),
    );
    row("optimizer", summary.optimizer.as_ref().map_or_else(|| "none".to_owned(), optimizer));
    row(if is_model { "files" } else { "rank files" }, summary.rank_files.to_string());
    if !summary.missing.is_empty() {
        row("missing", format!("{} (every parameter is covered without them)", summary.missing.join(", ")));
    }
    for format in &summary.formats {
        let text = match (&format.refused, format.possible_tp.as_slice()) {
            (Some(reason), _) => format!("no: {reason}"),
            (None, []) => "whole".to_owned(),
            (None, possible) => format!("possible TP: {}", list(possible)),
        };
        row(&format!("as {}", format.format), text);
    }
    if is_described {
        row(
            "possible PP",
            format!("{} with even stages; 1 to {} with --pp-layers", list(&summary.even_pp), summary.layers),
        );
    }
    if !summary.possible_ep.is_empty() {
        row("possible EP", list(&summary.possible_ep));
    }
    let left_out =
        if summary.left_out.is_empty() { "nothing".to_owned() } else { summary.left_out.join(", ") };
    row("left out of views", left_out);
    if summary.has_rng_state {
        row(
            "rng_state",
            "in another layout each rank has that of the nearest source rank; --rng omit leaves it out"
                .to_owned(),
        );
    }
    let mut text = table(&rows, &[]);
    if !summary.training_flags.is_empty() {
        text.push_str(&format!("\nto train from a view as {}:\n", summary.training_layout));
        text.extend(summary.training_flags.iter().map(|flag| format!("  {flag}\n")));
        text.extend(summary.cautions.iter().map(|caution| format!("note: {caution}\n")));
    }
    if let Some(parameters) = parameters {
        text.push('\n');
        text.push_str(&tensors(parameters));
    }
    text
}

/// `distributed, 3 states (master, exp_avg, exp_avg_sq), 474.0 kB, after 100 steps`
fn optimizer(optimizer: &OptimizerSummary) -> String {
    let OptimizerSummary { encoding, states, bytes: size, step } = optimizer;
    let steps = step.map_or_else(String::new, |step| format!(", after {step} steps"));
    let encoding = match *encoding {
        "mixed" => "mixed precision",
        "single" => "32-bit weights",
        "named" => "by name",
        other => other,
    };
    format!("{encoding}, {} states ({}), {}{steps}", states.len(), states.join(", "), bytes(*size))
}

fn tensors(parameters: &[ParameterSummary]) -> String {
    let head = ["parameter", "dtype", "shape", "cut", "pieces", "bytes"].map(ToOwned::to_owned).to_vec();
    let rows = parameters.iter().map(|p| {
        vec![
            p.name.clone(),
            p.dtype.to_owned(),
            format!("[{}]", list(&p.shape)),
            p.cut.map_or_else(|| "-".to_owned(), |axis| format!("dim {axis}")),
            p.pieces.to_string(),
            p.bytes.to_string(),
        ]
    });
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), &[4, 5])
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
