//! The header: eight bytes of length, then JSON, padded with spaces.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::{SafetensorsError, to_stored, to_torch};
use crate::tensor::{Dtype, Shape};

/// Bytes in front of the JSON: its length.
pub const PREFIX: u64 = 8;

/// What the library accepts at most.
const MOST: u64 = 100_000_000;

/// The entry of the header that is no tensor.
const METADATA: &str = "__metadata__";

/// A header as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Text that the writer added.
    pub metadata: BTreeMap<String, String>,
    /// The tensors, in the order of their bytes.
    pub tensors: Vec<Tensor>,
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: Arc<str>,
    /// Element type.
    pub dtype: Dtype,
    /// Shape; its bytes are row-major.
    pub shape: Shape,
    /// Its bytes in the file.
    pub bytes: Range<u64>,
}

/// Bytes of the JSON in a file of `file_len` bytes that begins with `prefix`.
///
/// # Errors
/// [`SafetensorsError::Short`], [`SafetensorsError::HeaderTooLarge`]
pub fn header_len(prefix: [u8; 8], file_len: u64) -> Result<u64, SafetensorsError> {
    let len = u64::from_le_bytes(prefix);
    if len > MOST {
        return Err(SafetensorsError::HeaderTooLarge { len, most: MOST });
    }
    let needed = PREFIX + len;
    if needed > file_len {
        return Err(SafetensorsError::Short { len: file_len, needed });
    }
    Ok(len)
}

/// Reads the JSON of a header in a file of `file_len` bytes.
///
/// # Errors
/// [`SafetensorsError`] naming the tensor that is wrong.
pub fn decode(json: &[u8], file_len: u64) -> Result<Header, SafetensorsError> {
    let text = std::str::from_utf8(json).map_err(|error| SafetensorsError::Json(error.to_string()))?;
    let raw: Raw = serde_json::from_str(text).map_err(|error| SafetensorsError::Json(error.to_string()))?;
    let mut infos = raw.tensors;
    infos.sort_by_key(|(_, info)| info.data_offsets);
    let data_start = PREFIX + json.len() as u64;
    let mut end = 0;
    let mut tensors = Vec::with_capacity(infos.len());
    for (name, info) in infos {
        let tensor = checked(name, &info, end)?;
        end = tensor.bytes.end;
        tensors.push(Tensor { bytes: data_start + tensor.bytes.start..data_start + end, ..tensor });
    }
    let found = file_len.saturating_sub(data_start);
    if found != end {
        return Err(SafetensorsError::Length { expected: end, found });
    }
    Ok(Header { metadata: raw.metadata, tensors })
}

/// The tensor, whose bytes must begin at `expected`.
fn checked(name: String, info: &TensorInfo, expected: u64) -> Result<Tensor, SafetensorsError> {
    let Some(dtype) = to_torch(info.dtype) else {
        return Err(SafetensorsError::Dtype { tensor: name, dtype: info.dtype.to_string() });
    };
    // On every machine that this runs on a `usize` has 64 bits.
    let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
    if start != expected {
        return Err(SafetensorsError::Offset { tensor: name, start, expected });
    }
    let shape = Shape(info.shape.iter().map(|size| *size as u64).collect());
    // The library refuses sizes whose product does not fit, also where one of them is zero.
    let elements = shape.0.iter().try_fold(1u64, |all, size| all.checked_mul(*size));
    let Some(takes) = elements.and_then(|elements| elements.checked_mul(dtype.size())) else {
        return Err(SafetensorsError::Overflow { tensor: name });
    };
    let found = end.saturating_sub(start);
    if found != takes || end < start {
        return Err(SafetensorsError::Size { tensor: name, dtype, shape, found, expected: takes });
    }
    Ok(Tensor { name: name.into(), dtype, shape, bytes: start..end })
}

/// Prefix and JSON for a file of these tensors, padded so that the data begins at a multiple of `align` (itself one of eight), and the
/// order of their bytes: indices into `tensors`. The library sorts by element type and then by name.
///
/// # Errors
/// [`SafetensorsError::NoDtype`], [`SafetensorsError::Overflow`], [`SafetensorsError::HeaderTooLarge`]
pub fn encode(
    metadata: &BTreeMap<String, String>,
    tensors: &[(Arc<str>, Dtype, Shape)],
    align: usize,
) -> Result<(Vec<u8>, Vec<usize>), SafetensorsError> {
    let mut sorted = Vec::with_capacity(tensors.len());
    for (index, (name, dtype, _)) in tensors.iter().enumerate() {
        let stored = to_stored(*dtype)
            .ok_or_else(|| SafetensorsError::NoDtype { tensor: name.to_string(), dtype: *dtype })?;
        sorted.push((std::cmp::Reverse(stored), name, index));
    }
    sorted.sort();
    let mut json = String::from("{");
    if !metadata.is_empty() {
        json.push_str(&format!("{}:{}", text(METADATA), serde_json::json!(metadata)));
    }
    let mut end = 0u64;
    for (dtype, name, index) in &sorted {
        let Some((_, torch, shape)) = tensors.get(*index) else { continue };
        let bytes = shape.bytes(*torch).and_then(|bytes| end.checked_add(bytes));
        let next = bytes.ok_or_else(|| SafetensorsError::Overflow { tensor: name.to_string() })?;
        let comma = if json.len() > 1 { "," } else { "" };
        let sizes = shape.0.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let (name, dtype) = (text(name), dtype.0);
        json.push_str(&format!(
            r#"{comma}{name}:{{"dtype":"{dtype}","shape":[{sizes}],"data_offsets":[{end},{next}]}}"#
        ));
        end = next;
    }
    json.push('}');
    let len = (json.len() + PREFIX as usize).next_multiple_of(align) - PREFIX as usize;
    if len as u64 > MOST {
        return Err(SafetensorsError::HeaderTooLarge { len: len as u64, most: MOST });
    }
    let mut header = (len as u64).to_le_bytes().to_vec();
    header.extend(json.bytes());
    header.resize(len + PREFIX as usize, b' ');
    Ok((header, sorted.into_iter().map(|(_, _, index)| index).collect()))
}

/// A JSON string.
fn text(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}

/// The JSON as it stands.
struct Raw {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, TensorInfo)>,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an entry for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut metadata: Option<Option<BTreeMap<String, String>>> = None;
        let mut tensors: Vec<(String, TensorInfo)> = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let entry = |error: A::Error| A::Error::custom(format!("{name}: {error}"));
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("{name} stands in it twice")));
            }
            if name == METADATA {
                metadata = Some(map.next_value().map_err(entry)?);
            } else {
                let info = map.next_value().map_err(entry)?;
                tensors.push((name, info));
            }
        }
        Ok(Raw { metadata: metadata.flatten().unwrap_or_default(), tensors })
    }
}

#[cfg(test)]
mod tests;
