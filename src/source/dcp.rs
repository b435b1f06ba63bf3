//! Files of a distributed checkpoint: the pieces in them, each an archive of its own.
//!
//! Not here: what a `.metadata` says (`format`), which files there are.

mod pieces;
#[cfg(test)]
mod tests;

#[cfg_attr(not(test), allow(unused_imports, reason = "sources of this kind are being made"))]
pub(super) use pieces::{Elements, PieceOf, read_object};
