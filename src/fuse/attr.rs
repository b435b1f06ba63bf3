//! Attributes of a node in the kernel's terms.
//!
//! Not here: sizes and times (`vfs`).

use fuser::{FileAttr, FileType, INodeNo};

use crate::vfs::{Attr, Kind};

/// Preferred size of reads. Python opens files with a buffer of this size: torch looks at 4 KiB in front of every tensor, and a larger
/// buffer would make each of those looks a read of that size (torch.load was three times slower at 1 MiB).
const BLOCK_SIZE: u32 = 4096;

/// Who owns every node, and with which rights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modes: Modes,
}

/// Permissions of every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    /// Of files: the nine bits.
    pub file: u16,
    /// Of directories.
    pub directory: u16,
}

impl Default for Modes {
    /// As training writes them. Nobody may write whatever they say (the mount is read-only), but what is copied with its modes belongs to its
    /// owner, who may delete it.
    fn default() -> Self {
        Self { file: 0o644, directory: 0o755 }
    }
}

/// What the system says of links, whose rights nobody looks at.
const LINK_MODE: u16 = 0o777;

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
                Kind::Directory => self.modes.directory,
                Kind::File => self.modes.file,
                Kind::Link => LINK_MODE,
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
        Kind::Link => FileType::Symlink,
    }
}
