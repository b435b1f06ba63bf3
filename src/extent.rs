//! Byte ranges of stored objects, named without a path: the core cannot reach the file system because it has no name for it.
//!
//! Not here: paths, file handles, lengths of files (`store`).

#![deny(clippy::disallowed_methods)]

use std::fmt;

/// One stored object (a source file), as numbered by the store that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub u32);

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object {}", self.0)
    }
}

/// `len` bytes of `object` from byte `offset` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extent {
    /// The object the bytes belong to.
    pub object: ObjectId,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl Extent {
}
