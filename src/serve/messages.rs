//! What is asked and answered, as lines of JSON. The form is described in docs/python.md, and does not change within a number of `PROTOCOL`.

use serde::{Deserialize, Serialize};

use crate::view::{PlacedTensor, ViewFile};

/// Counts incompatible changes.
pub(super) const PROTOCOL: u32 = 1;

/// A line of a client.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Request {
    /// What a file is.
    File { path: String },
    /// Bytes of a file.
    Read { path: String, offset: u64, bytes: u64 },
}

/// The first line, before anything is asked.
#[derive(Debug, Serialize)]
pub(super) struct Greeting<'a> {
    pub(super) ckpt_fs: &'static str,
    pub(super) protocol: u32,
    pub(super) format: &'static str,
    pub(super) layout: String,
    /// The newest time of the source's files, in nanoseconds since 1970: a client that starts a second process sees whether it is the same.
    pub(super) modified: u64,
    /// Most bytes of one read.
    pub(super) block: u64,
    pub(super) files: Vec<FileLine<'a>>,
}

/// A file of the view; its size takes laying it out, so it is asked for.
#[derive(Debug, Serialize)]
pub(super) struct FileLine<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<RankLine>,
}

#[derive(Debug, Serialize)]
struct RankLine {
    tp: u32,
    pp: u32,
    ep: u32,
}

impl<'a> FileLine<'a> {
    pub(super) fn of(file: &'a ViewFile) -> Self {
        let rank = file.rank.map(|rank| RankLine { tp: rank.tp, pp: rank.pp, ep: rank.ep });
        Self { path: &file.path, rank }
    }
}

/// A line that is an answer; behind that of a read are its bytes.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Answer {
    File { size: u64, tensors: Vec<TensorLine> },
    Read { bytes: usize },
    Error { error: String, exit_code: u8 },
}

/// A tensor of a file.
#[derive(Debug, Serialize)]
pub(super) struct TensorLine {
    name: String,
    dtype: &'static str,
    shape: Vec<u64>,
    offset: u64,
    bytes: u64,
}

impl From<PlacedTensor> for TensorLine {
    fn from(tensor: PlacedTensor) -> Self {
        Self {
            name: tensor.name.to_string(),
            dtype: tensor.dtype.name(),
            offset: tensor.bytes.start,
            bytes: tensor.bytes.end - tensor.bytes.start,
            shape: tensor.shape.0,
        }
    }
}
