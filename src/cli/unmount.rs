//! `ckpt-fs unmount`

use super::args::UnmountArgs;
use super::error::{CliError, Exit};
use crate::fuse::mounts::{Detach, unmount};

pub(super) fn run(args: &UnmountArgs) -> Result<Exit, CliError> {
    let detach = if args.lazy { Detach::Lazily } else { Detach::WhenIdle };
    // One that cannot be taken away does not keep the others.
    let mut exit = Exit::Success;
    for point in &args.mountpoints {
        if let Err(error) = unmount(point, detach) {
            let error = CliError::from(error);
            eprintln!("ckpt-fs: {error}");
            exit = error.exit();
        }
    }
    Ok(exit)
}
