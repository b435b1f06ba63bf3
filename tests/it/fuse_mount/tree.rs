//! A tree in memory with files of odd sizes, deterministic bytes, and some that fail in every way there is.

use std::ffi::OsStr;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use ckpt_fs::reader::ReadError;
use ckpt_fs::store::StoreError;
use ckpt_fs::vfs::{Attr, DirEntry, Ino, IoMode, Kind, Tree, TreeError};
use rustix::io::Errno;

/// Time of everything in the tree.
pub(crate) const MODIFIED: Duration = Duration::new(1_700_000_000, 123_456_789);
/// Entries of `/many`.
pub(crate) const MANY: u64 = 3000;
/// Size of `/big.bin`.
pub(crate) const BIG: u64 = 1 << 30;

/// Bytes of each tensor: no multiple of anything.
const TENSOR: u64 = 5 * (1 << 20) + 777;

/// What is read no longer is what it was.
fn changed() -> TreeError {
    TreeError::Read(ReadError::Store(StoreError::Changed {
        path: "source/mp_rank_00".into(),
        what: "it is another file".into(),
    }))
}

/// How a node behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Behaviour {
    Directory,
    Direct,
    Cached,
    Stale,
    Fails,
    Panics,
    /// The source's storage answers with this.
    System(Errno),
    /// Answers with fewer bytes than it has.
    Short,
    /// Reads well, and is never what it was before.
    Changes,
    /// Cannot be laid out: no attributes.
    Broken,
}

/// Number, parent, name, size, behaviour.
const NODES: [(u64, u64, &str, u64, Behaviour); 20] = [
    (1, 1, "", 0, Behaviour::Directory),
    (2, 1, "iter_0000100", 0, Behaviour::Directory),
    (3, 2, "mp_rank_00", 0, Behaviour::Directory),
    (4, 3, "model_optim_rng.pt", 1_234_567, Behaviour::Direct),
    (5, 3, "model.safetensors", 3_145_745, Behaviour::Cached),
    (6, 1, "empty", 0, Behaviour::Direct),
    (7, 1, "one", 1, Behaviour::Cached),
    (8, 1, "page", 4096, Behaviour::Cached),
    (9, 1, "big.bin", BIG, Behaviour::Direct),
    (10, 1, "big.cached", BIG, Behaviour::Cached),
    (11, 1, "many", 0, Behaviour::Directory),
    (20, 1, "bad", 0, Behaviour::Directory),
    (21, 20, "stale", 10_000, Behaviour::Stale),
    (22, 20, "fails", 10_000, Behaviour::Fails),
    (23, 20, "panics", 10_000, Behaviour::Panics),
    (24, 20, "short", 10_000, Behaviour::Short),
    (27, 20, "denied", 10_000, Behaviour::System(Errno::ACCESS)),
    (28, 20, "full", 10_000, Behaviour::System(Errno::NOSPC)),
    (29, 20, "crowded", 10_000, Behaviour::System(Errno::MFILE)),
    (26, 20, "changes", 64 << 20, Behaviour::Changes),
];
/// Listed in `/bad`, but without attributes.
const BROKEN: (u64, u64, &str, u64, Behaviour) = (25, 20, "broken", 0, Behaviour::Broken);
const MANY_FROM: u64 = 1000;

/// One period of the bytes of every file; prime, so that no offset looks like another one nearby.
const PERIOD: usize = 1_048_573;

pub(crate) struct FakeTree {
    pattern: Vec<u8>,
}

/// The bytes `from..from + len` of node `ino`, as the tree serves them.
pub(crate) fn bytes(ino: u64, from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(|at| byte((at + ino * 7919) % PERIOD as u64)).collect()
}

fn byte(at: u64) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13) as u8
}

struct Node {
    ino: u64,
    parent: u64,
    name: String,
    size: u64,
    behaviour: Behaviour,
}

fn nodes() -> impl Iterator<Item = Node> {
    let fixed = NODES.into_iter().chain([BROKEN]).map(|(ino, parent, name, size, behaviour)| Node {
        ino,
        parent,
        name: name.to_owned(),
        size,
        behaviour,
    });
    fixed.chain((0..MANY).map(many))
}

fn many(number: u64) -> Node {
    let name = format!("file-{number:04}");
    Node { ino: MANY_FROM + number, parent: 11, name, size: number, behaviour: Behaviour::Cached }
}

