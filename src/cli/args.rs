//! The arguments of every command, as clap reads them.

mod bytes;
mod choices;
mod format;
mod iterations;
mod map;
mod mount;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use bytes::{CatArgs, ServeArgs};
pub(crate) use format::FormatArgs;
pub(crate) use iterations::Iterations;
pub(crate) use map::{Kind, MapArgs};
pub(crate) use mount::{LogArgs, MountArgs, SETTLE, StatusArgs, UNGUARDED, UnmountArgs, WarmupArgs};

use crate::layout::PipelineLayout;
use crate::reader::CrcMode;
use crate::source::TiedHead;
use crate::view::{OptimizerChoice, RngChoice, VocabularyFill};

/// A large model's checkpoint in any parallel layout and format, without rewriting it.
#[derive(Debug, Parser)]
#[command(name = "ckpt-fs", version, long_version = super::version::LONG, before_help = EXAMPLES, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  ckpt-fs mount src/ /mnt/tp8pp4                  src/ as for TP 8 and PP 4
  ckpt-fs mount src/ /mnt/hf --as hf              the same as a Hugging Face model
  ckpt-fs mount run/ /mnt/run --iteration all     every checkpoint of a run, new ones as they are saved
  ckpt-fs materialize src/ dst/ --tp 4 --pp 1     a real copy
  ckpt-fs inspect src/                            what a checkpoint is, and what it can be shown as";

const EXIT_CODES: &str = "\
Exit codes: 0 success, 1 verify found a difference, 2 wrong usage, 3 the source cannot be read, is damaged or incomplete, \
4 the source is of a kind this version does not reshard, 5 the layout is impossible for the model, 6 the destination cannot be written, \
7 the mount point cannot be used, 8 FUSE is not available, 9 other errors, 130 interrupted.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show a checkpoint in another layout or format as a read-only directory
    #[command(name = MOUNT)]
    Mount(MountArgs),
    /// Take a mount away
    #[command(visible_alias = "umount")]
    Unmount(UnmountArgs),
    /// Show what a mount serves and keeps
    Status(StatusArgs),
    /// Show what a mount said lately: why a reader got an error
    Log(LogArgs),
    /// Make the first load from a mount as fast as the next ones
    Warmup(WarmupArgs),
    /// Write a checkpoint to disk in another layout or format
    Materialize(MaterializeArgs),
    /// Say what a checkpoint is and which layouts it can take
    Inspect(InspectArgs),
    /// List the files of a view without mounting it
    Ls(LsArgs),
    /// Draw which source file makes which part of which rank of a view
    Map(MapArgs),
    /// Write files of a view to standard output
    Cat(CatArgs),
    /// Answer programs that read files of a view, over standard input and output
    Serve(ServeArgs),
    /// Compare two checkpoints in any two layouts bit for bit, or check one for consistency
    Verify(VerifyArgs),
    /// Print fingerprints of the weights and of the optimizer that do not depend on the layout
    Digest(DigestArgs),
    /// Check whether this machine can mount, and say what to do where it cannot
    Doctor(DoctorArgs),
    /// Take a mount away when standard input ends and its process is gone: what `mount --auto-unmount` starts
    #[command(name = WATCH, hide = true)]
    Watch(WatchArgs),
    /// Write a file to standard output: how `doctor` reads its trial
    #[command(name = READ, hide = true)]
    Read(ReadArgs),
    /// Write man pages and completions of shells into a directory that is laid out like /usr/share
    #[command(hide = true)]
    Generate(GenerateArgs),
}

/// Name of the command that mounts.
pub(crate) const MOUNT: &str = "mount";

/// What a mount takes for its cache unless it is told.
const CACHE_SIZE: &str = "1GiB";

/// Name of the command that watches a mount.
pub(crate) const WATCH: &str = "watch-mount";

/// Name of the command that reads a file.
pub(crate) const READ: &str = "read-file";

#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// Which
    pub(crate) path: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Where it is mounted
    pub(crate) mountpoint: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A mount of one file is made, read and taken away; nothing else is changed. Exit codes: 0 a mount is possible, 8 it is not.")]
pub(crate) struct DoctorArgs {
    /// A checkpoint, of whose file system something is said too
    pub(crate) source: Option<PathBuf>,

    /// What a mount is to take for its cache
    #[arg(long, value_name = "SIZE", default_value = CACHE_SIZE, value_parser = format::size_or_none)]
    pub(crate) cache_size: u64,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Where to; made if it is not there
    pub(crate) directory: PathBuf,
}

/// Which checkpoint.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Source")]
pub(crate) struct SourceArgs {
    /// Iteration to use instead of the latest: a number, or 'release'; for mount also 'all', which shows each in a directory of its name, and for inspect, which lists them
    #[arg(long, value_name = "N")]
    pub(crate) iteration: Option<Iterations>,

    /// A file that describes another model family; tried before the built-in ones
    #[arg(long, value_name = "FILE")]
    pub(crate) family: Vec<PathBuf>,

