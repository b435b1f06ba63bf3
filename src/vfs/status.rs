//! What a mount tells about itself.
//!
//! Not here: how that reaches anybody (`fuse`), how it is printed (`cli`).

use serde::{Deserialize, Serialize};

use crate::cache::Stats;

/// Figures of a mount. Its names are part of the interface: programs read them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program that serves.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// What numbers of processes count in where it is: elsewhere, in a container, that number may be another's. `None` where it is not known.
    #[serde(default)]
    pub pid_namespace: Option<u64>,
    /// What it shows, in words: `hf`, `megatron tp8pp4`, or that it has every layout.
    #[serde(default)]
    pub view: String,
    /// Seconds that it has been there.
    #[serde(default)]
    pub seconds: u64,
    /// Errors and warnings so far.
    #[serde(default)]
    pub errors: u64,
    /// What is wrong with a file of the source now; `None` where all are as they were.
    #[serde(default)]
    pub source_problem: Option<String>,
    /// Reads that were answered. Those that the kernel answers by itself are not among them.
    pub reads: u64,
    /// Bytes of these answers.
    pub read_bytes: u64,
    /// What is kept.
    pub cache: CacheStatus,
    /// Files that are being assembled.
    pub assembling: Vec<Assembling>,
    /// The iterations, where it shows those of a run.
    #[serde(default)]
    pub run: Option<RunStatus>,
}

/// The iterations of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatus {
    /// Those that are shown.
    pub shown: u64,
    /// What the link to the newest leads to.
    pub latest: Option<String>,
    /// Those whose metadata is in memory.
    pub open: u64,
    /// Those that are there and not shown: how many.
    pub hidden: u64,
    /// Why, of some of them.
    pub not_shown: Vec<NotShown>,
}

/// An iteration that is not shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotShown {
    /// Its name.
    pub name: String,
    /// Why not.
    pub why: String,
}

/// What is kept of assembled tensors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Most bytes that may be kept.
    pub budget: u64,
    /// Bytes that are kept.
    pub bytes: u64,
    /// Tiles of tensors.
    pub tiles: u64,
    /// Files that the kernel reads by itself.
    pub files: u64,
    /// Bytes of these files.
    pub file_bytes: u64,
    /// How often something was asked for and there.
    pub hits: u64,
    /// How often it was not.
    pub misses: u64,
    /// How often something gave way.
    pub evicted: u64,
}

impl From<Stats> for CacheStatus {
    fn from(stats: Stats) -> Self {
        let Stats { budget, tile_bytes, tiles, file_bytes, files, hits, misses, evicted } = stats;
        Self { budget, bytes: tile_bytes + file_bytes, tiles, files, file_bytes, hits, misses, evicted }
    }
}

/// A file that is being assembled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assembling {
    /// Its number.
    pub inode: u64,
    /// Bytes so far.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What came of warming a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Warmed {
    /// It is whole in memory: the kernel reads it by itself from the next open on.
    Whole,
    /// The source was read, and what is worth it is kept assembled.
    Source,
    /// Nothing: what reads it keeps it in the page cache.
    Nothing,
}