impl FakeTree {
    pub(crate) fn new() -> Self {
        // Two periods: any range of up to one period is contiguous.
        Self { pattern: (0..2 * PERIOD as u64).map(|at| byte(at % PERIOD as u64)).collect() }
    }

    fn node(ino: Ino) -> Result<Node, TreeError> {
        if (MANY_FROM..MANY_FROM + MANY).contains(&ino.0) {
            return Ok(many(ino.0 - MANY_FROM));
        }
        nodes().find(|node| node.ino == ino.0).ok_or(TreeError::NotFound)
    }
}

impl Tree for FakeTree {
    fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Attr, TreeError> {
        if Self::node(parent)?.behaviour != Behaviour::Directory {
            return Err(TreeError::NotDirectory);
        }
        let is_it = |node: &Node| node.ino != 1 && node.parent == parent.0 && *node.name == *name;
        self.attr(Ino(nodes().find(is_it).ok_or(TreeError::NotFound)?.ino))
    }

    fn attr(&self, ino: Ino) -> Result<Attr, TreeError> {
        let node = Self::node(ino)?;
        if node.behaviour == Behaviour::Broken {
            return Err(TreeError::Io("bad/broken: cannot be laid out".into()));
        }
        let directory = node.behaviour == Behaviour::Directory;
        let children = || nodes().filter(|other| other.parent == ino.0 && other.ino != 1);
        let directories =
            || children().filter(|child| child.behaviour == Behaviour::Directory).count() as u32;
        Ok(Attr {
            ino,
            kind: if directory { Kind::Directory } else { Kind::File },
            size: node.size,
            links: if directory { 2 + directories() } else { 1 },
            modified: SystemTime::UNIX_EPOCH + MODIFIED,
        })
    }

    fn parent(&self, ino: Ino) -> Result<Ino, TreeError> {
        Ok(Ino(Self::node(ino)?.parent))
    }

    fn list(&self, ino: Ino) -> Result<Vec<DirEntry>, TreeError> {
        if Self::node(ino)?.behaviour != Behaviour::Directory {
            return Err(TreeError::NotDirectory);
        }
        let children = nodes().filter(|node| node.parent == ino.0 && node.ino != 1);
        Ok(children
            .map(|node| DirEntry {
                ino: Ino(node.ino),
                kind: if node.behaviour == Behaviour::Directory { Kind::Directory } else { Kind::File },
                name: node.name,
            })
            .collect())
    }

    fn total_bytes(&self) -> u64 {
        nodes().map(|node| node.size).sum()
    }

    fn io_mode(&self, ino: Ino) -> Result<IoMode, TreeError> {
        match Self::node(ino)?.behaviour {
            Behaviour::Directory => Err(TreeError::IsDirectory),
            Behaviour::Cached => Ok(IoMode::Cached),
            _ => Ok(IoMode::Direct),
        }
    }

    fn tensor_end(&self, _: Ino, offset: u64) -> u64 {
        offset.next_multiple_of(TENSOR)
    }

    fn unchanged(&self, ino: Ino, _: Range<u64>) -> Result<(), TreeError> {
        match Self::node(ino)?.behaviour {
            Behaviour::Changes => Err(changed()),
            _ => Ok(()),
        }
    }

    fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize, TreeError> {
        let node = Self::node(ino)?;
        match node.behaviour {
            Behaviour::Directory => return Err(TreeError::IsDirectory),
            Behaviour::Stale => return Err(changed()),
            Behaviour::Fails => return Err(TreeError::Io("source/mp_rank_00: broken disk".into())),
            Behaviour::Panics => panic!("on purpose"),
            Behaviour::System(errno) => {
                let path = "source/mp_rank_00".into();
                let error = StoreError::Io { path, action: "read", why: errno.into() };
                return Err(ReadError::Store(error).into());
            }
            _ => {}
        }
        let left = node.size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let got = if node.behaviour == Behaviour::Short { left / 2 } else { left };
        for (chunk, at) in buffer[..got].chunks_mut(PERIOD).zip((offset..).step_by(PERIOD)) {
            let start = ((at + ino.0 * 7919) % PERIOD as u64) as usize;
            chunk.copy_from_slice(&self.pattern[start..start + chunk.len()]);
        }
        Ok(got)
    }
}
