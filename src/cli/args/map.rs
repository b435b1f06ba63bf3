//! The arguments of `map`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{FormatArgs, LayoutArgs, SourceArgs};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MapArgs {
    /// The checkpoint: the directory of a run, of one iteration, or of a Hugging Face model
    pub(crate) source: PathBuf,

    #[command(flatten)]
    pub(crate) layout: LayoutArgs,

    #[command(flatten)]
    pub(crate) format: FormatArgs,

    #[command(flatten)]
    pub(crate) from: SourceArgs,

    /// What is drawn: by default what the name of the file says, and text on standard output
    #[arg(long = "format", value_name = "KIND", value_enum, ignore_case = true, help_heading = "Output")]
    pub(crate) kind: Option<Kind>,

    /// Write it there instead of to standard output (-); a file that is there is replaced, none of the source
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub(crate) output: Option<PathBuf>,

    /// Print what is drawn as JSON: every rank, layer and tensor, and where its bytes come from
    #[arg(long, conflicts_with = "kind", help_heading = "Output")]
    pub(crate) json: bool,
}

/// A kind of picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// For a terminal: as wide as it is, in its colours
    Text,
    /// A page that needs nothing else: what is pointed at is told tensor by tensor, and tensors can be looked for
    Html,
    /// A drawing for a README, for light and dark pages
    Svg,
}

const EXAMPLES: &str = "\
Examples:
  ckpt-fs map src/ --tp 8 --pp 4                       in the terminal
  ckpt-fs map src/ --tp 8 --pp 4 -o map.html           with every tensor, for a browser
  ckpt-fs map src/ --as hf -o map.svg                  for a README";
