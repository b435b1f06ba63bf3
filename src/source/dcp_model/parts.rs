//! Where the tensors of a checkpoint are: directories of `torch.distributed.checkpoint`, one or one for the model and one for each optimizer, or
//! safetensors files that its ranks wrote.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::shards::Shards;
use crate::catalog::Chunk;
use crate::extent::ObjectId;
use crate::format::dcp::names::{ACCELERATE_MODEL, ACCELERATE_OPTIMIZER};
use crate::format::dcp::metadata::{Object, Tensor};
use crate::source::dcp::{self, Opened};
use crate::source::locate::list;
use crate::source::torch_file::TorchFile;
use crate::source::workers::in_parallel;
use crate::source::{SourceError, some_of};
use crate::store::{FileStore, Store};
use crate::tensor::{Dtype, Shape};


/// A checkpoint whose metadata was read.
#[derive(Debug)]
pub(super) enum Parts {
    Directories(Vec<Opened>),
    Shards(Shards),
}

/// A tensor by its key.
#[derive(Debug, Clone)]
pub(super) struct Keyed {
    pub(super) key: Arc<str>,
    pub(super) dtype: Dtype,
    pub(super) shape: Shape,
    /// In which part, and the how manieth there.
    at: (usize, usize),
}

impl Keyed {
    /// In which part it is.
    pub(super) fn part(&self) -> usize {
        self.at.0
    }
}

/// An object by its key.
#[derive(Debug)]
pub(super) struct KeyedObject<'a> {
    pub(super) key: &'a str,
    part: &'a Opened,
    object: &'a Object,
}

/// Names of the directories in one of accelerate's with these names: that of the model, and those of its optimizers.
fn of_accelerate(names: &[String]) -> (Vec<&String>, Vec<&String>) {
    let numbered = |start: &'static str| {
        let is_one = move |name: &&String| {
            let number = name.strip_prefix(start);
            number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        names.iter().filter(is_one).collect()
    };
    (numbered(ACCELERATE_MODEL), numbered(ACCELERATE_OPTIMIZER))
}

/// Whether these names are those in a directory whose model can be read so.
pub(in crate::source) fn is_checkpoint(names: &[String]) -> bool {
    dcp::is_checkpoint(names) || !of_accelerate(names).0.is_empty() || Shards::are_in(names)
}

/// Names in a directory with these names that belong to the checkpoint.
pub(super) fn own(names: &[String]) -> Vec<&str> {
    let (models, optimizers) = of_accelerate(names);
    models.into_iter().chain(optimizers).map(String::as_str).collect()
}

impl Parts {
    /// Opens what is in `path`, a directory with these names in it.
    pub(super) fn open(
        path: &Path,
        names: &[String],
        with_optimizer: bool,
        store: &FileStore,
    ) -> Result<Self, SourceError> {
        if dcp::is_checkpoint(names) {
            return Ok(Self::Directories(vec![dcp::open(path, names, store)?]));
        }
        let (models, optimizers) = of_accelerate(names);
        let model = match models.as_slice() {
            [] => return Shards::open(path, names, store).map(Self::Shards),
            [model] => path.join(model),
            several => {
                let several: Vec<String> = several.iter().map(|name| (*name).clone()).collect();
                let what = format!("it has several models; pass the directory of one: {}", some_of(&several));
                return Err(SourceError::NotACheckpoint { path: path.to_owned(), what });
            }
        };
        let mut opened = vec![dcp::open(&model, &list(&model)?, store)?];
        for optimizer in optimizers.iter().filter(|_| with_optimizer) {
            let directory = path.join(optimizer);
            let part = dcp::open(&directory, &list(&directory)?, store);
            opened.push(part.map_err(|error| SourceError::State(Box::new(error)))?);
        }
        Ok(Self::Directories(opened))
    }

