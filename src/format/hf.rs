//! Names in a Hugging Face model directory, and the index of a model in several files.
//!
//! Source: transformers 5.23 and 4.57 (`modeling_utils.py`), and directories that they wrote.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

/// What the model is.
pub const CONFIG: &str = "config.json";

/// The model in one file.
pub const SINGLE: &str = "model.safetensors";

/// Which file of several has which tensor.
pub const INDEX: &str = "model.safetensors.index.json";

/// How weights were saved before safetensors: one file, or the index of several.
pub const PICKLED: &[&str] = &["pytorch_model.bin", "pytorch_model.bin.index.json"];

/// Endings of files that hold weights, or say where they are: what a view of the model replaces.
const WEIGHTS: &[&str] =
    &[".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx"];

/// Whether a file of this name holds weights or says where they are, in whatever format.
#[must_use]
pub fn is_weights(name: &str) -> bool {
    let stem = name.strip_suffix(".index.json").unwrap_or(name);
    WEIGHTS.iter().any(|ending| stem.ends_with(ending))
}

/// File `number` (from 0) of `count`: `model-00001-of-00006.safetensors`.
#[must_use]
pub fn shard(number: usize, count: usize) -> String {
    if count == 1 { SINGLE.to_owned() } else { format!("model-{:05}-of-{count:05}.safetensors", number + 1) }
}

/// The file that has each tensor.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Index {
    /// By the name of the tensor, the name of the file.
    pub weight_map: BTreeMap<String, String>,
}

/// Reads an index.
///
/// # Errors
/// What is wrong with it, in words.
pub fn decode_index(text: &[u8]) -> Result<Index, String> {
    serde_json::from_slice(text).map_err(|error| error.to_string())
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
