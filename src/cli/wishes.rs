//! What people type who know other tools, and what it is called here: said where the command line is not understood.
//!
//! Not here: what is understood (`args`). Words are those of Megatron, Hugging Face, mergekit, mount tools and of people who described what they
//! looked for.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Commands of other tools.
const COMMANDS: &[(&[&str], &str)] = &[
    (
        &[
            "convert", "export", "import", "reshard", "split", "merge", "save", "write", "copy", "cp",
            "quantize",
        ],
        "materialize SRC DST --as hf|megatron|.. --tp N --pp N",
    ),
    (
        &["list", "files", "tree", "dir", "plan", "preview", "dry-run"],
        "ls SRC --tp N --pp N lists the files of a view; inspect SRC says what a checkpoint is",
    ),
    (
        &["info", "show", "describe", "print", "stat", "summary", "tensors"],
        "inspect SRC; with --tensors, every tensor",
    ),
    (
        &["compare", "diff", "check", "fsck", "validate", "test"],
        "verify A B compares two checkpoints; verify A checks one",
    ),
    (&["hash", "checksum", "sha256", "fingerprint", "md5"], "digest SRC"),
    (&["fuse", "serve-fuse", "start", "attach", "open", "view"], "mount SRC MNT"),
    (&["stop", "detach", "eject", "u"], "unmount MNT"),
    (&["logs", "messages", "dmesg", "journal", "errors"], "log MNT"),
    (&["stats", "top", "metrics", "ps"], "status"),
    (&["draw", "plot", "graph", "visualize", "viz", "picture"], "map SRC --tp N --pp N"),
    (&["diagnose", "preflight", "selftest", "healthcheck", "troubleshoot"], "doctor"),
    (&["warm", "preload", "prefetch", "prewarm"], "warmup MNT"),
    (&["version"], "--version"),
];

/// Options of other tools, with their dashes.
const OPTIONS: &[(&[&str], &str)] = &[
    (
        &[
            "--format",
            "--to",
            "--output-format",
            "--target-format",
            "--out-type",
            "--type",
            "--save-format",
            "--ckpt-format",
        ],
        "the format of a view is --as FORMAT",
    ),
    (
        &["--hf", "--megatron", "--vllm", "--sglang", "--safetensors", "--torch-dist", "--dcp"],
        "the format of a view is --as FORMAT, such as --as hf",
    ),
    (&["-tp", "-pp", "-ep", "-vpp", "-etp"], "sizes have two dashes: --tp 4"),
    (
        &["--tensor-parallel", "--tp-size", "--tp_size", "--target-tp", "--tensor-model-parallel"],
        "the tensor-parallel size is --tp N",
    ),
    (
        &["--pipeline-parallel", "--pp-size", "--pp_size", "--target-pp", "--pipeline-model-parallel"],
        "the pipeline-parallel size is --pp N",
    ),
    (&["--expert-parallel", "--ep-size", "--ep_size", "--target-ep"], "the expert-parallel size is --ep N"),
    (
        &["--dry-run", "--plan", "--plan-only", "-n"],
        "ls SRC lists what would be written, with the same flags",
    ),
    (&["--ro", "--readonly", "--read-only", "--rw"], "a mount is always read-only: leave it out"),
    (
        &[
            "--output",
            "--out",
            "--output-dir",
            "--save",
            "--save-dir",
            "--dst",
            "--target",
            "--out-path",
            "--target-dir",
        ],
        "the destination is the second argument: ckpt-fs materialize SRC DST",
    ),
    (
        &["--input", "--load", "--load-dir", "--source", "--src", "--model", "--path"],
        "the source is the first argument, without a flag",
    ),
    (&["--force", "--yes", "-y", "--exist-ok"], "what a former run wrote is replaced with --overwrite"),
    (
        &["--workers", "--num-workers", "--parallel", "--processes"],
        "the number of files written at a time is --jobs N; threads of a mount are --threads N",
    ),
    (
        &["--dtype", "--bf16", "--fp16", "--fp32", "--torch-dtype", "--torch_dtype", "--precision"],
        "no value is computed: a view has the element types of its source",
    ),
    (
        &["--daemon", "--background", "-d", "--detach"],
        "a mount is in the background unless --foreground is said",
    ),
    (
        &["--debug", "--verbose", "-v"],
        "a mount says more with --log-level info (or debug, trace); ckpt-fs log MNT shows what it said",
    ),
    (
        &["--step", "--steps", "--iter", "--checkpoint", "--ckpt-step", "--revision"],
        "another checkpoint of a run is --iteration N",
    ),
    (
        &["--tokenizer", "--tokenizer-model", "--config", "--hf-model", "--hf-model-path"],
        "--template DIR takes config, tokenizer and code of a model directory",
    ),
    (
        &["--max-shard-size", "--split-max-size", "--out-shard-size"],
        "bytes of data in each file are --shard-size SIZE",
    ),
    (
        &["--no-optim", "--no-load-optim", "--no-optimizer", "--weights-only", "--skip-optimizer"],
        "--optimizer none leaves the optimizer's state out",
    ),
    (&["--umount"], "ckpt-fs unmount MNT takes a mount away"),
];

