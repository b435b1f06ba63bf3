//! Safetensors files that each hold what one rank had of every tensor: what `HuggingFaceStorageWriter` of torch writes.
//!
//! Where in its tensor a rank's part begins stands in the header of its file; how large the tensor is, nowhere: it ends where the last part
//! does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::catalog::Chunk;
use crate::extent::ObjectId;
use crate::format::safetensors::Header;
use crate::layout::Rank;
use crate::source::SourceError;
use crate::source::hf::header;
use crate::source::workers::{in_parallel, open_all};
use crate::store::{FileStore, Store};
use crate::tensor::{Dtype, Region, Shape};

/// The entry of a header that says where parts begin.
const SHARDING: &str = "DCP_SHARDING_INFO";

/// The files of a model.
#[derive(Debug)]
pub(super) struct Shards {
    pub(super) files: Vec<(ObjectId, PathBuf)>,
    /// Sorted by key.
    pub(super) tensors: Vec<Sharded>,
}

/// A tensor in parts.
#[derive(Debug)]
pub(super) struct Sharded {
    pub(super) key: Arc<str>,
    pub(super) dtype: Dtype,
    pub(super) shape: Shape,
    pub(super) pieces: Vec<Chunk>,
}

/// Where a part begins in its tensor.
#[derive(Debug, Deserialize)]
struct Offsets {
    saved_offsets: Vec<u64>,
}

/// Which rank's a file is, by its name: `shard-00002-model-00001-of-00001.safetensors` is that of the second.
fn rank_of(name: &str) -> Option<u32> {
    let (rank, rest) = name.strip_prefix("shard-")?.split_once("-model-")?;
    let (number, of) = rest.strip_suffix(".safetensors")?.split_once("-of-")?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number(number) && is_number(of) && is_number(rank) { rank.parse().ok() } else { None }
}

/// A file that another one of its rank says there is: `model-00001-of-00002` has a second part.
fn missing_part(names: &[String]) -> Option<String> {
    names.iter().filter(|name| rank_of(name).is_some()).find_map(|name| {
        let (start, rest) = name.split_once("-model-")?;
        let (number, of) = rest.strip_suffix(".safetensors")?.split_once("-of-")?;
        let (number, count): (u32, u32) = (number.parse().ok()?, of.parse().ok()?);
        let before = number.checked_sub(1).filter(|before| *before > 0);
        let after = Some(number.saturating_add(1)).filter(|after| *after <= count);
        let other = |number: u32| format!("{start}-model-{number:05}-of-{of}.safetensors");
        before.into_iter().chain(after).map(other).find(|other| !names.contains(other))
    })
}

impl Shards {
    /// Whether these names are those of such files.
    pub(super) fn are_in(names: &[String]) -> bool {
        names.iter().any(|name| rank_of(name).is_some())
    }

