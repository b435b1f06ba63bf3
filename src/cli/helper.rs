//! `mount.ckpt-fs`: what mount(8) asks of the helper of a file system, said as `ckpt-fs mount` takes it.
//!
//! One command line becomes another (`translate`, which looks at nothing else), and that is read like one that was typed. Not here: how the text of
//! `-o` is split (`options`), what the options of FUSE do (`fuse`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Command, CommandFactory, Parser};

use super::args::{Arguments, MOUNT};
use super::error::{CliError, harmless};
use super::options;
use crate::fuse::MountOptions;

/// Names by which mount(8) calls this program, for `-t ckpt-fs` and `-t fuse.ckpt-fs`.
const NAMES: [&str; 2] = ["mount.ckpt-fs", "mount.fuse.ckpt-fs"];

/// Said by mount(8) or for it, and without effect on what is mounted; FUSE knows some more.
const FOR_MOUNT: [&str; 18] = [
    "dev",
    "suid",
    "user",
    "helper",
    "uhelper",
    "sync",
    "dirsync",
    "atime",
    "diratime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "iversion",
    "noiversion",
    "mand",
    "_rnetdev",
];

/// Options of FUSE that are worth naming where one is not understood.
const FOR_FUSE: &str = "noexec, fsname, max_read, context, fscontext, defcontext, rootcontext";

/// Mount a checkpoint for mount(8), fstab, systemd and autofs
///
/// Every long option of `ckpt-fs mount` is an option of -o, with its value after '=': -o tp=8,pp=4,as=hf,allow_other. Dashes may be
/// written as underscores. A comma in a value is written '\,' or between double quotes: -o pp-layers=10\,32. A space is '\040', as in fstab.
/// What fstab has for mount(8) itself (nofail, _netdev, user, x-*, ...) has no effect here.
#[derive(Debug, Parser)]
#[command(name = "mount.ckpt-fs", version, long_version = super::version::LONG)]
pub(super) struct HelperArgs {
    /// The checkpoint
    source: PathBuf,

    /// Where to mount
    mountpoint: PathBuf,

    /// Leave out options that are not understood, where they would be refused
    #[arg(short, action = ArgAction::Count)]
    sloppy: u8,

    /// Do everything but mount: the checkpoint is opened and the layout worked out
    #[arg(short, action = ArgAction::Count)]
    fake: u8,

    /// Write no mtab: there is none
    #[arg(short, action = ArgAction::Count)]
    no_mtab: u8,

    /// Say as which command this is understood
    #[arg(short, action = ArgAction::Count)]
    verbose: u8,

    /// Mount in another namespace: not possible, and refused
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<OsString>,

    /// Options
    #[arg(short, value_name = "OPT,OPT=VALUE")]
    options: Vec<OsString>,

    /// Type of the file system: there is but one
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<OsString>,
}

/// Whether this process is called as a helper.
pub(super) fn is_called(program: &OsStr) -> bool {
    Path::new(program).file_name().is_some_and(|name| NAMES.iter().any(|helper| *helper == name))
}

/// What this process is asked for. What is wrong with the form of it ends the process here.
pub(super) fn arguments() -> Result<Arguments, CliError> {
    let args = HelperArgs::parse();
    let words = translate(&args)?;
    if args.verbose > 0 {
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        eprintln!("ckpt-fs: {}", harmless(&words.join(" ")));
    }
    Ok(Arguments::parse_from(words))
}

/// The command line of `ckpt-fs` that does what the helper is asked for.
fn translate(args: &HelperArgs) -> Result<Vec<OsString>, CliError> {
    if let Some(namespace) = &args.namespace {
        let namespace = namespace.display();
        return Err(CliError::Usage(format!(
            "cannot mount in another namespace; 'nsenter --mount={namespace} ckpt-fs mount ..' does, and reads the checkpoint there too"
        )));
    }
    let root = Arguments::command();
    let Some(mount) = root.find_subcommand(MOUNT) else { return Err(CliError::Usage("no mount".into())) };
    let mut words: Vec<OsString> = vec![root.get_name().into(), MOUNT.into()];
    for option in args.options.iter().flat_map(|text| options::split(text)) {
        match meaning(&option, mount) {
            Meaning::Argument(word) => words.push(word),
            Meaning::Fuse => words.extend(["-o".into(), options::escape(&option)]),
            Meaning::Nothing => {}
            Meaning::Unknown if args.sloppy > 0 => {}
            Meaning::Unknown => return Err(unknown(&option, mount)),
            Meaning::Incomplete => {
                let option = option.display();
                return Err(CliError::Usage(format!("the mount option {option} needs a value: {option}=..")));
            }
            Meaning::Remount => {
                let advice = "a mount cannot be changed: unmount it and mount it again";
                return Err(CliError::Usage(advice.into()));
            }
        }
    }
    if args.fake > 0 {
        words.push("--dry-run".into());
    }
    words.push("--".into());
    words.extend([args.source.clone().into(), args.mountpoint.clone().into()]);
    Ok(words)
}

/// What an option of `-o` is.
enum Meaning {
    /// A long option of `ckpt-fs mount`, as it is written there.
    Argument(OsString),
    Fuse,
    Nothing,
    Remount,
    /// It is nothing without a value.
    Incomplete,
    Unknown,
}

fn meaning(option: &OsStr, mount: &Command) -> Meaning {
    let bytes = option.as_bytes();
    let end = bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len());
    let (name, value) = bytes.split_at(end);
    // Names are ASCII; a value is whatever a path is.
    let name = String::from_utf8_lossy(name);
    let dashed = name.replace('_', "-");
    let named = |argument: &&clap::Arg| {
        let names = argument.get_long().into_iter().chain(argument.get_all_aliases().unwrap_or_default());
        names.into_iter().any(|other| other == dashed)
    };
    if let Some(argument) = mount.get_arguments().find(named) {
        if value.is_empty() && argument.get_action().takes_values() {
            return Meaning::Incomplete;
        }
        let mut word = OsString::from(format!("--{dashed}"));
        word.push(OsStr::from_bytes(value));
        return Meaning::Argument(word);
    }
    match &*name {
        "remount" => Meaning::Remount,
        name if FOR_MOUNT.contains(&name) || name.starts_with("x-") || name.starts_with("X-") => {
            Meaning::Nothing
        }
        _ if option.to_str().is_some_and(MountOptions::understands) => Meaning::Fuse,
        _ => Meaning::Unknown,
    }
}

fn unknown(option: &OsStr, mount: &Command) -> CliError {
    let names: Vec<&str> = mount.get_arguments().filter_map(clap::Arg::get_long).collect();
    let (option, names) = (option.display(), names.join(", "));
    CliError::Usage(format!(
        "unknown mount option {option}; there are {names} (see 'ckpt-fs mount --help'), {FOR_FUSE}, and what fstab has for mount(8)"
    ))
}

#[cfg(test)]
mod tests;