/// Options that `map` has another answer to.
const OF_MAP: &[(&[&str], &str)] = &[
    (
        &["--format", "--output-format", "--type", "--kind", "--out-type"],
        "what is drawn is --format text, svg or html, or --json; the format of the view is --as FORMAT",
    ),
    (
        &["--out", "--out-path", "--dst", "--target", "--save", "--output-dir", "--save-dir", "--target-dir"],
        "the file that is written is -o FILE",
    ),
];

/// What the command line was meant to say, where it is something that others call so.
pub(super) fn meant(error: &clap::Error, words: &[String]) -> Option<&'static str> {
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            find(COMMANDS, &said(ContextKind::InvalidSubcommand)?.to_ascii_lowercase())
        }
        ErrorKind::UnknownArgument
        | ErrorKind::InvalidValue
        | ErrorKind::TooManyValues
        | ErrorKind::ValueValidation => {
            // A flag of one dash and several letters is taken apart before it is refused: as typed it is among the words.
            let typed = words.iter().map(|word| before_value(word)).find(|word| is_long_with_one_dash(word));
            let word = typed.or_else(|| said(ContextKind::InvalidArg).map(before_value))?;
            let is_map = words.iter().find(|word| !word.starts_with('-')).is_some_and(|word| word == "map");
            find(OF_MAP, word).filter(|_| is_map).or_else(|| find(OPTIONS, word))
        }
        _ => None,
    }
}

fn find(table: &[(&[&str], &'static str)], word: &str) -> Option<&'static str> {
    table.iter().find(|(names, _)| names.contains(&word)).map(|(_, meant)| *meant)
}

/// `--to=hf` and `--to <FORMAT>` without what follows the name; `-tp4` without its number.
fn before_value(word: &str) -> &str {
    let name = word.split(['=', ' ']).next().map_or("", |name| name);
    if is_long_with_one_dash(name) { name.trim_end_matches(|c: char| c.is_ascii_digit()) } else { name }
}

fn is_long_with_one_dash(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|name| !name.starts_with('-') && name.len() > 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::args::Arguments;

    fn wish(line: &str) -> Option<&'static str> {
        let words: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
        let error = Arguments::try_parse_from(std::iter::once("ckpt-fs".to_owned()).chain(words.clone()))
            .unwrap_err();
        meant(&error, &words)
    }

    #[test]
    fn what_others_call_it_is_known() {
        for (line, words) in [
            ("convert a b", "materialize SRC DST"),
            ("list a", "ls SRC"),
            ("diff a b", "verify A B"),
            ("materialize a b --format hf", "--as FORMAT"),
            ("materialize a b --to=hf", "--as FORMAT"),
            ("mount a b -tp 4", "two dashes"),
            ("mount a b -tp=4", "two dashes"),
            ("mount a b -tp4", "two dashes"),
            ("mount a b --ro", "always read-only"),
            ("materialize a b --dry-run", "ls SRC"),
            ("mount a b --dtype bf16", "no value is computed"),
            ("materialize a --output b", "second argument"),
            ("map a --format png", "text, svg or html"),
            ("map a --format hf", "--as FORMAT"),
            ("map a --to hf", "--as FORMAT"),
            ("map a --out b", "-o FILE"),
        ] {
            assert!(wish(line).is_some_and(|meant| meant.contains(words)), "{line}: {:?}", wish(line));
        }
        assert_eq!((wish("frobnicate a"), wish("mount a b --frobnicate")), (None, None));
    }

    /// A word of the table that became one of this tool's would never be looked up.
    #[test]
    fn no_word_is_one_of_ours() {
        let command = Arguments::command();
        let ours: BTreeSet<String> = command
            .get_subcommands()
            .flat_map(|one| one.get_name_and_visible_aliases())
            .map(ToOwned::to_owned)
            .collect();
        let all: Vec<&str> = COMMANDS.iter().chain(OPTIONS).flat_map(|(names, _)| *names).copied().collect();
        assert!(all.iter().all(|word| !ours.contains(*word)), "{ours:?}");
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