    /// True vocabulary size, where the checkpoint does not record it
    #[arg(long, value_name = "N")]
    pub(crate) vocab_size: Option<u64>,

    /// A tied head that stands beside the embedding in the same files: it must be the same, or is left out
    #[arg(long, value_enum, default_value_t = TiedHead::Compare)]
    pub(crate) tied_head: TiedHead,

    /// The optimizer's state: as the source keeps it, in the other encoding of the same numbers, or left out
    #[arg(long, value_enum, default_value_t = OptimizerChoice::Keep)]
    pub(crate) optimizer: OptimizerChoice,

    /// A model directory: its config says what a distributed checkpoint (FSDP, torchtitan) is a model of. In views (hf, vllm, sglang) its
    /// tokenizer, chat template, generation config and code go beside the weights
    #[arg(long, value_name = "DIR")]
    pub(crate) template: Option<PathBuf>,

    /// Under which key the model is, where a distributed checkpoint has several, e.g. ema
    #[arg(long, value_name = "KEY")]
    pub(crate) root: Option<String>,
}

/// Which layout.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Layout (what is left out stays as in the source)")]
pub(crate) struct LayoutArgs {
    /// Tensor-parallel size
    #[arg(long, value_name = "N", value_parser = format::count, aliases = ["target-tensor-model-parallel-size", "target-tensor-parallel-size", "tensor-model-parallel-size", "tensor-parallel-size"])]
    pub(crate) tp: Option<u32>,

    /// Pipeline-parallel size; stages are even unless --pp-layers or --pp-layout says otherwise
    #[arg(long, value_name = "N", value_parser = format::count, aliases = ["target-pipeline-model-parallel-size", "target-pipeline-parallel-size", "pipeline-model-parallel-size", "pipeline-parallel-size"])]
    pub(crate) pp: Option<u32>,

    /// Virtual stages on each pipeline rank (interleaved schedule); none where --pp is given without it
    #[arg(long, value_name = "N", value_parser = format::count, aliases = ["virtual-pipeline-model-parallel-size", "num-virtual-stages-per-pipeline-rank"])]
    pub(crate) vpp: Option<u32>,

    /// Expert-parallel size
    #[arg(long, value_name = "N", value_parser = format::count, aliases = ["target-expert-parallel-size", "expert-model-parallel-size"])]
    pub(crate) ep: Option<u32>,

    /// Expert-tensor-parallel size; the tensor-parallel size where --tp is given without it
    #[arg(long, value_name = "N", value_parser = format::count, aliases = ["expert-tensor-parallel-size"])]
    pub(crate) etp: Option<u32>,

    /// Layers of each pipeline stage, e.g. 10,32; with --vpp of each virtual stage, in the order of the model
    #[arg(long, value_name = "N,N,..", value_delimiter = ',', aliases = ["target-pipeline-model-parallel-blocks", "pipeline-model-parallel-blocks"])]
    pub(crate) pp_layers: Vec<u32>,

    /// Pipeline stages in Megatron's text, e.g. 'Et*2|t*3|tL'; with --pp, of which its stages are a multiple
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["pp_layers"], aliases = ["pipeline-model-parallel-layout"])]
    pub(crate) pp_layout: Option<PipelineLayout>,

    /// What new rows of a vocabulary that needs more padding hold [default: zero]
    #[arg(long, value_enum)]
    pub(crate) vocab_fill: Option<VocabularyFill>,

    /// Random-number state, which belongs to one rank of one layout [default: keep]
    #[arg(long, value_enum)]
    pub(crate) rng: Option<RngChoice>,
}

impl SourceArgs {
    /// Whether any of them was typed that says how a source is read, not which it is.
    pub(crate) fn is_given(&self) -> bool {
        let Self { iteration: _, family, vocab_size, tied_head, optimizer, template, root } = self;
        !family.is_empty()
            || vocab_size.is_some()
            || *tied_head != TiedHead::default()
            || *optimizer != OptimizerChoice::default()
            || template.is_some()
            || root.is_some()
    }
}

impl LayoutArgs {
    /// Whether any of them was typed.
    pub(crate) fn is_given(&self) -> bool {
        let Self { tp, pp, vpp, ep, etp, pp_layers, pp_layout, vocab_fill, rng } = self;
        let sizes = [tp, pp, vpp, ep, etp];
        sizes.into_iter().any(Option::is_some)
            || !pp_layers.is_empty()
            || pp_layout.is_some()
            || vocab_fill.is_some()
            || rng.is_some()
    }
}

#[derive(Debug, Args)]
pub(crate) struct MaterializeArgs {
    /// The checkpoint: the directory of a run, of one iteration, or of a Hugging Face model
    pub(crate) source: PathBuf,

    /// The directory to make; a name such as tp8pp4 or tp1pp2@10,32 is the layout
    pub(crate) destination: PathBuf,

    #[command(flatten)]
    pub(crate) layout: LayoutArgs,

    #[command(flatten)]
    pub(crate) format: FormatArgs,

