//! Directories of `torch.distributed.checkpoint` as tensors by their keys: Megatron's `torch_dist` and what FSDP and others save alike.
//!
//! Reads `.metadata`, opens the files that it names, and says of every tensor in which pieces it is stored and where the bytes of each lie.
//! Not here: what the keys mean (`dcp_model`, `torch_dist`), what `.metadata` and pieces look like (`format::dcp`).

mod elements;
mod files;
mod metadata;
mod pieces;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::SourceError;
use super::torch_file::TorchFile;
use crate::catalog::Chunk;
use crate::extent::ObjectId;
use crate::format::dcp::metadata::{Metadata, Object, Place, Tensor};
use crate::store::{FileStore, Store, consistent};
use files::DataFile;

pub(super) use metadata::{is_checkpoint, is_megatrons};

/// A directory whose metadata was read, and whose data files are open and as long as it says.
#[derive(Debug)]
pub(super) struct Opened {
    directory: PathBuf,
    metadata: Metadata,
    /// In the order of [`Metadata::files`].
    files: Vec<DataFile>,
}

/// Opens the checkpoint in `path`, a directory with these names in it; its data files are added to `store`.
///
/// # Errors
/// [`SourceError`] naming the file: an interrupted save, a data file that is missing or short.
pub(super) fn open(path: &Path, names: &[String], store: &FileStore) -> Result<Opened, SourceError> {
    let metadata = metadata::read(path, names)?;
    let files = files::open(path, &metadata, store)?;
    Ok(Opened { directory: path.to_owned(), metadata, files })
}

/// First byte and length of every piece in the data file called `name` of the checkpoint in `path`. `None` where its metadata cannot be read
/// or says nothing of that file.
pub(super) fn pieces_of_file(path: &Path, names: &[String], name: &str) -> Option<Vec<(u64, u64)>> {
    let metadata = metadata::read(path, names).ok()?;
    let file = metadata.files.iter().position(|file| &**file == name)?;
    let chunks = metadata.tensors.iter().flat_map(|tensor| tensor.chunks.iter().map(|chunk| chunk.place));
    let places = chunks.chain(metadata.objects.iter().map(|object| object.place));
    let mut pieces: Vec<(u64, u64)> =
        places.filter(|place| place.file as usize == file).map(|place| (place.offset, place.len)).collect();
    pieces.sort_unstable();
    pieces.dedup();
    Some(pieces)
}

impl Opened {
    /// The directory.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it says: tensors and objects by key, how they were nested.
    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Paths of its data files.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.files.iter().map(|file| file.path.clone())
    }

    /// Names of its data files for messages.
    pub(super) fn names(&self) -> HashMap<ObjectId, String> {
        self.files.iter().map(|file| (file.object, file.name.clone())).collect()
    }

    /// The pieces of each of these tensors: positions of the tensor in their order, strides in bytes; rank 0. Empty ones are left out.
    ///
    /// All tensors that are wanted belong into one call: of a large checkpoint the heads of some pieces are read, and the others computed.
    ///
    /// # Errors
    /// [`SourceError`] naming the file and the key: a piece that is no torch file of one tensor, is compressed, or is of another type or
    /// shape than said. That the pieces cover the tensor is not looked at.
    pub(super) fn pieces(
        &self,
        wanted: &[&Tensor],
        store: &dyn Store,
    ) -> Result<Vec<Vec<Chunk>>, SourceError> {
        pieces::of(self, wanted, store)
    }

    /// What an object holds. Its tensors are references; where their storages lie is said in places of the data file.
    ///
    /// # Errors
    /// [`SourceError`] naming the file and the key.
    pub(super) fn object(&self, object: &Object, store: &dyn Store) -> Result<TorchFile, SourceError> {
        let file = self.file(object.place, &object.key)?;
        consistent(store, file.object, |reads| elements::object(reads, file, &object.key, object.place))
    }

    /// The data file that an object is in.
    ///
    /// # Errors
    /// As [`Opened::object`].
    pub(super) fn object_file(&self, object: &Object) -> Result<ObjectId, SourceError> {
        Ok(self.file(object.place, &object.key)?.object)
    }

    /// The file that a piece is in.
    fn file(&self, place: Place, key: &str) -> Result<&DataFile, SourceError> {
        self.files.get(place.file as usize).ok_or_else(|| SourceError::Contents {
            file: self.directory.display().to_string(),
            what: format!("the file that holds {key} is not known"),
        })
    }
}
