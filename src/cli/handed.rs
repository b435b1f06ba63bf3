//! `mount` where another program has mounted and hands over the connection: `/dev/fd/N` as the mount point, or `--fuse-fd N`.
//!
//! Not here: what makes a descriptor one that can be served (`fuse`).

use std::path::Path;

use super::args::MountArgs;
use super::error::{CliError, harmless};
use crate::fuse::{Connection, descriptor_number};

/// The connection that was handed over, if one was. To be taken before this program opens anything.
///
/// `is_watched` says that the mount is to be taken away when this program is killed.
pub(super) fn connection(args: &MountArgs, is_watched: bool) -> Result<Option<Connection>, CliError> {
    let named = descriptor_number(&args.mountpoint);
    let (number, point) = match (args.fuse_fd, named) {
        (None, None) => return Ok(None),
        (None, Some(number)) => (number, None),
        (Some(number), None) => (number, Some(&*args.mountpoint)),
        (Some(_), Some(_)) => {
            let point = args.mountpoint.display();
            return Err(CliError::Usage(format!("{point} and --fuse-fd say the same; give one of them")));
        }
    };
    if args.dry_run {
        return Ok(None);
    }
    let connection = Connection::take(number, point)?;
    refuse_source_within(&args.source, connection.point())?;
    say_what_is_not_ours(args, is_watched);
    Ok(Some(connection))
}

/// What lies in a mount that nobody serves yet cannot be opened: whoever tries waits for ever.
fn refuse_source_within(source: &Path, point: &Path) -> Result<(), CliError> {
    let failed = |source| CliError::System { what: "find the source", source };
    if std::path::absolute(source).map_err(failed)?.starts_with(point) {
        return Err(CliError::HidesSource { point: point.display().to_string() });
    }
    Ok(())
}

/// What mounts of this program are, whoever makes them, and what is said above in other words.
const OF_EVERY_MOUNT: [&str; 5] = ["ro", "nosuid", "nodev", "noatime", "auto_unmount"];

/// Options of a mount that was made without them.
fn say_what_is_not_ours(args: &MountArgs, is_watched: bool) {
    if args.quiet {
        return;
    }
    let flags = [(args.allow_other, "--allow-other"), (is_watched, "--auto-unmount")];
    let flags = flags.into_iter().filter(|(is_given, _)| *is_given).map(|(_, option)| option.to_owned());
    let words = args
        .options
        .iter()
        .flat_map(|list| &list.0)
        .filter(|option| !OF_EVERY_MOUNT.contains(&option.as_str()));
    for option in flags.chain(words.map(|option| format!("-o {option}"))) {
        eprintln!(
            "ckpt-fs: note: {} is the business of whoever made the mount; it is left out",
            harmless(&option)
        );
    }
}
