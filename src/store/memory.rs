//! Objects that are byte strings in memory: for tests and for what is read once and small.
//!
//! Not here: files (`file`).

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::RwLock;

use super::{Run, Store, StoreError, check_runs};
use crate::extent::ObjectId;

/// A store of byte strings.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: RwLock<Vec<Arc<Object>>>,
}

#[derive(Debug)]
struct Object {
    name: String,
    bytes: Vec<u8>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an object and gives it a number.
    ///
    /// # Errors
    /// [`StoreError::TooManyFiles`] after 2^32 objects.
    pub fn add(&self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Result<ObjectId, StoreError> {
        let object = Object { name: name.into(), bytes: bytes.into() };
        let mut objects = self.objects.write();
        let number = u32::try_from(objects.len()).map_err(|_| StoreError::TooManyFiles {
            path: object.name.clone(),
            limit: u32::MAX.to_string(),
        })?;
        objects.push(Arc::new(object));
        Ok(ObjectId(number))
    }

    fn object(&self, object: ObjectId) -> Result<Arc<Object>, StoreError> {
        self.objects.read().get(object.0 as usize).cloned().ok_or(StoreError::Unknown(object))
    }
}

impl Store for MemoryStore {
    fn name(&self, object: ObjectId) -> String {
        match self.object(object) {
            Ok(object) => object.name.clone(),
            Err(_) => object.to_string(),
        }
    }

    fn len(&self, object: ObjectId) -> Result<u64, StoreError> {
        Ok(self.object(object)?.bytes.len() as u64)
    }

    /// Always the epoch: bytes in memory have no past.
    fn modified(&self, object: ObjectId) -> Result<SystemTime, StoreError> {
        self.object(object).map(|_| SystemTime::UNIX_EPOCH)
    }

    #[expect(clippy::indexing_slicing, reason = "every run was checked against both")]
    fn gather(&self, object: ObjectId, runs: &[Run], out: &mut [u8]) -> Result<(), StoreError> {
        let object = self.object(object)?;
        check_runs(runs, object.bytes.len() as u64, out.len(), || object.name.clone())?;
        for run in runs {
            let from = run.from as usize;
            out[run.to..run.to + run.len].copy_from_slice(&object.bytes[from..from + run.len]);
        }
        Ok(())
    }

    fn read_unchecked(&self, object: ObjectId, offset: u64, out: &mut [u8]) -> Result<(), StoreError> {
        self.read_exact_at(object, offset, out)
    }

    /// Bytes in memory never change.
    fn check_unchanged(&self, object: ObjectId) -> Result<(), StoreError> {
        self.object(object).map(|_| ())
    }
}
