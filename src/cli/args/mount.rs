//! The arguments of commands that make a mount, ask it and take it away.

use std::path::PathBuf;

use clap::Args;

use super::{FormatArgs, LayoutArgs, SourceArgs, format};
use crate::cli::log::Form;
use crate::cli::log_filter;
use crate::cli::options::OptionList;
use crate::reader::CrcMode;
use crate::vfs::IoMode;

/// Seconds for which files must not have changed. A rank that waits for others while it saves waits less.
pub(crate) const SETTLE: u64 = 30;

#[derive(Debug, Clone, Args)]
pub(crate) struct MountArgs {
    /// The checkpoint: the directory of a run, of one iteration, or of a Hugging Face model
    pub(crate) source: PathBuf,

    /// Where to mount. A name such as tp8pp4 or tp1pp2@10,32 is the layout; under any other name each layout is a directory. /dev/fd/N is an
    /// open /dev/fuse that another program has mounted
    pub(crate) mountpoint: PathBuf,

    #[command(flatten)]
    pub(crate) layout: LayoutArgs,

    #[command(flatten)]
    pub(crate) format: FormatArgs,

    #[command(flatten)]
    pub(crate) from: SourceArgs,

    /// Serve what another program has mounted at the mount point: N is the number of an open /dev/fuse that this one inherits. Who may use the
    /// mount, and taking it away, is the business of that program
    #[arg(long, value_name = "N", help_heading = "Mount")]
    pub(crate) fuse_fd: Option<u32>,

    /// With --iteration all: seconds for which the files of an iteration must not have changed before it is shown, where no tracker
    /// (latest_checkpointed_iteration.txt) says that it is saved
    /// [default: 30]
    #[arg(long, value_name = "SECONDS", help_heading = "Mount")]
    pub(crate) settle: Option<u64>,

    /// Stay in the foreground
    #[arg(short, long, help_heading = "Mount")]
    pub(crate) foreground: bool,

    /// Let every user in (needs user_allow_other in /etc/fuse.conf unless root)
    #[arg(long, help_heading = "Mount")]
    pub(crate) allow_other: bool,

    /// Let root in
    #[arg(long, help_heading = "Mount", conflicts_with = "allow_other")]
    pub(crate) allow_root: bool,

    /// Owner of the files
    #[arg(long, value_name = "ID", help_heading = "Mount")]
    pub(crate) uid: Option<u32>,

    /// Group of the files
    #[arg(long, value_name = "ID", help_heading = "Mount")]
    pub(crate) gid: Option<u32>,

    /// Permissions that files are shown with: nobody may write them whatever they say, but copies of them have these
    #[arg(long, value_name = "MODE", default_value = "644", value_parser = format::mode, help_heading = "Mount")]
    pub(crate) file_mode: u16,

    /// Permissions of directories
    #[arg(long, value_name = "MODE", default_value = "755", value_parser = format::mode, help_heading = "Mount")]
    pub(crate) dir_mode: u16,

    /// Say nothing of what went well
    #[arg(short, long, help_heading = "Mount")]
    pub(crate) quiet: bool,

    /// Take the mount away also when its process is killed: a small process waits for that
    #[arg(long, help_heading = "Mount")]
    pub(crate) auto_unmount: bool,

    /// Mount options as mount(8) takes them; a comma in a value is written '\,'
    #[arg(short = 'o', value_name = "OPT,OPT=VALUE", help_heading = "Mount")]
    pub(crate) options: Vec<OptionList>,

    /// Do everything but mount: open the checkpoint, and see that it can be shown so
    #[arg(long, help_heading = "Mount")]
    pub(crate) dry_run: bool,

    /// Checksum fields of the files [default: zero]
    #[arg(long, value_enum, help_heading = "Mount")]
    pub(crate) crc: Option<CrcMode>,

    /// How files are opened; by default as suits their format
    #[arg(long, value_enum, help_heading = "Mount")]
    pub(crate) io: Option<IoMode>,

    /// Most memory for what was assembled: tensors that many readers read, and files that loaders map, which as root the kernel then reads by
    /// itself. 0 keeps nothing
    #[arg(long, value_name = "SIZE", default_value = super::CACHE_SIZE, value_parser = format::size_or_none, help_heading = "Mount")]
    pub(crate) cache_size: u64,

    /// Threads that answer the kernel, 256 at most
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=256), help_heading = "Mount")]
    pub(crate) threads: usize,

    /// Where messages go instead of the system's log, or of standard error in the foreground; `ckpt-fs log` shows the last of them in any case
    #[arg(long, value_name = "FILE", help_heading = "Mount")]
    pub(crate) log_file: Option<PathBuf>,

    /// Which messages: off, error, warn (what a reader got an error for), info (also mounts and unmounts), debug, trace, or a filter as in
    /// RUST_LOG, which counts where this is not given: 'warn,ckpt_fs::fuse=trace'. By default ckpt_fs=warn
    #[arg(long, value_name = "LEVEL", value_parser = log_filter::checked, help_heading = "Mount")]
    pub(crate) log_level: Option<String>,

    /// How messages are written
    #[arg(long, value_enum, default_value_t = Form::Text, help_heading = "Mount")]
    pub(crate) log_format: Form,

    /// Answer GET /metrics there, for Prometheus: no encryption, no password, so better on an address of this machine alone. Port 0 takes one
    /// that is free and says which
    #[arg(long, value_name = "HOST:PORT", value_parser = format::address, help_heading = "Mount")]
    pub(crate) metrics_addr: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UnmountArgs {
    /// Mount points
    #[arg(required = true)]
    pub(crate) mountpoints: Vec<PathBuf>,

    /// Detach now, also where files are open; the mount ends when they are closed
    #[arg(short = 'z', long)]
    pub(crate) lazy: bool,
}

/// How this program asks a mount that may not answer.
pub(crate) const UNGUARDED: &str = "--unguarded";

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// A mount point, or anything in a mount; all mounts where left out
    pub(crate) mountpoint: Option<PathBuf>,

    /// Print figures as Prometheus reads them, for a file of node_exporter's textfile collector
    #[arg(long, conflicts_with_all = ["json", "verbose"])]
    pub(crate) prometheus: bool,

    /// Ask at once, and wait for ever where there is no answer: what this program does for itself
    #[arg(long, hide = true, requires = "mountpoint")]
    pub(crate) unguarded: bool,

    /// Say more of each: what it shows, since when, its process, whether the source is as it was, and what it said last
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// A mount point, or anything in a mount
    pub(crate) mountpoint: PathBuf,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WarmupArgs {
    /// A mount point, or anything in a mount
    pub(crate) mountpoint: PathBuf,

    /// Files and directories, from the mount point; everything where left out
    pub(crate) files: Vec<PathBuf>,

    /// No progress bar
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
