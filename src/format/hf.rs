//! Names in a Hugging Face model directory, and the index of a model in several files.
//!
//! Source: transformers 5.23 and 4.57 (`modeling_utils.py`), and directories that they wrote.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value as Json, json};

/// What the model is.
pub const CONFIG: &str = "config.json";

/// The model in one file.
pub const SINGLE: &str = "model.safetensors";

/// Which file of several has which tensor.
pub const INDEX: &str = "model.safetensors.index.json";

/// Endings of files that hold weights, or say where they are: what a view of the model replaces.
const WEIGHTS: &[&str] =
    &[".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx"];

/// Whether a file of this name holds weights or says where they are, in whatever format.
#[must_use]
pub fn is_weights(name: &str) -> bool {
    let stem = name.strip_suffix(".index.json").unwrap_or(name);
    WEIGHTS.iter().any(|ending| stem.ends_with(ending))
}

/// Whether a path of these parts is that of a blob in a cache of the Hugging Face hub: `models--ORG--NAME/blobs/HASH`. Snapshots, and
/// directories that older versions downloaded to, hold links to them. Who names a blob knows what is in it.
#[must_use]
pub fn is_cached_blob(parts: &[&str]) -> bool {
    let [.., model, "blobs", hash] = parts else { return false };
    // Git's hash of small files, SHA-256 of large ones.
    let is_hash = matches!(hash.len(), 40 | 64) && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    model.starts_with("models--") && is_hash
}

/// File `number` (from 0) of `count`: `model-00001-of-00006.safetensors`.
#[must_use]
pub fn shard(number: usize, count: usize) -> String {
    if count == 1 { SINGLE.to_owned() } else { format!("model-{:05}-of-{count:05}.safetensors", number + 1) }
}

/// The file that has each tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// By the name of the tensor, the name of the file.
    pub weight_map: BTreeMap<String, String>,
}

/// Reads an index.
///
/// # Errors
/// What is wrong with it, in words.
pub fn decode_index(text: &[u8]) -> Result<Index, String> {
    #[derive(Deserialize)]
    struct Read {
        weight_map: Unique<String>,
    }
    let read: Read = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    Ok(Index { weight_map: read.weight_map.0 })
}

/// Reads a JSON object. A name that stands in it twice is an error: which of the two a reader takes is its own affair.
///
/// # Errors
/// What is wrong with it.
pub fn decode_object(text: &[u8]) -> Result<Map<String, Json>, serde_json::Error> {
    serde_json::from_slice::<Unique<Json>>(text).map(|object| object.0.into_iter().collect())
}

/// An object in which no name stands twice.
struct Unique<V>(BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor(PhantomData)).map(Self)
    }
}

struct UniqueVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueVisitor<V> {
    type Value = BTreeMap<String, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            match all.entry(name) {
                Entry::Vacant(free) => free.insert(map.next_value()?),
                Entry::Occupied(taken) => {
                    return Err(A::Error::custom(format!("{} stands in it twice", taken.key())));
                }
            };
        }
        Ok(all)
    }
}

/// The index of files with `bytes` bytes of data and `elements` numbers. Both versions of transformers fail without the sums.
#[must_use]
pub fn encode_index(index: &Index, bytes: u64, elements: u64) -> Vec<u8> {
    let value = json!({
        "metadata": { "total_parameters": elements, "total_size": bytes },
        "weight_map": index.weight_map,
    });
    format!("{value:#}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_transformers() {
        assert_eq!(shard(0, 1), "model.safetensors");
        assert_eq!(shard(11, 30), "model-00012-of-00030.safetensors");
        for weights in
            ["model.safetensors", INDEX, "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"]
        {
            assert!(is_weights(weights), "{weights}");
        }
        for other in ["config.json", "tokenizer.model", "chat_template.jinja", "tokenizer.json"] {
            assert!(!is_weights(other), "{other}");
        }
    }

    #[test]
    fn an_index_reads_back() {
        let map =
            [("a".to_owned(), "x.safetensors".to_owned()), ("b".to_owned(), "y.safetensors".to_owned())];
        let index = Index { weight_map: map.into() };
        let text = encode_index(&index, 12, 3);
        assert_eq!(decode_index(&text), Ok(index));
        assert!(String::from_utf8(text).unwrap().contains("\"total_size\": 12"));
        assert!(decode_index(b"{}").unwrap_err().contains("weight_map"));
    }
}
