//! Options that would do nothing are refused: whoever types one expects something of it.
//!
//! An option does something for some formats of views, or for some kinds of sources. Not here: options whose effect depends on what is found
//! in the checkpoint (`--tied-head`, `--optimizer`, `--family`), which say what is to be done if it is, what may choose or measure a model as well
//! as a run (`--iteration`, where the last step of one is a model; `--vocab-size`, where an embedding is padded), and values that are wrong (`args`).

use super::args::{FormatArgs, LayoutArgs, SourceArgs};
use super::error::CliError;
use crate::layout::Format;
use crate::source::Source;

/// Which views a command shows or speaks of where no format is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unasked {
    /// That of the source's own format.
    Own,
    /// One of every format that the source can be shown as.
    Every,
}

/// The formats that are shown.
pub(super) fn shown(asked: Option<Format>, own: Format, unasked: Unasked) -> Vec<Format> {
    match (asked, unasked) {
        (Some(format), _) => vec![format],
        (None, Unasked::Own) => vec![own],
        (None, Unasked::Every) => Format::ALL.to_vec(),
    }
}

/// Formats whose files are, or hold, zip archives with checksums.
const WITH_SUMS: &[Format] = &[Format::Megatron, Format::TorchDist, Format::Dcp];

/// An option: whether it was given, for which formats of views it does something, and whether it does for this source whatever the view.
struct Rule {
    flag: &'static str,
    given: bool,
    views: &'static [Format],
    for_source: bool,
}

/// Refuses options of a view that do nothing for what is shown.
pub(super) fn refuse(
    format: &FormatArgs,
    layout: &LayoutArgs,
    from: &SourceArgs,
    source: &Source,
    shown: &[Format],
) -> Result<(), CliError> {
    use Format::{Dcp, Hf, Megatron, Safetensors, Sglang, TorchDist, Vllm};
    let of_config = matches!(source.format, Hf | Dcp) || source.by_template;
    // A run has its own names and its own padding.
    let made_for_training = source.model.family().format() != Megatron;
    let rules = [
        Rule {
            flag: "--hf-model-type",
            given: format.hf_model_type.is_some(),
            views: &[Hf, Vllm, Sglang, Dcp],
            for_source: of_config,
        },
        Rule {
            flag: "--shard-size",
            given: format.shard_size.is_some(),
            views: &[Hf, TorchDist, Dcp],
            for_source: false,
        },
        Rule {
            flag: "--megatron-spec",
            given: format.megatron_spec.is_some(),
            views: if made_for_training { &[Megatron, TorchDist] } else { &[] },
            for_source: source.format == TorchDist,
        },
        Rule {
            flag: "--make-vocab-size-divisible-by",
            given: format.make_vocab_size_divisible_by.is_some(),
            views: if made_for_training { &[Megatron, TorchDist, Safetensors] } else { &[] },
            for_source: source.format == TorchDist && source.by_template,
        },
        Rule { flag: "--dcp-layout", given: format.dcp_layout.is_some(), views: &[Dcp], for_source: false },
        Rule { flag: "--dcp-names", given: format.dcp_names.is_some(), views: &[Dcp], for_source: false },
        Rule {
            flag: "--engine-version",
            given: format.engine_version.is_some(),
            views: &[Vllm, Sglang],
            for_source: false,
        },
        Rule {
            flag: "--vocab-fill",
            given: layout.vocab_fill.is_some(),
            views: &[Megatron, TorchDist, Safetensors, Vllm, Sglang],
            for_source: false,
        },
        Rule { flag: "--rng", given: layout.rng.is_some(), views: &[Megatron], for_source: false },
        Rule {
            flag: "--template",
            given: from.template.is_some(),
            // A dcp view has the names of the architecture, which a template's config may say.
            views: &[Hf, Vllm, Sglang, Dcp],
            for_source: source.by_template,
        },
    ];
    for Rule { flag, given, views, for_source } in rules {
        if given && !for_source && views.is_empty() {
            return Err(CliError::Usage(format!(
                "{flag} has no effect here: it is for views of a published model, and the source is a run of Megatron; leave it out"
            )));
        }
        if given && !for_source {
            some_of_these(flag, shown, views)?;
        }
    }
    Ok(())
}

/// Refuses `--crc` where no file that is shown has a checksum.
pub(super) fn refuse_sums(given: bool, shown: &[Format]) -> Result<(), CliError> {
    if given { some_of_these("--crc", shown, WITH_SUMS) } else { Ok(()) }
}

/// Refuses ranks to be chosen where files are no rank's.
pub(super) fn refuse_ranks(flag: &str, given: bool, format: Format) -> Result<(), CliError> {
    let of_ranks = [Format::Megatron, Format::Safetensors, Format::Vllm, Format::Sglang];
    if given { some_of_these(flag, &[format], &of_ranks) } else { Ok(()) }
}

/// Refuses options of sources that do nothing for any of these, which are looked at in themselves.
pub(super) fn refuse_for_sources(from: &SourceArgs, sources: &[&Source]) -> Result<(), CliError> {
    if from.template.is_some() && !sources.iter().any(|source| source.by_template) {
        return Err(nothing_for_source(
            "--template",
            sources,
            "says what tensors are, where nothing else does",
        ));
    }
    refuse_of_source(from, sources)
}

/// The same of those that do nothing whatever is made of the source.
pub(super) fn refuse_of_source(from: &SourceArgs, sources: &[&Source]) -> Result<(), CliError> {
    if from.root.is_some() && !sources.iter().any(|source| source.format == Format::Dcp) {
        return Err(nothing_for_source("--root", sources, "chooses a model in a distributed checkpoint"));
    }
    Ok(())
}

/// Refuses an option where nothing that is shown is among the formats that it does something for.
fn some_of_these(flag: &str, shown: &[Format], views: &[Format]) -> Result<(), CliError> {
    if shown.iter().any(|format| views.contains(format)) {
        return Ok(());
    }
    let names =
        |formats: &[Format]| formats.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ");
    Err(CliError::Usage(format!(
        "{flag} has no effect in {} views, only in those of {}; leave it out",
        names(shown),
        names(views)
    )))
}

fn nothing_for_source(flag: &str, sources: &[&Source], what: &str) -> CliError {
    let kinds: Vec<&str> = sources.iter().map(|source| source.format.name()).collect();
    CliError::Usage(format!(
        "{flag} has no effect on a {} checkpoint: it {what}; leave it out",
        kinds.join(" or ")
    ))
}