    /// Reads the headers of those in `path`.
    pub(super) fn open(path: &Path, names: &[String], store: &FileStore) -> Result<Self, SourceError> {
        let of_ranks: Vec<(u32, PathBuf)> =
            names.iter().filter_map(|name| Some((rank_of(name)?, path.join(name)))).collect();
        if let Some(missing) = missing_part(names) {
            let what = format!("there is no {missing}, one of the files of that rank");
            return Err(SourceError::NotACheckpoint { path: path.to_owned(), what });
        }
        let mut ranks: Vec<u32> = of_ranks.iter().map(|(rank, _)| *rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        if let Some((missing, _)) = (1..).zip(&ranks).find(|(number, rank)| number != *rank) {
            let what = format!("there is no shard-{missing:05}-model-..., the file of one of its ranks");
            return Err(SourceError::NotACheckpoint { path: path.to_owned(), what });
        }
        let paths: Vec<PathBuf> = of_ranks.into_iter().map(|(_, path)| path).collect();
        let objects = open_all(&paths, store)?;
        let headers = in_parallel(&objects, |object| header(*object, store))?;
        let mut parts: BTreeMap<Arc<str>, Vec<Part>> = BTreeMap::new();
        for (object, header) in objects.iter().zip(headers) {
            for (key, part) in parts_of(*object, header, store)? {
                parts.entry(key).or_default().push(part);
            }
        }
        let tensors = parts.into_iter().map(|(key, parts)| whole(key, parts, store));
        let tensors = tensors.collect::<Result<_, _>>()?;
        Ok(Self { files: objects.into_iter().zip(paths).collect(), tensors })
    }
}

/// A part of a tensor.
struct Part {
    dtype: Dtype,
    piece: Chunk,
}

fn parts_of(object: ObjectId, header: Header, store: &dyn Store) -> Result<Vec<(Arc<str>, Part)>, SourceError> {
    let file = || store.name(object);
    let said = header.metadata.get(SHARDING).map(String::as_str);
    let Some(said) = said else {
        let what = format!("its header does not say where its parts begin ({SHARDING})");
        return Err(SourceError::Contents { file: file(), what });
    };
    let offsets: BTreeMap<String, Offsets> = serde_json::from_str(said)
        .map_err(|error| SourceError::Contents { file: file(), what: format!("its {SHARDING}: {error}") })?;
    let mut parts = Vec::with_capacity(header.tensors.len());
    for tensor in header.tensors {
        let wrong = |what: &str| {
            let (tensor, what) = (tensor.name.to_string(), what.to_owned());
            SourceError::Tensor { file: file(), tensor, what }
        };
        let begins = match offsets.get(&*tensor.name) {
            Some(offsets) => offsets.saved_offsets.clone(),
            None => return Err(wrong("its header does not say where it begins")),
        };
        let region = Region::at(&begins, &tensor.shape.0);
        let region = region.ok_or_else(|| wrong("where it begins has not as many axes as it has"))?;
        let strides = tensor.shape.contiguous_strides().and_then(|strides| {
            let size = tensor.dtype.size();
            strides.into_iter().map(|stride| stride.checked_mul(size)).collect::<Option<Vec<_>>>()
        });
        let strides = strides.ok_or_else(|| wrong("its size is beyond reason"))?;
        let rank = Rank { pp: 0, tp: 0, ep: 0 };
        let piece = Chunk { region, rank, object, start: tensor.bytes.start, strides, period: None };
        parts.push((tensor.name, Part { dtype: tensor.dtype, piece }));
    }
    Ok(parts)
}

/// The tensor of these parts.
fn whole(key: Arc<str>, parts: Vec<Part>, store: &dyn Store) -> Result<Sharded, SourceError> {
    let wrong = |object: ObjectId, what: String| {
        Err(SourceError::Tensor { file: store.name(object), tensor: key.to_string(), what })
    };
    let mut shape: Option<(Dtype, Vec<u64>)> = None;
    for Part { dtype, piece } in &parts {
        let ends = piece.region.ranges().iter().map(|range| range.end);
        let (known, sizes) = shape.get_or_insert_with(|| (*dtype, vec![0; ends.len()]));
        if (*known, sizes.len()) != (*dtype, ends.len()) {
            let what = format!("it is {dtype} of {} axes, in another file {known} of {}", ends.len(), sizes.len());
            return wrong(piece.object, what);
        }
        sizes.iter_mut().zip(ends).for_each(|(size, end)| *size = end.max(*size));
    }
    let (dtype, sizes) = shape.unwrap_or((Dtype::Float32, Vec::new()));
    let mut pieces: Vec<Chunk> = parts.into_iter().map(|part| part.piece).collect();
    pieces.retain(|piece| !piece.region.is_empty());
    pieces.sort_by(|one, other| one.region.cmp(&other.region));
    Ok(Sharded { key, dtype, shape: Shape(sizes), pieces })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_rank() {
        assert_eq!(rank_of("shard-00002-model-00001-of-00001.safetensors"), Some(2));
        for name in ["model-00001-of-00001.safetensors", "shard-a-model-00001-of-00001.safetensors", "shard-00001-model-1.safetensors"] {
            assert_eq!(rank_of(name), None, "{name}");
        }
    }
}
