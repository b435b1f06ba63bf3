//! Figures of a mount for this process itself, without a way through the kernel: who asks so neither waits for a reader nor has a file open.
//!
//! Not here: what the figures are (`vfs`, `requests`), who else may ask (`control`).

use std::path::{Path, PathBuf};
use std::sync::Weak;

use super::dispatch::Dispatch;
use crate::vfs::Status;

/// Where figures of a mount are had. It does not keep the mount alive.
#[derive(Clone)]
pub struct Figures {
    pub(super) point: PathBuf,
    pub(super) source: String,
    pub(super) dispatch: Weak<Dispatch>,
}

impl Figures {
    /// Where the mount is.
    #[must_use]
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// What tables of mounts show as its source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The figures of this moment; `None` where the mount is gone.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.dispatch.upgrade()?.status().ok()
    }
}

impl std::fmt::Debug for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Figures").field("point", &self.point).finish_non_exhaustive()
    }
}
