//! Errors of the command line and the exit codes they end in.

use std::io;
use std::process::ExitCode;

use crate::family::FamilyError;
use crate::fuse::{ControlError, MountError, UnmountError};
use crate::materialize::MaterializeError;
use crate::plan::GatherError;
use crate::serve::ServeError;
use crate::source::SourceError;
use crate::verify::CopyError;
use crate::view::ViewError;
use crate::weights::WeightsError;

/// Exit codes. They are documented in docs/commands.md and do not change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Success = 0,
    /// `verify` found a difference.
    Difference = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The source cannot be read, is damaged or incomplete.
    Source = 3,
    /// The source is of a kind that this version does not reshard.
    Unsupported = 4,
    /// The model does not allow the layout.
    Layout = 5,
    /// The destination cannot be written.
    Destination = 6,
    /// The mount point cannot be used.
    MountPoint = 7,
    /// FUSE is not available.
    Fuse = 8,
    /// Anything else that went wrong while running.
    Runtime = 9,
    /// Stopped by a signal, as shells count an interrupt.
    Interrupted = 130,
}

impl Exit {
    /// A word for programs.
    fn kind(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Difference => "difference",
            Self::Usage => "usage",
            Self::Source => "source",
            Self::Unsupported => "unsupported",
            Self::Layout => "layout",
            Self::Destination => "destination",
            Self::MountPoint => "mount_point",
            Self::Fuse => "fuse",
            Self::Runtime => "runtime",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What went wrong, in a line for programs.
pub(crate) fn json(exit: Exit, message: &str) -> String {
    serde_json::json!({ "error": { "code": exit as u8, "kind": exit.kind(), "message": message } })
        .to_string()
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What a command can fail with. The message says what to do; the kind says the exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("{file}: {source}")]
    Family { file: String, source: FamilyError },
    #[error(transparent)]
    View(#[from] ViewError),
    #[error(transparent)]
    Materialize(#[from] MaterializeError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Copies(#[from] CopyError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Unmount(#[from] UnmountError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("{point}: the source lies in it and would be hidden by the mount; mount somewhere else")]
    HidesSource { point: String },
    #[error("{point}: a checkpoint lies in it and would be hidden by the mount; mount somewhere else")]
    HidesCheckpoint { point: String },
    #[error("{point}: it lies in an iteration of the run, which would show itself; mount somewhere else")]
    InsideSource { point: String },
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("{path}: it lies in what is read, which is never written; write it somewhere else")]
    OverSource { path: String },
    #[error("{path}: {what}; name a file, or - for standard output")]
    NoFile { path: String, what: &'static str },
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    #[error("cannot write {path}: {source}")]
    Destination { path: String, source: io::Error },
    #[error(
        "cannot answer at {address}: {source}; --metrics-addr takes an address of this machine and a port that is free, or 0"
    )]
    MetricsAddress { address: String, source: io::Error },
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: io::Error },
}

