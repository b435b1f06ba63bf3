//! What this tool writes into the metadata of a rank's safetensors file, so that it can be read as a checkpoint again.
//!
//! Not here: tensors (`safetensors`), names of files (`view`, `source`).

mod tree;

use std::collections::BTreeMap;

use crate::layout::Rank;
use crate::value::Value;

pub use tree::{decode as decode_value, encode as encode_value};

/// How the names of such files end, behind what Megatron calls the rank's directory.
pub const ENDING: &str = ".safetensors";

/// What stands in front of the keys.
const PREFIX: &str = "ckpt-fs.";

/// What a rank is a part of.
#[derive(Debug, Clone)]
pub struct RankHeader {
    /// Name of the family whose names the tensors have.
    pub family: String,
    /// Name of the layout.
    pub layout: String,
    /// The rank.
    pub rank: Rank,
    /// Number of the iteration, or `release`.
    pub iteration: String,
    /// Version of the order of rows.
    pub checkpoint_version: Option<f64>,
    /// Arguments of training, as this rank would have saved them.
    pub args: Value,
}

impl RankHeader {
    /// Whether a file with this metadata was written by this tool.
    #[must_use]
    pub fn is_in(metadata: &BTreeMap<String, String>) -> bool {
        metadata.contains_key(&format!("{PREFIX}family"))
    }

    /// As text by key. `format` is what loaders of torch look for.
    #[must_use]
    pub fn encode(&self) -> BTreeMap<String, String> {
        let Rank { pp, tp, ep } = self.rank;
        let version = self.checkpoint_version.map(|version| ("checkpoint_version", version.to_string()));
        let entries = [
            ("family", self.family.clone()),
            ("layout", self.layout.clone()),
            ("rank", format!("tp {tp} pp {pp} ep {ep}")),
            ("iteration", self.iteration.clone()),
            ("args", encode_value(&self.args).to_string()),
        ];
        let entries = entries.into_iter().chain(version).map(|(key, text)| (format!("{PREFIX}{key}"), text));
        entries.chain([("format".to_owned(), "pt".to_owned())]).collect()
    }

    /// Reads it.
    ///
    /// # Errors
    /// What is missing or wrong, in words.
    pub fn decode(metadata: &BTreeMap<String, String>) -> Result<Self, String> {
        let get = |key: &str| {
            let key = format!("{PREFIX}{key}");
            metadata.get(&key).cloned().ok_or_else(|| format!("its metadata has no {key}"))
        };
        let wrong = |key: &str, text: &str| format!("its metadata has {text:?} as {PREFIX}{key}");
        let rank = get("rank")?;
        let args = get("args")?;
        let json =
            serde_json::from_str(&args).map_err(|error| format!("{PREFIX}args in its metadata: {error}"))?;
        let version = get("checkpoint_version").ok();
        let number = |text: &String| {
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
            number.ok_or_else(|| wrong("checkpoint_version", text))
        };
        Ok(Self {
            family: get("family")?,
            layout: get("layout")?,
            rank: parse_rank(&rank).ok_or_else(|| wrong("rank", &rank))?,
            iteration: get("iteration")?,
            checkpoint_version: version.as_ref().map(number).transpose()?,
            args: decode_value(&json)
                .ok_or_else(|| format!("{PREFIX}args in its metadata holds more than plain values, torch dtypes and enumerations of Megatron"))?,
        })
    }
}

/// `tp 0 pp 1 ep 0`
fn parse_rank(text: &str) -> Option<Rank> {
    match text.split(' ').collect::<Vec<_>>()[..] {
        ["tp", tp, "pp", pp, "ep", ep] => {
            Some(Rank { pp: pp.parse().ok()?, tp: tp.parse().ok()?, ep: ep.parse().ok()? })
        }
        _ => None,
    }
}
