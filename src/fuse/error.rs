//! Why a mount or an unmount failed: one variant per way out.
//!
//! Not here: errors of files in a mount (`errno`).

use std::io;
use std::path::PathBuf;

/// Why a tree could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no `/dev/fuse`, or it may not be opened.
    #[error(
        "cannot open /dev/fuse: {source}; `ckpt-fs materialize` writes the same files without a mount \
         (for containers: --device /dev/fuse --cap-add SYS_ADMIN)"
    )]
    NoDevice {
        /// What the system answered.
        source: io::Error,
    },
    /// The system does not let this process mount.
    #[error(
        "not permitted to mount; `ckpt-fs materialize` writes the same files without a mount \
         (for containers: --device /dev/fuse --cap-add SYS_ADMIN)"
    )]
    NotPermitted,
    /// Root of a namespace of users sees mounts that are not that namespace's.
    #[error(
        "not permitted to mount: this is root of a namespace of users, and the mounts that it sees are of another one; \
         start it with mounts of its own (unshare -Urm instead of unshare -Ur), or use `ckpt-fs materialize`"
    )]
    ForeignMounts,
    /// What is mounted cannot be looked up.
    #[error("/proc is not there, which a mount needs; as root: mount -t proc proc /proc")]
    NoProc,
    /// Mounting as a user other than root needs a program that is not installed.
    #[error(
        "{program} not found, which mounts for users other than root; install it (package fuse3), mount as root, or \
         use `ckpt-fs materialize`"
    )]
    HelperMissing {
        /// The program.
        program: String,
    },
    /// The mount helper said nothing for too long.
    #[error("{program} did not answer within {seconds} seconds, which mounts for users other than root; mount as root, or use `ckpt-fs materialize`")]
    HelperSilent {
        /// The program.
        program: String,
        /// How long it was given.
        seconds: u64,
    },
    /// `allow_other` and `allow_root` must be permitted to users other than root.
    #[error(
        "allow_other and allow_root are for root, unless /etc/fuse.conf has a line `user_allow_other`; \
         add it as root, or mount without them"
    )]
    AllowOther,
    /// The mount point does not exist.
    #[error("{}: no such directory; create it first", path.display())]
    NoMountPoint {
        /// The mount point.
        path: PathBuf,
    },
    /// The mount point is not a directory.
    #[error("{}: not a directory; mount points are directories", path.display())]
    NotADirectory {
        /// The mount point.
        path: PathBuf,
    },
    /// The mount point already shows a checkpoint.
    #[error("{}: already a ckpt-fs mount (of {fsname}); `ckpt-fs umount` it first", path.display())]
    AlreadyMounted {
        /// The mount point.
        path: PathBuf,
        /// What is mounted there.
        fsname: String,
    },
    /// Users mount on directories that they may write to.
    #[error("{}: you may not mount there, because the directory is not yours to write to; take one that is", path.display())]
    NotYours {
        /// The mount point.
        path: PathBuf,
    },
    /// A descriptor that cannot be served.
    #[error("descriptor {number}: {why}; it must be an open /dev/fuse that is mounted, that nobody serves, and that this program inherits")]
    Descriptor {
        /// Its number.
        number: u32,
        /// What is wrong with it.
        why: String,
    },
    /// A `-o` option that means nothing here.
    #[error("unknown mount option {option:?}; {reason}")]
    Option {
        /// The option as given.
        option: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// The mount helper refused for a reason of its own.
    #[error("{}: {message}", path.display())]
    Helper {
        /// The mount point.
        path: PathBuf,
        /// What it said.
        message: String,
    },
    /// Anything else the system answered.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The mount point.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

/// Why a path could not be unmounted.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// Nothing of ours is mounted there.
    #[error("{}: not a ckpt-fs mount{}", path.display(), of_type(found))]
    NotOurs {
        /// The path.
        path: PathBuf,
        /// Type of what is mounted there instead.
        found: Option<String>,
    },
    /// Another program made the mount, and this one cannot take it away.
    #[error("{}: another program made this mount and has to take it away", path.display())]
    Handed {
        /// The mount point.
        path: PathBuf,
    },
    /// A process has files of the mount open, or its working directory there.
    #[error(
        "{}: in use; `fuser -vm` or `lsof` with this path show by whom, and --lazy detaches it at once and lets them finish",
        path.display()
    )]
    Busy {
        /// The mount point.
        path: PathBuf,
    },
    /// It is unmounted, and what it showed is not free yet.
    #[error("{}: unmounted, but {what}", path.display())]
    Held {
        /// The mount point.
        path: PathBuf,
        /// By whom, and what.
        what: String,
    },
    /// Unmounting as a user other than root needs a program that is not installed.
    #[error(
        "{program} not found, which unmounts for users other than root; install it (package fuse3), or unmount as root"
    )]
    HelperMissing {
        /// The program.
        program: String,
    },
    /// The unmount helper refused for a reason of its own.
    #[error("{}: {message}", path.display())]
    Helper {
        /// The mount point.
        path: PathBuf,
        /// What it said.
        message: String,
    },
    /// Anything else the system answered.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

fn of_type(found: &Option<String>) -> String {
    let Some(found) = found else { return String::new() };
    let is_fuse = found == "fuse" || found.starts_with("fuse.");
    let advice = "; if ckpt-fs serves it for another program (--fuse-fd), that one takes it away";
    format!(" (but one of type {found}{})", if is_fuse { advice } else { "" })
}