    #[command(flatten)]
    pub(crate) from: SourceArgs,

    /// Replace what a former run wrote: the same files, and for a whole checkpoint its rank files in another layout. Anything else in the
    /// way is named and kept
    #[arg(long, help_heading = "Output")]
    pub(crate) overwrite: bool,

    /// Go on with what a run with the same destination left behind that was killed, or stopped with this flag: bytes on disk that are as
    /// they should be are compared, not written again
    #[arg(long, help_heading = "Output")]
    pub(crate) resume: bool,

    /// Write only these tensor-parallel ranks, e.g. 0,1,4-7: a partial checkpoint, in a directory of its own
    #[arg(long, value_name = "RANKS", alias = "tensor-generate-layer", help_heading = "Output")]
    pub(crate) tp_ranks: Option<String>,

    /// Write only these pipeline stages, e.g. 0,1,4-7
    #[arg(long, value_name = "STAGES", alias = "pipeline-generate-layer", help_heading = "Output")]
    pub(crate) pp_ranks: Option<String>,

    /// What checksum fields in .pt and .distcp files hold: true sums, or zeros as in a mount, so that the two are the same byte for byte
    /// [default: exact]
    #[arg(long, value_enum, help_heading = "Output")]
    pub(crate) crc: Option<CrcMode>,

    /// Files written at the same time
    #[arg(short, long, value_name = "N", help_heading = "Output")]
    pub(crate) jobs: Option<usize>,

    /// How progress is shown on standard error
    #[arg(long, value_enum, default_value_t = super::progress::Shown::Bar, help_heading = "Output")]
    pub(crate) progress: super::progress::Shown,

    /// No progress (--progress none), and nothing of what went well
    #[arg(short, long, help_heading = "Output", conflicts_with = "progress")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The checkpoint: the directory of a run, of one iteration, or of a Hugging Face model
    pub(crate) source: PathBuf,

    #[command(flatten)]
    pub(crate) format: FormatArgs,

    #[command(flatten)]
    pub(crate) from: SourceArgs,

    #[command(flatten)]
    pub(crate) layout: LayoutArgs,

    /// List every parameter: global shape, element type, cut and bytes
    #[arg(long)]
    pub(crate) tensors: bool,

    /// List every class and function that its pickles name instead, and mark those not known to be plain data. Nothing is run; also for
    /// checkpoints that are otherwise refused, and for single files
    #[arg(long, conflicts_with = "tensors")]
    pub(crate) globals: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// The checkpoint: the directory of a run, of one iteration, or of a Hugging Face model
    pub(crate) source: PathBuf,

    #[command(flatten)]
    pub(crate) layout: LayoutArgs,

    #[command(flatten)]
    pub(crate) format: FormatArgs,

    #[command(flatten)]
    pub(crate) from: SourceArgs,

    /// List every tensor, and which source files and offsets its bytes come from
    #[arg(long)]
    pub(crate) tensors: bool,

    /// List the layouts with even stages that there are in every format, or in that of --as, instead of the files of one
    #[arg(long, conflicts_with_all = ["tensors", "tp", "pp", "vpp", "ep", "etp", "pp_layers", "pp_layout"])]
    pub(crate) layouts: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A checkpoint
    pub(crate) first: PathBuf,

    /// Another, in any layout; without it the first is checked in itself: replicas, tied copies, checksums, missing files
    pub(crate) second: Option<PathBuf>,

    /// The second holds copies of some files of a view of the first, such as the ranks of one node: each is compared byte for byte, but for
    /// checksums that are zeros. A name such as tp8pp4 is the layout of the view; the same options as for its mount or materialize say the rest
    #[arg(long, requires = "second")]
    pub(crate) partial: bool,

    #[command(flatten)]
    pub(crate) layout: LayoutArgs,

    #[command(flatten)]
    pub(crate) format: FormatArgs,

    #[command(flatten)]
    pub(crate) from: SourceArgs,

    /// Threads
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<usize>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DigestArgs {
    /// The checkpoint: the directory of a run, of one iteration, or of a Hugging Face model
    pub(crate) source: PathBuf,

    #[command(flatten)]
    pub(crate) from: SourceArgs,

    /// Print the fingerprint of every parameter too
    #[arg(long)]
    pub(crate) tensors: bool,

    /// Threads
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<usize>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_scripts_long_names_are_understood() {
        let line = "ckpt-fs materialize a b --target-tensor-model-parallel-size 4 --target-pipeline-model-parallel-size 2 \
                    --target-pipeline-model-parallel-blocks 1,5 --tensor-generate-layer 0,1 --pipeline-generate-layer 1";
        let Command::Materialize(args) = Arguments::parse_from(line.split_whitespace()).command else {
            panic!()
        };
        assert_eq!((args.layout.tp, args.layout.pp, args.layout.pp_layers), (Some(4), Some(2), vec![1, 5]));
        assert_eq!((args.tp_ranks.as_deref(), args.pp_ranks.as_deref()), (Some("0,1"), Some("1")));
    }
}
