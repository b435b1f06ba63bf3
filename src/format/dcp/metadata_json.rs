//! `metadata.json`: what Megatron says of the formats in a directory (`dist_checkpointing/core.py`, `CheckpointingConfig`).
//!
//! It is what tells a directory of Megatron's from any other of DCP. Not here: what is in the formats.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use serde::Deserialize;

use super::error::{DcpError, Name};
use crate::format::instead::Instead;

/// Longest file that is read: it holds a few names and numbers.
pub const MAX_LEN: u64 = 1 << 20;

/// Which formats a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formats {
    /// That of tensors and objects that belong to one rank.
    pub sharded: Backend,
    /// Its version.
    pub version: u64,
    /// The name of that of everything else (`common.pt`); Megatron-LM has none since it stores that with the rest.
    pub common: Option<String>,
}

/// A format of tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// torch DCP.
    TorchDist,
    /// A zarr array for each tensor, which Megatron-core wrote before.
    Zarr,
    /// Any other.
    Other(String),
}

/// The file as it is written. Other fields mean nothing to Megatron either.
#[derive(Deserialize)]
struct Said {
    sharded_backend: String,
    #[serde(default = "first")]
    sharded_backend_version: u64,
    common_backend: Option<String>,
}

/// What a file without a version is of.
fn first() -> u64 {
    1
}

/// Reads the file.
///
/// # Errors
/// [`DcpError::Json`]
pub fn decode(bytes: &[u8]) -> Result<Formats, DcpError> {
    let said: Said = serde_json::from_slice(bytes).map_err(|error| {
        let what = Instead::of_json(bytes).map_or_else(|| error.to_string(), |instead| instead.to_string());
        DcpError::Json { what }
    })?;
    let sharded = match said.sharded_backend.as_str() {
        "torch_dist" => Backend::TorchDist,
        "zarr" => Backend::Zarr,
        _ => Backend::Other(said.sharded_backend),
    };
    Ok(Formats { sharded, version: said.sharded_backend_version, common: said.common_backend })
}

impl Formats {
    /// Nothing, where this version reads the tensors.
    ///
    /// # Errors
    /// [`DcpError::Backend`]
    pub fn check(&self) -> Result<(), DcpError> {
        let advice = match &self.sharded {
            Backend::TorchDist if self.version == 1 => return Ok(()),
            Backend::TorchDist => "only version 1 of it is known",
            Backend::Zarr => "load and save it with a Megatron that reads it, as torch_dist",
            Backend::Other(_) => "only torch_dist is read",
        };
        let name = match &self.sharded {
            Backend::TorchDist => "torch_dist",
            Backend::Zarr => "zarr",
            Backend::Other(name) => name,
        };
        Err(DcpError::Backend { name: Name::new(name), version: self.version, advice })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_megatron_writes() {
        let core = br#"{"sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch", "common_backend_version": 1}"#;
        let formats = decode(core).unwrap();
        let common = Some("torch".to_owned());
        assert_eq!(formats, Formats { sharded: Backend::TorchDist, version: 1, common });
        assert_eq!(formats.check(), Ok(()));
        let head = decode(br#"{"sharded_backend": "torch_dist", "sharded_backend_version": 1, "more": []}"#).unwrap();
        assert_eq!((head.common.as_ref(), head.check()), (None, Ok(())));
    }

    #[test]
    fn other_formats_are_refused_by_name() {
        for (name, version) in [("zarr", 1), ("fsdp_dtensor", 1), ("torch_dist", 2)] {
            let text = format!(r#"{{"sharded_backend": "{name}", "sharded_backend_version": {version}}}"#);
            let error = decode(text.as_bytes()).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert_eq!(decode(br#"{"sharded_backend": "zarr"}"#).unwrap().sharded, Backend::Zarr);
    }

    #[test]
    fn what_is_no_such_file() {
        for text in ["", "{}", "[1]", r#"{"sharded_backend": 1}"#, "<html>", r#"{"sharded_backend": "a", "sharded_backend_version": -1}"#] {
            assert!(matches!(decode(text.as_bytes()), Err(DcpError::Json { .. })), "{text}");
        }
    }
}