    /// Every tensor.
    pub(super) fn tensors(&self) -> Vec<Keyed> {
        match self {
            Self::Directories(parts) => {
                let of = |(part, opened): (usize, &Opened)| {
                    let tensors = opened.metadata().tensors.iter().enumerate();
                    let keyed = tensors.map(move |(index, tensor)| Keyed {
                        key: tensor.key.clone(),
                        dtype: tensor.dtype,
                        shape: tensor.shape.clone(),
                        at: (part, index),
                    });
                    keyed.collect::<Vec<_>>()
                };
                parts.iter().enumerate().flat_map(of).collect()
            }
            Self::Shards(shards) => {
                let keyed = shards.tensors.iter().enumerate().map(|(index, tensor)| Keyed {
                    key: tensor.key.clone(),
                    dtype: tensor.dtype,
                    shape: tensor.shape.clone(),
                    at: (0, index),
                });
                keyed.collect()
            }
        }
    }

    /// Whether they are safetensors files of ranks.
    pub(super) fn are_files(&self) -> bool {
        matches!(self, Self::Shards(_))
    }

    /// Every object.
    pub(super) fn objects(&self) -> Vec<KeyedObject<'_>> {
        let Self::Directories(parts) = self else { return Vec::new() };
        let of = |part| {
            let objects = Opened::metadata(part).objects.iter();
            objects.map(move |object| KeyedObject { key: &object.key, part, object })
        };
        parts.iter().flat_map(of).collect()
    }

    /// What each of these objects holds.
    pub(super) fn read(
        &self,
        objects: &[&KeyedObject<'_>],
        store: &dyn Store,
    ) -> Result<Vec<TorchFile>, SourceError> {
        in_parallel(objects, |object| object.part.object(object.object, store))
    }

    /// The pieces of each of these tensors.
    pub(super) fn pieces(&self, wanted: &[&Keyed], store: &dyn Store) -> Result<Vec<Vec<Chunk>>, SourceError> {
        let parts = match self {
            Self::Directories(parts) => parts,
            Self::Shards(shards) => {
                let pieces = wanted.iter().map(|keyed| shards.tensors.get(keyed.at.1));
                return Ok(pieces.map(|tensor| tensor.map(|t| t.pieces.clone()).unwrap_or_default()).collect());
            }
        };
        let mut pieces: Vec<Vec<Chunk>> = wanted.iter().map(|_| Vec::new()).collect();
        for (number, part) in parts.iter().enumerate() {
            let here = wanted.iter().enumerate().filter(|(_, keyed)| keyed.at.0 == number);
            let tensors = here.filter_map(|(at, keyed)| Some((at, part.metadata().tensors.get(keyed.at.1)?)));
            let (places, tensors): (Vec<usize>, Vec<&Tensor>) = tensors.unzip();
            for (place, found) in places.into_iter().zip(part.pieces(&tensors, store)?) {
                if let Some(pieces) = pieces.get_mut(place) {
                    *pieces = found;
                }
            }
        }
        Ok(pieces)
    }

    /// How the keys were nested, of the first part that says it: names of the dicts that lead to each.
    pub(super) fn path_of(&self, keyed: &Keyed) -> Option<&[crate::format::dcp::metadata::PathItem]> {
        let Self::Directories(parts) = self else { return None };
        let paths = parts.get(keyed.at.0)?.metadata().paths.as_ref()?;
        let at = paths.binary_search_by(|(key, _)| key.cmp(&keyed.key)).ok()?;
        paths.get(at).map(|(_, path)| &**path)
    }

    /// Names of its data files for messages.
    pub(super) fn names(&self) -> HashMap<ObjectId, String> {
        match self {
            Self::Directories(parts) => parts.iter().flat_map(Opened::names).collect(),
            Self::Shards(shards) => shards.files.iter().map(|(object, path)| (*object, path.display().to_string())).collect(),
        }
    }

    /// Its data files.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::Directories(parts) => parts.iter().flat_map(Opened::paths).collect(),
            Self::Shards(shards) => shards.files.iter().map(|(_, path)| path.clone()).collect(),
        }
    }
}