impl CliError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Family { .. } => Exit::Usage,
            Self::Source(error) => source_exit(error),
            Self::View(error) => view_exit(error),
            Self::Copies(error) => match error {
                CopyError::NoneOfView { .. } | CopyError::NoTensors(_) => Exit::Usage,
                CopyError::View(error) => view_exit(error),
                CopyError::Read(_) | CopyError::Io { .. } => Exit::Source,
                CopyError::Stopped => Exit::Interrupted,
                CopyError::Bug => Exit::Runtime,
            },
            Self::Materialize(error) => match error {
                MaterializeError::NoRank { .. } => Exit::Usage,
                MaterializeError::View(error) => view_exit(error),
                MaterializeError::Read(_) => Exit::Source,
                MaterializeError::Stopped => Exit::Interrupted,
                MaterializeError::NotEmpty(_)
                | MaterializeError::Foreign { .. }
                | MaterializeError::MountPoint(_)
                | MaterializeError::Disturbed(_)
                | MaterializeError::NotADirectory(_)
                | MaterializeError::IsSource(_)
                | MaterializeError::NoSpace { .. }
                | MaterializeError::Io { .. } => Exit::Destination,
                MaterializeError::Bug => Exit::Runtime,
            },
            Self::Serve(error) => serve_exit(error),
            Self::Weights(WeightsError::Stopped) => Exit::Interrupted,
            Self::Weights(WeightsError::Bug) => Exit::Runtime,
            Self::Weights(WeightsError::Gather { .. } | WeightsError::Read(_)) => Exit::Source,
            Self::Mount(error) => match error {
                MountError::NoDevice { .. }
                | MountError::NotPermitted
                | MountError::ForeignMounts
                | MountError::NoProc
                | MountError::HelperMissing { .. }
                | MountError::HelperSilent { .. }
                | MountError::AllowOther
                | MountError::Helper { .. } => Exit::Fuse,
                MountError::Option { .. } => Exit::Usage,
                MountError::NoMountPoint { .. }
                | MountError::NotADirectory { .. }
                | MountError::AlreadyMounted { .. }
                | MountError::Descriptor { .. }
                | MountError::NotYours { .. }
                | MountError::Io { .. } => Exit::MountPoint,
            },
            Self::Destination { .. } | Self::OverSource { .. } | Self::NoFile { .. } => Exit::Destination,
            // The mount point itself; else what is mounted there.
            Self::Control(ControlError::Io { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::NotConnected
                ) =>
            {
                Exit::MountPoint
            }
            Self::Control(ControlError::Io { .. }) | Self::File { .. } => Exit::Source,
            Self::Control(_) => Exit::MountPoint,
            Self::Unmount(_)
            | Self::HidesSource { .. }
            | Self::HidesCheckpoint { .. }
            | Self::InsideSource { .. } => Exit::MountPoint,
            Self::Output(_) | Self::System { .. } | Self::MetricsAddress { .. } => Exit::Runtime,
        }
    }
}

/// Also what `serve` says of a request that it cannot answer.
pub(super) fn serve_exit(error: &ServeError) -> Exit {
    match error {
        ServeError::NoFile(_) | ServeError::TooMuch(_) | ServeError::Request(_) => Exit::Usage,
        ServeError::View(error) => view_exit(error),
        ServeError::Read(_) => Exit::Source,
    }
}

fn source_exit(error: &SourceError) -> Exit {
    match error {
        SourceError::Unsupported { .. }
        | SourceError::UnknownFamily { .. }
        | SourceError::UnknownTensor { .. }
        | SourceError::Undescribed { .. }
        | SourceError::ModelType { .. }
        | SourceError::Override { .. }
        | SourceError::Config { .. }
        | SourceError::Model { .. } => Exit::Unsupported,
        SourceError::State(error) => source_exit(error),
        SourceError::Io { .. }
        | SourceError::Store(_)
        | SourceError::NotACheckpoint { .. }
        | SourceError::File { .. }
        | SourceError::Safetensors { .. }
        | SourceError::Dcp { .. }
        | SourceError::Contents { .. }
        | SourceError::Arrange { .. }
        | SourceError::Tensor { .. }
        | SourceError::Optimizer { .. }
        | SourceError::Uncovered { .. }
        | SourceError::MissingTensor { .. }
        | SourceError::MissingParameter { .. }
        | SourceError::LayerGap { .. }
        | SourceError::Layers { .. } => Exit::Source,
    }
}

