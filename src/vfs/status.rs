//! What a mount tells about itself.
//!
//! Not here: how that reaches anybody (`fuse`), how it is printed (`cli`).

use std::collections::BTreeMap;

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
    /// What the program that serves was built of and for.
    #[serde(default)]
    pub build: String,
    /// When the mount was made, in seconds since 1970.
    #[serde(default)]
    pub started: Option<u64>,
    /// Bytes of the source that were read to make answers.
    #[serde(default)]
    pub source_read_bytes: u64,
    /// What was said so far.
    #[serde(default)]
    pub messages: MessageCounts,
    /// The views that somebody opened, in that order, and how much each is used.
    #[serde(default)]
    pub views: Vec<ViewStatus>,
    /// Requests of the kernel so far, by operation; those that never came are left out.
    #[serde(default)]
    pub requests: BTreeMap<String, u64>,
    /// Errors that they were answered with.
    #[serde(default)]
    pub request_errors: Vec<RequestErrors>,
    /// Files that are open now, once for every time.
    #[serde(default)]
    pub open_files: u64,
    /// How long reads took.
    #[serde(default)]
    pub read_latency: Option<Latency>,
    /// The iterations, where it shows those of a run.
    #[serde(default)]
    pub run: Option<RunStatus>,
}

/// How often something was said, by how bad it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageCounts {
    /// What ends the mount.
    pub error: u64,
    /// What a reader got an error for.
    pub warning: u64,
    /// The rest.
    pub info: u64,
}

/// How much one view is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewStatus {
    /// Its format and layout in words, or `other` for all views together that were opened after a number of others.
    pub view: String,
    /// How often a file of it was opened.
    pub opens: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Bytes of these answers.
    pub read_bytes: u64,
}

/// Requests that were answered with an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestErrors {
    /// What was asked for.
    pub operation: String,
    /// Which error.
    pub errno: String,
    /// How often.
    pub count: u64,
}

/// How long reads took, from when the kernel asked to when the answer was ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Reads by time, each counted once, in the first bucket that it fits in. Longer ones are in none.
    pub buckets: Vec<LatencyBucket>,
    /// All reads.
    pub reads: u64,
    /// What they took together.
    pub nanoseconds: u64,
}

/// Reads that took about the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyBucket {
    /// Most that any of them took.
    pub microseconds: u64,
    /// How many.
    pub reads: u64,
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
