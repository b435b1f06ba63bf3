//! A leaf of a rank file's model, and what the family says it is.

use super::state_dict::Leaf;
use crate::family::{Entry, Numbers};

/// A leaf of a rank file's model, and what the family says it is.
pub(super) struct Known<'a> {
    /// Which of the rank files.
    pub(super) file: usize,
    /// Which of its parts of the model.
    pub(super) chunk: u32,
    pub(super) leaf: Leaf<'a>,
    pub(super) entry: &'a Entry,
    /// Numbers of its layer within that part, and of its expert on the rank.
    pub(super) numbers: Numbers,
}
