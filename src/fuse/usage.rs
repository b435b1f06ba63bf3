//! How much a tree holds, for `df`: counted when first asked, since nothing changes.
//!
//! Not here: free space (there is none).

use crate::vfs::{Ino, Kind, Tree};

/// Unit of [`Usage::blocks`].
pub(super) const BLOCK_SIZE: u32 = 4096;

/// What a tree adds up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) blocks: u64,
    pub(super) files: u64,
}

impl Usage {
    /// Walks the whole tree. What cannot be listed or laid out counts as nothing: `df` has no place for errors.
    pub(super) fn of(tree: &dyn Tree) -> Self {
        let mut usage = Self { blocks: 0, files: 1 };
        let mut directories = vec![Ino::ROOT];
        while let Some(directory) = directories.pop() {
            for entry in tree.list(directory).unwrap_or_default() {
                usage.files += 1;
                match entry.kind {
                    Kind::Directory => directories.push(entry.ino),
                    Kind::File => {
                        let size = tree.attr(entry.ino).map_or(0, |attr| attr.size);
                        usage.blocks = usage.blocks.saturating_add(size.div_ceil(u64::from(BLOCK_SIZE)));
                    }
                }
            }
        }
        usage
    }
}
