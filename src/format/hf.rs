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

use crate::value::json::readable;

/// What the model is.
pub const CONFIG: &str = "config.json";

/// The model in one file.
pub const SINGLE: &str = "model.safetensors";

/// Which file of several has which tensor.
pub const INDEX: &str = "model.safetensors.index.json";

/// Endings of files that hold weights, or say where they are: what a view of the model replaces.
const WEIGHTS: &[&str] = &[
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".gguf",
    ".onnx",
    ".onnx_data",
    ".ot",
];

/// What names of files begin with that hold a model's weights, in whatever format.
const OF_MODEL: &[&str] =
    &["model.", "model-", "pytorch_model", "tf_model", "flax_model", "rust_model", "consolidated"];

/// Formats that hold a whole model in a file of any name.
const WHOLE_MODEL: &[&str] = &[".gguf", ".onnx", ".onnx_data"];

/// Where `save_pretrained` puts chat templates beyond the first.
pub const CHAT_TEMPLATES: &str = "additional_chat_templates";

/// Whether a file of this name holds the weights of the model, those of another save, or the same in another format.
#[must_use]
pub fn is_model_weights(name: &str) -> bool {
    let begins = OF_MODEL.iter().any(|start| name.starts_with(start));
    is_weights(name) && (begins || WHOLE_MODEL.iter().any(|ending| name.ends_with(ending)))
}

/// Whether a file of this name is part of an adapter: its config, its weights, rows that it adds to the vocabulary.
#[must_use]
pub fn is_adapter(name: &str) -> bool {
    name.starts_with("adapter_") || name.starts_with("new_embeddings.")
}

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

/// File `number` (from 0) of the `count` that an index names: `model-00001-of-00006.safetensors`.
#[must_use]
pub fn shard(number: usize, count: usize) -> String {
    format!("model-{:05}-of-{count:05}.safetensors", number + 1)
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
    let read: Read = from_python(text).map_err(|error| error.to_string())?;
    Ok(Index { weight_map: read.weight_map.0 })
}

/// Reads a JSON object, as Python's `json` reads it (`value::json`). A name that stands in it twice is an error: which of the two a reader
/// takes is its own affair.
///
/// # Errors
/// What is wrong with it.
pub fn decode_object(text: &[u8]) -> Result<Map<String, Json>, serde_json::Error> {
    from_python::<Unique<Json>>(text).map(|object| object.0.into_iter().collect())
}

/// Reads what Python's `json` may have written.
fn from_python<T: for<'de> Deserialize<'de>>(text: &[u8]) -> Result<T, serde_json::Error> {
    match std::str::from_utf8(text) {
        Ok(text) => serde_json::from_str(&readable(text)),
        // Its message says where the text ends to be one.
        Err(_) => serde_json::from_slice(text),
    }
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
    fn names_say_what_lies_beside_a_model() {
        for model in [
            SINGLE,
            INDEX,
            "model-00003-of-00004.safetensors",
            "model.fp16.safetensors",
            "pytorch_model.bin",
            "consolidated.00.pth",
            "llama-q4.gguf",
            "tf_model.h5",
        ] {
            assert!(is_model_weights(model) && !is_adapter(model), "{model}");
        }
        for other in ["mtp.safetensors", "adapter_model.bin", "training_args.bin", "model_card.md"] {
            assert!(!is_model_weights(other), "{other}");
        }
        assert!(is_adapter("adapter_config.json") && is_adapter("new_embeddings.safetensors"));
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
        let odd = br#"{"metadata":{"total_size":NaN,"x":[-Infinity,1e999,"\ud800"]},"weight_map":{"a":"x.safetensors"}}"#;
        assert_eq!(decode_index(odd).map(|index| index.weight_map.len()), Ok(1));
    }
}
