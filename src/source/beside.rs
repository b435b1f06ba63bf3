//! Files that lie beside the weights of a model and belong to it: tokenizer, chat template, generation config, code of its own.

use std::fs;
use std::path::Path;

use super::SourceError;
use super::workers::in_parallel;
use crate::catalog::Beside;
use crate::extent::Extent;
use crate::format::hf::{CONFIG, is_weights};
use crate::store::{FileStore, OpenFile, Store, together};

/// The files in `path`, a directory with these names in it, that hold no weights. Directories and hidden files are none of a loader's.
pub(super) fn read(path: &Path, names: &[String], store: &FileStore) -> Result<Vec<Beside>, SourceError> {
    let is_one = |name: &&String| !name.starts_with('.') && *name != CONFIG && !is_weights(name);
    let wanted: Vec<&String> = names.iter().filter(is_one).collect();
    let opened = in_parallel(&wanted, |name| {
        let file = path.join(name);
        // A link to nowhere is an error when it is opened.
        let is_directory = fs::metadata(&file).is_ok_and(|metadata| metadata.is_dir());
        if is_directory { Ok(None) } else { Ok(Some(OpenFile::open(&file)?)) }
    })?;
    let mut files = Vec::new();
    for (name, file) in wanted.into_iter().zip(opened) {
        let Some(file) = file else { continue };
        let object = store.take(file)?;
        let extent = Extent { object, offset: 0, len: store.len(object)? };
        files.push(Beside { name: name.clone(), extent });
    }
    Ok(files)
}

/// The bytes of a file that must be small.
pub(super) fn read_small(path: &Path, most: u64) -> Result<Vec<u8>, SourceError> {
    /// Read at a time: what is longer is read in pieces of this, all at once.
    const PIECE: usize = 256 << 10;
    let store = FileStore::default();
    let object = store.add(path)?;
    together(&store, object, |reads| {
        let len = reads.len()?;
        if len > most {
            let what = format!("has more than {most} bytes, which no such file has");
            return Err(SourceError::NotACheckpoint { path: path.to_owned(), what });
        }
        let starts: Vec<u64> = (0..len).step_by(PIECE).collect();
        let pieces = in_parallel(&starts, |start| {
            let mut bytes = vec![0; usize::try_from(len - start).unwrap_or(PIECE).min(PIECE)];
            reads.read_exact_at(*start, &mut bytes)?;
            Ok(bytes)
        })?;
        Ok(pieces.concat())
    })
}
