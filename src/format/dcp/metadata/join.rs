//! Chunks and where they are stored, which stand apart in a `.metadata`: put together by key and offsets, every one exactly once.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::HashMap;
use std::sync::Arc;

use super::classes::is_metadata;
use super::parts::{Part, Parts, RawIndex, RawInfo, RawTensor, describe, unlike};
use super::{Chunks, DcpError, Metadata, Object, Place, Tensor};
use crate::format::dcp::error::Name;
use crate::format::pickle::Item;
use crate::tensor::{Shape, product};

/// No place yet.
const NOWHERE: u32 = u32::MAX;

/// The answer, of all parts and the root of the pickle.
pub(super) fn metadata(mut parts: Parts, root: Item<'_>) -> Result<Metadata, DcpError> {
    let fields = Fields::of(root)?;
    let mut unknown_fields = fields.unknown;
    let paths = match fields.planner_data {
        None => None,
        Some(item) => {
            let paths = parts.key_paths(item)?;
            if paths.is_none() {
                unknown_fields.push("planner_data".into());
            }
            paths
        }
    };
    let version = fields.version.map(|item| match item.text() {
        Some(text) => Ok(Arc::clone(text)),
        None => Err(DcpError::Expected { expected: "a text as version", found: describe(item) }),
    });
    let version = version.transpose()?;
    let mut originals = match fields.mcore_data {
        Some(item) => parts.original_shapes(item)?,
        None => HashMap::new(),
    };
    let entries = Entries::of(&mut parts, fields.state_dict_metadata)?;
    let places = entries.places(&parts, fields.storage_data)?;
    let files = Files::of(&parts, &places);
    let mut tensors = entries.tensors(&parts, &places, &files, &mut originals)?;
    if let Some(key) = originals.keys().filter_map(|key| parts.keys.get(*key)).min() {
        return Err(DcpError::NoEntry.of(key));
    }
    let mut objects = entries.objects(&parts, &places, &files)?;
    tensors.sort_by(|a, b| a.key.cmp(&b.key));
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(Metadata { version, files: files.paths, tensors, objects, paths, unknown_fields })
}

/// The fields of the root.
struct Fields<'a> {
    state_dict_metadata: Item<'a>,
    storage_data: Item<'a>,
    planner_data: Option<Item<'a>>,
    mcore_data: Option<Item<'a>>,
    version: Option<Item<'a>>,
    unknown: Vec<Arc<str>>,
}

impl<'a> Fields<'a> {
    fn of(root: Item<'a>) -> Result<Self, DcpError> {
        const CLASS: &str = "Metadata";
        let state = root.object().filter(is_metadata).and_then(|root| root.state?.dict());
        let Some(items) = state else { return Err(DcpError::NotMetadata { found: describe(root) }) };
        let mut unknown = Vec::new();
        let mut known: HashMap<&str, Item<'a>> = HashMap::new();
        for (key, value) in items {
            let Some(name) = key.text() else {
                return Err(DcpError::Expected { expected: "the name of a field", found: describe(key) });
            };
            if known.insert(name, value).is_some() {
                return Err(DcpError::Twice { what: "field", name: Name::new(name) });
            }
            match &**name {
                "state_dict_metadata" | "storage_data" | "planner_data" | "mcore_data" | "version" => {}
                // Plans of how it was saved, and names of the directory and of the save.
                "storage_meta" | "all_local_plans" => {}
                _ => unknown.push(Arc::clone(name)),
            }
        }
        let mut given = |field| known.remove(field).filter(|item: &Item<'_>| !item.is_none());
        let [planner_data, mcore_data, version] = ["planner_data", "mcore_data", "version"].map(&mut given);
        let needed = ["state_dict_metadata", "storage_data"].map(|field| match known.get(field) {
            Some(item) => Ok(*item),
            None => Err(DcpError::NoField { class: CLASS, field }),
        });
        let [state_dict_metadata, storage_data] = needed;
        let (state_dict_metadata, storage_data) = (state_dict_metadata?, storage_data?);
        Ok(Self { state_dict_metadata, storage_data, planner_data, mcore_data, version, unknown })
    }
}

/// A chunk that is somewhere.
struct Wanted {
    /// Number of the key.
    key: u32,
    /// Number of the offsets.
    offsets: u32,
    /// Number of the sizes.
    sizes: u32,
}

/// What is described: tensors with their chunks, and objects.
struct Entries {
    /// By number of the key, the position of a tensor.
    tensors: HashMap<u32, u32>,
    objects: Vec<u32>,
    /// By key and offsets, no two the same.
    wanted: Vec<Wanted>,
}

/// Positions of the places of chunks and of objects, in the order of [`Entries::wanted`] and [`Entries::objects`].
struct Places {
    chunks: Vec<u32>,
    objects: Vec<u32>,
}

impl Entries {
    fn of(parts: &mut Parts, described: Item<'_>) -> Result<Self, DcpError> {
        const EXPECTED: &str = "a TensorStorageMetadata or a BytesStorageMetadata";
        let Some(items) = described.dict() else {
            return Err(DcpError::Expected { expected: "a dict of tensors", found: describe(described) });
        };
        let mut entries = Self { tensors: HashMap::new(), objects: Vec::new(), wanted: Vec::new() };
        let mut seen: Vec<bool> = Vec::new();
        for (key, value) in items {
            let Some(text) = key.text() else {
                return Err(DcpError::Expected { expected: "a key", found: describe(key) });
            };
            let number = parts.key(text)?;
            seen.resize(parts.keys.len(), false);
            if seen.get_mut(number as usize).is_none_or(|seen| std::mem::replace(seen, true)) {
                return Err(DcpError::Twice { what: "key", name: Name::new(text) });
            }
            let at = |error: DcpError| error.of(text);
            match parts.part(value, EXPECTED).map_err(at)? {
                Part::Bytes => entries.objects.push(number),
                Part::Tensor(tensor) => {
                    entries.tensors.insert(number, tensor);
                    let raw = parts.tensors.get(tensor as usize);
                    let raw = raw.ok_or_else(|| unlike(EXPECTED, Part::Skipped).of(text))?;
                    entries.add_chunks(parts, number, raw).map_err(at)?;
                }
                other => return Err(unlike(EXPECTED, other).of(text)),
            }
        }
        entries.objects.sort_unstable();
        entries.wanted.sort_unstable_by_key(|chunk| (chunk.key, chunk.offsets));
        let pairs = entries.wanted.iter().zip(entries.wanted.iter().skip(1));
        for (first, second) in pairs {
            if (first.key, first.offsets) == (second.key, second.offsets) {
                let offsets = parts.lists.get(first.offsets).to_vec();
                return Err(named(parts, first.key, DcpError::SameOffsets { offsets }));
            }
        }
        Ok(entries)
    }