fn view_exit(error: &ViewError) -> Exit {
    match error {
        ViewError::Layout(_)
        | ViewError::VirtualStages { .. }
        | ViewError::EmptyStage { .. }
        | ViewError::Predictions { .. }
        | ViewError::Limit(_)
        | ViewError::Arrange { .. } => Exit::Layout,
        // It is the layout that cannot be had without the number.
        ViewError::Vocabulary(_) => Exit::Layout,
        // What was asked for is not to be had of this source.
        ViewError::NoOptimizer => Exit::Usage,
        ViewError::NoModelType { .. } | ViewError::Dialect { .. } | ViewError::EngineVersion { .. } => {
            Exit::Usage
        }
        ViewError::Template { .. }
        | ViewError::TemplateModelType { .. }
        | ViewError::TemplateConfig { .. } => Exit::Usage,
        ViewError::NoSuchLayout { .. } => Exit::Layout,
        ViewError::NoFamily { .. }
        | ViewError::Undescribed { .. }
        | ViewError::NoTorchtitan { .. }
        | ViewError::Model { .. }
        | ViewError::NoPlace { .. }
        | ViewError::Lacks { .. }
        | ViewError::NotExpressible { .. }
        | ViewError::OtherArchitecture { .. }
        | ViewError::Inexpressible { .. }
        | ViewError::Spelling { .. }
        | ViewError::Safetensors(_)
        | ViewError::NoBuffers { .. }
        | ViewError::NotForBuffers { .. }
        | ViewError::UnknownBuffers { .. }
        | ViewError::NoKey { .. }
        | ViewError::Unlike { .. }
        | ViewError::NotStacked { .. }
        | ViewError::NotForTorchDist { .. }
        | ViewError::Copies { .. }
        | ViewError::Gather { source: GatherError::Dtype { .. }, .. } => Exit::Unsupported,
        ViewError::Gather { .. }
        | ViewError::Order { .. }
        | ViewError::NoGroup { .. }
        | ViewError::Pickle { .. }
        | ViewError::Storage { .. }
        | ViewError::RecordSize { .. }
        | ViewError::Zip(_)
        | ViewError::Dcp(_)
        | ViewError::NoRank => Exit::Source,
        ViewError::NoFile(_) | ViewError::Lost { .. } => Exit::Runtime,
    }
}

/// A message for people, and not a dump of what was read: a name in a damaged file may have a megabyte. What is wrong with it stands at the
/// end, so the middle is left out.
pub(super) fn message(error: &impl std::fmt::Display) -> String {
    const START: usize = 2000;
    const END: usize = 1000;
    let text = harmless(&error.to_string());
    let (Some((start, _)), Some((end, _))) =
        (text.char_indices().nth(START), text.char_indices().nth_back(END - 1))
    else {
        return text;
    };
    if start >= end {
        return text;
    }
    let (first, last) = (text.get(..start).unwrap_or_default(), text.get(end..).unwrap_or_default());
    format!("{first} [...] {last}")
}

/// Text for a terminal: names in files may hold anything, and a control character would do something there.
pub(super) fn harmless(text: &str) -> String {
    let is_plain = |c: char| !c.is_control() || c == '\n';
    text.chars().map(|c| if is_plain(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

/// The same in one line: what is one entry of a log or one cell of a table stays one.
pub(super) fn in_one_line(text: &str) -> String {
    harmless(text).replace('\n', "\\n")
}

/// What to do about errors of the system that say nothing of it. They are told by the words in which every one of them ends.
pub(super) fn way_out(message: &str) -> &'static str {
    let ends = |number: i32| message.contains(&format!("(os error {number})"));
    if ends(libc::ENOTCONN) {
        "; it is a mount whose process is gone: ckpt-fs unmount takes it away, and a new mount on it replaces it"
    } else if ends(libc::ESTALE) {
        "; where it is a ckpt-fs mount, its source changed, and ckpt-fs log says what"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_spelled_out() {
        assert_eq!(harmless("a\u{1b}[2J\nb\u{7}"), "a\\u{1b}[2J\nb\\u{7}");
    }

    #[test]
    fn an_entry_stays_one_line() {
        assert_eq!(in_one_line("a\nforged: b\u{1b}"), "a\\nforged: b\\u{1b}");
    }

    #[test]
    fn long_messages_lose_their_middle() {
        assert_eq!(message(&"short"), "short");
        let just = "\u{e4}".repeat(3000);
        assert_eq!(message(&just), just);
        let long = message(&format!("file: {}: is wrong", "\u{1F980}".repeat(10_000)));
        assert!(long.starts_with("file: ") && long.ends_with(": is wrong") && long.chars().count() == 3007);
    }
}
