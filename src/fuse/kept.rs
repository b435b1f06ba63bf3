//! How long the kernel may keep what it was told.
//!
//! Not here: what changes (`vfs`).

use std::time::Duration;

use super::dispatch::Dispatch;
use crate::vfs::{Attr, Ino};

/// Names and attributes never change while mounted, but for directories that grow.
pub(super) const KEEP: Duration = Duration::from_secs(24 * 60 * 60);
/// For what may be otherwise the next time, and for attributes that could not be had: ask again.
pub(super) const FORGET: Duration = Duration::ZERO;

/// Whether a directory may get entries; where that cannot be had, nothing of it is kept.
pub(super) fn grows(dispatch: &Dispatch, ino: Ino) -> bool {
    !matches!(dispatch.ask(|tree| Ok(tree.grows(ino))), Ok(false))
}

/// How long the kernel may keep the name and the attributes of a node.
pub(super) fn keep(dispatch: &Dispatch, attr: &Attr) -> Duration {
    match dispatch.ask(|tree| Ok(tree.holds_for(attr.ino))) {
        Ok(None) => KEEP,
        Ok(Some(time)) => time,
        Err(_) => FORGET,
    }
}
