//! `ckpt-fs unmount`

use super::args::UnmountArgs;
use super::error::{CliError, Exit};
use crate::fuse::mounts::{Detach, unmount};

pub(super) fn run(args: &UnmountArgs) -> Result<Exit, CliError> {
    let detach = if args.lazy { Detach::Lazily } else { Detach::WhenIdle };
    for point in &args.mountpoints {
        unmount(point, detach)?;
    }
    Ok(Exit::Success)
}
