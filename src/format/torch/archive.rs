//! Which entry of the archive is what.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::HashMap;

use super::TorchError;
use crate::format::zip::Entry;
use crate::value::Storage;

/// The entries of a checkpoint. Others (torch's own bookkeeping, whatever was added) are ignored, as torch ignores them.
#[derive(Debug, Clone)]
pub struct Archive {
    /// First component of every name: the stem of the name the file was saved under, or `archive`.
    #[cfg_attr(not(feature = "internals"), expect(dead_code, reason = "tests compare it with torch's own"))]
    pub prefix: String,
    /// `data.pkl`
    pub pickle: Entry,
    /// `version`; its content is for [`check_version`].
    pub version: Entry,
    /// `byteorder`, which torch writes since 2.1; its content is for [`check_byteorder`].
    pub byteorder: Option<Entry>,
    storages: HashMap<String, Entry>,
}

impl Archive {
    /// Sorts the entries of a zip file.
    ///
    /// # Errors
    /// [`TorchError::NoPickle`], [`TorchError::NoVersion`], [`TorchError::TorchScript`].
    pub fn new(entries: Vec<Entry>) -> Result<Self, TorchError> {
        // Torch takes the prefix from the first entry and looks for all names under it.
        let first = entries.first().map(|entry| entry.name.clone());
        let prefix =
            first.as_deref().and_then(|name| name.split_once('/')).map(|(prefix, _)| prefix.to_owned());
        let Some(prefix) = prefix else { return Err(TorchError::NoPickle { first }) };
        let mut named: HashMap<String, Entry> = HashMap::new();
        let mut storages = HashMap::new();
        for entry in entries {
            let name = entry.name.strip_prefix(&prefix).and_then(|rest| rest.strip_prefix('/'));
            match name.map(|name| (name.strip_prefix("data/"), name)) {
                Some((Some(key), _)) => {
                    storages.insert(key.to_owned(), entry);
                }
                Some((None, name)) => {
                    named.insert(name.to_owned(), entry);
                }
                None => {}
            }
        }
        if named.contains_key("constants.pkl") {
            return Err(TorchError::TorchScript);
        }
        let pickle = named.remove("data.pkl").ok_or(TorchError::NoPickle { first })?;
        // Newer archives of other kinds keep it here; torch looks in this order.
        let version = named.remove(".data/version").or_else(|| named.remove("version"));
        let version = version.ok_or(TorchError::NoVersion)?;
        let byteorder = named.remove("byteorder");
        Ok(Self { prefix, pickle, version, byteorder, storages })
    }

    /// The entry that holds `storage`.
    ///
    /// # Errors
    /// [`TorchError::NoStorage`], and [`TorchError::StorageSize`] where the entry has another size.
    pub fn storage(&self, storage: &Storage) -> Result<&Entry, TorchError> {
        let Some(entry) = self.storages.get(&*storage.key) else {
            return Err(TorchError::NoStorage { key: storage.key.to_string() });
        };
        if entry.size != storage.bytes {
            let (expected, found) = (storage.bytes, entry.size);
            return Err(TorchError::StorageSize { key: storage.key.to_string(), expected, found });
        }
        Ok(entry)
    }

    /// Every storage record with its key, in no particular order.
    #[cfg(feature = "internals")]
    pub fn storages(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.storages.iter().map(|(key, entry)| (key.as_str(), entry))
    }
}

/// Checks the content of the `version` record. Torch reads 1 to 10 (`kMaxSupportedFileFormatVersion` in caffe2/serialize/versions.h) and
/// writes 3 for checkpoints.
///
/// # Errors
/// [`TorchError::Version`]
pub fn check_version(content: &[u8]) -> Result<(), TorchError> {
    let text = String::from_utf8_lossy(content);
    match text.trim_ascii().parse::<u64>() {
        Ok(1..=10) => Ok(()),
        _ => Err(TorchError::Version { found: text.chars().take(40).collect() }),
    }
}

/// Checks the content of the `byteorder` record. Files without one are little-endian.
///
/// # Errors
/// [`TorchError::Byteorder`]
pub fn check_byteorder(content: &[u8]) -> Result<(), TorchError> {
    if content == b"little" {
        return Ok(());
    }
    let found = String::from_utf8_lossy(content).chars().take(40).collect();
    Err(TorchError::Byteorder { found })
}
