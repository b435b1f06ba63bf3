//! Files that lie beside the weights of a model and belong to it: tokenizer, chat template, generation config, code of its own.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::SourceError;
use crate::catalog::Beside;
use crate::extent::Extent;
use crate::format::hf::{CONFIG, is_weights};
use crate::store::{FileStore, Store};

/// The files in `path`, a directory with these names in it, that hold no weights. Directories and hidden files are none of a loader's.
pub(super) fn read(path: &Path, names: &[String], store: &FileStore) -> Result<Vec<Beside>, SourceError> {
    let mut files = Vec::new();
    for name in names {
        let file = path.join(name);
        // A link to nowhere is an error when it is opened.
        let is_directory = fs::metadata(&file).is_ok_and(|metadata| metadata.is_dir());
        if is_directory || name.starts_with('.') || name == CONFIG || is_weights(name) {
            continue;
        }
        let object = store.add(&file)?;
        let extent = Extent { object, offset: 0, len: store.len(object)? };
        files.push(Beside { name: name.clone(), extent });
    }
    Ok(files)
}

/// The bytes of a file that must be small.
pub(super) fn read_small(path: &Path, most: u64) -> Result<Vec<u8>, SourceError> {
    let failed = |source| SourceError::Io { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SourceError::NotACheckpoint {
            path: path.to_owned(),
            what: "is not a regular file".into(),
        });
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > most {
        let what = format!("has more than {most} bytes, which no such file has");
        return Err(SourceError::NotACheckpoint { path: path.to_owned(), what });
    }
    Ok(bytes)
}