    fn add_chunks(&mut self, parts: &Parts, key: u32, tensor: &RawTensor) -> Result<(), DcpError> {
        let shape = parts.lists.get(tensor.size);
        if product(shape).and_then(|elements| elements.checked_mul(tensor.dtype.size())).is_none() {
            return Err(DcpError::Overflow { what: "the size", numbers: shape.to_vec() });
        }
        for chunk in tensor.chunks.iter().filter_map(|chunk| parts.chunks.get(*chunk as usize)) {
            let (offsets, sizes) = (parts.lists.get(chunk.offsets), parts.lists.get(chunk.sizes));
            if offsets.len() != shape.len() || sizes.len() != shape.len() {
                let axes = shape.len();
                return Err(DcpError::Rank { offsets: offsets.len(), sizes: sizes.len(), axes });
            }
            let mut ends = offsets.iter().zip(sizes).map(|(offset, size)| offset.checked_add(*size)).zip(shape);
            if !ends.all(|(end, size)| end.is_some_and(|end| end <= *size)) {
                let (offsets, sizes, shape) = (offsets.to_vec(), sizes.to_vec(), shape.to_vec());
                return Err(DcpError::Outside { offsets, sizes, shape });
            }
            self.wanted.push(Wanted { key, offsets: chunk.offsets, sizes: chunk.sizes });
        }
        Ok(())
    }

    /// Where each chunk and object is.
    fn places(&self, parts: &Parts, stored: Item<'_>) -> Result<Places, DcpError> {
        let Some(items) = stored.dict() else {
            return Err(DcpError::Expected { expected: "a dict of places", found: describe(stored) });
        };
        let mut places =
            Places { chunks: vec![NOWHERE; self.wanted.len()], objects: vec![NOWHERE; self.objects.len()] };
        for (key, value) in items {
            let index = match parts.part(key, "a MetadataIndex")? {
                Part::Index(number) => parts.indices.get(number as usize),
                other => return Err(unlike("a MetadataIndex", other)),
            };
            let Some(index) = index else { return Err(unlike("a MetadataIndex", Part::Skipped)) };
            let info = match parts.part(value, "a _StorageInfo") {
                Ok(Part::Info(number)) => number,
                Ok(other) => return Err(named(parts, index.key, unlike("a _StorageInfo", other))),
                Err(error) => return Err(named(parts, index.key, error)),
            };
            let slot = self.slot(parts, index, &mut places).map_err(|error| named(parts, index.key, error))?;
            if *slot != NOWHERE {
                let what = match index.offsets {
                    Some(offsets) => format!("the chunk at {:?}", parts.lists.get(offsets)),
                    None => "it".to_owned(),
                };
                return Err(named(parts, index.key, DcpError::TwoPlaces { what }));
            }
            *slot = info;
        }
        Ok(places)
    }

