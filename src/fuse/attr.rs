//! Attributes of a node in the kernel's terms.
//!
//! Not here: sizes and times (`vfs`).

use fuser::{FileAttr, FileType, INodeNo};

use crate::vfs::{Attr, Kind};

/// Everybody may read and nobody may write; directories may be entered.
const FILE_MODE: u16 = 0o444;
const DIRECTORY_MODE: u16 = 0o555;

/// Preferred size of reads. Python opens files with a buffer of this size: torch looks at 4 KiB in front of every tensor, and a larger
/// buffer would make each of those looks a read of that size (torch.load was three times slower at 1 MiB).
const BLOCK_SIZE: u32 = 4096;

/// Who owns every node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Owner {
    /// `attr` as the kernel wants it.
    pub(super) fn attributes(self, attr: &Attr) -> FileAttr {
        FileAttr {
            ino: INodeNo(attr.ino.0),
            size: attr.size,
            blocks: attr.size.div_ceil(512),
            atime: attr.modified,
            mtime: attr.modified,
            ctime: attr.modified,
            crtime: attr.modified,
            kind: file_type(attr.kind),
            perm: match attr.kind {
                Kind::Directory => DIRECTORY_MODE,
                Kind::File => FILE_MODE,
            },
            nlink: attr.links,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: BLOCK_SIZE,
            flags: 0,
        }
    }
}

/// The kind of a node in the protocol's terms.
pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
    }
}
