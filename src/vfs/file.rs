//! What the tree knows of one file of a view.

use std::sync::{Arc, OnceLock};

use super::usage::ViewUse;
use crate::reader::Checksums;
use crate::view::View;

/// A file of a view, until it is laid out and after.
#[derive(Debug)]
pub(super) struct ViewFile {
    pub(super) view: Arc<dyn View>,
    /// Which of the view's files.
    pub(super) number: usize,
    pub(super) size: OnceLock<u64>,
    pub(super) checksums: Checksums,
    /// Counters of the view.
    pub(super) used: Arc<ViewUse>,
}