    /// Where the place of a piece is noted.
    fn slot<'a>(&self, parts: &Parts, index: &RawIndex, places: &'a mut Places) -> Result<&'a mut u32, DcpError> {
        let is_tensor = self.tensors.contains_key(&index.key);
        let object = self.objects.binary_search(&index.key);
        let slot = match (index.offsets, object) {
            (Some(offsets), _) if is_tensor => {
                let at = self.wanted.binary_search_by_key(&(index.key, offsets), |chunk| (chunk.key, chunk.offsets));
                let missing = |_| DcpError::NoChunk { offsets: parts.lists.get(offsets).to_vec() };
                places.chunks.get_mut(at.map_err(missing)?)
            }
            (None, _) if is_tensor => return Err(DcpError::NoOffsets),
            (None, Ok(at)) => places.objects.get_mut(at),
            (Some(_), Ok(_)) => return Err(DcpError::Offsets),
            (_, Err(_)) => None,
        };
        slot.ok_or(DcpError::NoEntry)
    }

    fn tensors(
        &self,
        parts: &Parts,
        places: &Places,
        files: &Files,
        originals: &mut HashMap<u32, Shape>,
    ) -> Result<Vec<Tensor>, DcpError> {
        let mut tensors = Vec::with_capacity(self.tensors.len());
        for (key, tensor) in &self.tensors {
            let (Some(text), Some(raw)) = (parts.keys.get(*key), parts.tensors.get(*tensor as usize)) else {
                return Err(DcpError::NoEntry);
            };
            let start = self.wanted.partition_point(|chunk| chunk.key < *key);
            let wanted = self.wanted.get(start..).unwrap_or_default().iter();
            let placed = wanted.zip(places.chunks.get(start..).unwrap_or_default());
            let mut chunks = Vec::with_capacity(raw.chunks.len());
            for (chunk, place) in placed.take_while(|(chunk, _)| chunk.key == *key) {
                let offsets = parts.lists.get(chunk.offsets);
                let place = files.place(parts, *place);
                let missing = || DcpError::NoStorage { offsets: offsets.to_vec() }.of(text);
                chunks.push((offsets, parts.lists.get(chunk.sizes), place.ok_or_else(missing)?));
            }
            chunks.sort_unstable_by_key(|(offsets, ..)| *offsets);
            let shape = parts.lists.get(raw.size);
            tensors.push(Tensor {
                key: Arc::clone(text),
                dtype: raw.dtype,
                shape: Shape(shape.to_vec()),
                original_shape: originals.remove(key),
                chunks: Chunks::new(shape.len(), chunks.into_iter()),
            });
        }
        Ok(tensors)
    }

    fn objects(&self, parts: &Parts, places: &Places, files: &Files) -> Result<Vec<Object>, DcpError> {
        let objects = self.objects.iter().zip(&places.objects).map(|(key, place)| {
            let text = parts.keys.get(*key).ok_or(DcpError::NoEntry)?;
            let place = files.place(parts, *place);
            let place = place.ok_or_else(|| DcpError::NoObjectStorage.of(text))?;
            Ok(Object { key: Arc::clone(text), place })
        });
        objects.collect()
    }
}

/// The files that pieces are in.
struct Files {
    paths: Vec<Arc<str>>,
    /// Number of each path that was met, where a piece is in it.
    numbers: HashMap<u32, u32>,
}

impl Files {
    fn of(parts: &Parts, places: &Places) -> Self {
        let mut met: Vec<bool> = vec![false; parts.paths.len()];
        for place in places.chunks.iter().chain(&places.objects) {
            let info = parts.infos.get(*place as usize);
            if let Some(met) = info.and_then(|info| met.get_mut(info.path as usize)) {
                *met = true;
            }
        }
        let met = met.iter().zip(0..).filter(|(met, _)| **met).map(|(_, path)| path);
        let mut paths: Vec<(&Arc<str>, u32)> = met.filter_map(|path| Some((parts.paths.get(path)?, path))).collect();
        paths.sort_unstable();
        let numbers = paths.iter().zip(0..).map(|((_, path), number)| (*path, number)).collect();
        Self { paths: paths.into_iter().map(|(path, _)| Arc::clone(path)).collect(), numbers }
    }

    fn place(&self, parts: &Parts, place: u32) -> Option<Place> {
        let RawInfo { path, encoding, offset, len } = *parts.infos.get(place as usize)?;
        Some(Place { file: *self.numbers.get(&path)?, encoding, offset, len })
    }
}

/// An error about the tensor or object of a key.
fn named(parts: &Parts, key: u32, error: DcpError) -> DcpError {
    match parts.keys.get(key) {
        Some(key) => error.of(key),
        None => error,
    }
}
