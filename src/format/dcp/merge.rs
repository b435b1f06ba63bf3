//! One [`Metadata`] of those that each rank wrote for itself (`use_collectives=False`): every file lists the chunks of its rank, and the size of
//! the whole tensor.
//!
//! Not here: whether the chunks of all ranks are all that there are (`catalog`).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use super::error::DcpError;
use super::metadata::{Chunk, Chunks, KeyPath, Metadata, Object, Place, Tensor};

/// Puts the metadata of ranks together. What several ranks stored is taken from the lowest of them.
///
/// # Errors
/// [`DcpError::Nothing`], [`DcpError::SameRank`], and [`DcpError::Disagree`] where two files say different things of one tensor.
pub fn merge(mut ranks: Vec<(u32, Metadata)>) -> Result<Metadata, DcpError> {
    ranks.sort_by_key(|(rank, _)| *rank);
    if let Some(((rank, _), _)) = ranks.iter().zip(ranks.iter().skip(1)).find(|((a, _), (b, _))| a == b) {
        return Err(DcpError::SameRank { rank: *rank });
    }
    if ranks.is_empty() {
        return Err(DcpError::Nothing);
    }
    let files: Vec<Arc<str>> =
        ranks.iter().flat_map(|(_, one)| &one.files).collect::<BTreeSet<_>>().into_iter().cloned().collect();
    let mut merged = Merged::default();
    let mut unknown_fields = BTreeSet::new();
    let mut version = None;
    for (rank, one) in &ranks {
        let numbers: Vec<u32> =
            one.files.iter().map(|path| files.partition_point(|other| other < path) as u32).collect();
        merged.add(*rank, one, &numbers)?;
        version = version.or_else(|| one.version.clone());
        unknown_fields.extend(one.unknown_fields.iter().cloned());
    }
    let tensors = merged.tensors.into_values().map(|tensor| tensor.merged()).collect::<Result<_, _>>()?;
    let objects = merged.objects.into_iter().map(|(key, (_, place))| Object { key, place }).collect();
    let paths = merged.paths.map(|paths| paths.into_iter().map(|(key, (_, path))| (key, path)).collect());
    let unknown_fields = unknown_fields.into_iter().collect();
    Ok(Metadata { version, files, tensors, objects, paths, unknown_fields })
}

/// What was met so far, each with the rank that it is of.
#[derive(Default)]
struct Merged<'a> {
    tensors: BTreeMap<Arc<str>, Shards<'a>>,
    objects: BTreeMap<Arc<str>, (u32, Place)>,
    paths: Option<BTreeMap<Arc<str>, (u32, KeyPath)>>,
}

/// A tensor of several ranks.
struct Shards<'a> {
    /// As the first of them has it.
    tensor: &'a Tensor,
    rank: u32,
    /// Each with the rank that stored it, in a file of the answer.
    chunks: Vec<(Chunk<'a>, u32)>,
}

impl<'a> Merged<'a> {
    fn add(&mut self, rank: u32, one: &'a Metadata, files: &[u32]) -> Result<(), DcpError> {
        let moved = |place: Place| match files.get(place.file as usize) {
            Some(file) => Ok(Place { file: *file, ..place }),
            None => Err(DcpError::NoObjectStorage),
        };
        for tensor in &one.tensors {
            if let Some((first, _)) = self.objects.get(&tensor.key) {
                return Err(kinds("an object", *first, "a tensor", rank).of(&tensor.key));
            }
            let chunks = tensor.chunks.iter();
            let chunks = chunks.map(|chunk| Ok((Chunk { place: moved(chunk.place)?, ..chunk }, rank)));
            let chunks = chunks.collect::<Result<Vec<_>, DcpError>>()?;
            match self.tensors.get_mut(&tensor.key) {
                Some(shards) => {
                    shards.check(tensor, rank).map_err(|error| error.of(&tensor.key))?;
                    shards.chunks.extend(chunks);
                }
                None => {
                    self.tensors.insert(Arc::clone(&tensor.key), Shards { tensor, rank, chunks });
                }
            }
        }
        for object in &one.objects {
            if let Some(shards) = self.tensors.get(&object.key) {
                return Err(kinds("a tensor", shards.rank, "an object", rank).of(&object.key));
            }
            let place = moved(object.place)?;
            self.objects.entry(Arc::clone(&object.key)).or_insert((rank, place));
        }
        one.paths.iter().try_for_each(|paths| self.add_paths(rank, paths))
    }

    fn add_paths(&mut self, rank: u32, paths: &[(Arc<str>, KeyPath)]) -> Result<(), DcpError> {
        let all = self.paths.get_or_insert_default();
        for (key, path) in paths {
            let (first, known) = all.entry(Arc::clone(key)).or_insert_with(|| (rank, path.clone()));
            same("its path in the state dict", (*first, &*known), (rank, path)).map_err(|error| error.of(key))?;
        }
        Ok(())
    }
}

impl Shards<'_> {
    /// Whether another rank says the same of the tensor.
    fn check(&self, other: &Tensor, rank: u32) -> Result<(), DcpError> {
        let (first, known) = (self.rank, &self.tensor);
        same("its dtype", (first, &known.dtype), (rank, &other.dtype))?;
        same("its shape", (first, &known.shape.0), (rank, &other.shape.0))?;
        same("its original shape", (first, &known.original_shape), (rank, &other.original_shape))
    }

    /// The tensor with the chunks of all ranks, each once.
    fn merged(mut self) -> Result<Tensor, DcpError> {
        self.chunks.sort_unstable_by_key(|(chunk, rank)| (chunk.offsets, *rank));
        let mut kept: Vec<(Chunk<'_>, u32)> = Vec::with_capacity(self.chunks.len());
        for (chunk, rank) in self.chunks {
            match kept.last() {
                Some((known, first)) if known.offsets == chunk.offsets => {
                    let what = "the size of one of its chunks";
                    same(what, (*first, known.sizes), (rank, chunk.sizes))
                        .map_err(|error| error.of(&self.tensor.key))?;
                }
                _ => kept.push((chunk, rank)),
            }
        }
        let chunks = kept.into_iter().map(|(chunk, _)| (chunk.offsets, chunk.sizes, chunk.place));
        let Tensor { key, dtype, shape, original_shape, .. } = self.tensor;
        Ok(Tensor {
            key: Arc::clone(key),
            dtype: *dtype,
            chunks: Chunks::new(shape.rank(), chunks),
            shape: shape.clone(),
            original_shape: original_shape.clone(),
        })
    }
}

fn same<T: Debug + PartialEq + ?Sized>(
    what: &'static str,
    (first_rank, first): (u32, &T),
    (second_rank, second): (u32, &T),
) -> Result<(), DcpError> {
    if first == second {
        return Ok(());
    }
    let [first, second] = [first, second].map(|said| format!("{said:?}"));
    Err(DcpError::Disagree { what, first, first_rank, second, second_rank })
}

fn kinds(first: &str, first_rank: u32, second: &str, second_rank: u32) -> DcpError {
    let (first, second) = (first.to_owned(), second.to_owned());
    DcpError::Disagree { what: "it", first, first_rank, second, second_rank }
}
