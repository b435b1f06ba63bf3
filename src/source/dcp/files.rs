//! The data files of a directory: each that the metadata names is there, and as long as the metadata says.

use std::path::{Path, PathBuf};

use crate::extent::ObjectId;
use crate::format::dcp::metadata::Metadata;
use crate::source::workers::in_parallel;
use crate::source::{SourceError, some_of};
use crate::store::{FileStore, OpenFile, Store, StoreError};

/// A file of pieces.
#[derive(Debug)]
pub(super) struct DataFile {
    pub(super) object: ObjectId,
    pub(super) path: PathBuf,
    /// Its name for messages.
    pub(super) name: String,
}

/// Opens all data files that the metadata names.
pub(super) fn open(path: &Path, metadata: &Metadata, store: &FileStore) -> Result<Vec<DataFile>, SourceError> {
    let paths: Vec<PathBuf> = metadata.files.iter().map(|file| path.join(&**file)).collect();
    let opened = in_parallel(&paths, |path| match OpenFile::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    })?;
    let missing: Vec<String> =
        metadata.files.iter().zip(&opened).filter(|(_, file)| file.is_none()).map(|(name, _)| name.to_string()).collect();
    if !missing.is_empty() {
        let what = format!(
            "its metadata names {} data files, of which {} are not there: {}; copy them too, or pass an older checkpoint",
            paths.len(),
            missing.len(),
            some_of(&missing)
        );
        return Err(SourceError::NotACheckpoint { path: path.to_owned(), what });
    }
    let mut files = Vec::with_capacity(paths.len());
    for (path, file) in paths.into_iter().zip(opened.into_iter().flatten()) {
        let object = store.take(file)?;
        files.push(DataFile { object, path, name: store.name(object) });
    }
    check_lengths(metadata, &files, store)?;
    Ok(files)
}

/// Every file is long enough for the pieces that are said to be in it.
fn check_lengths(metadata: &Metadata, files: &[DataFile], store: &FileStore) -> Result<(), SourceError> {
    let mut ends = vec![0; files.len()];
    for place in metadata.places() {
        if let Some(end) = ends.get_mut(place.file as usize) {
            *end = place.offset.saturating_add(place.len).max(*end);
        }
    }
    for (file, end) in files.iter().zip(ends) {
        let len = store.len(file.object)?;
        if len < end {
            let what = format!(
                "it has {len} bytes, but by the metadata it holds {end}: it was cut short, or copied while it was written"
            );
            return Err(SourceError::Contents { file: file.name.clone(), what });
        }
    }
    Ok(())
}
