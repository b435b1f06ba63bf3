//! What a checkpoint has under its keys, and which of it is the model's.
//!
//! Not here: what is the optimizer's (`optimizer`), and what becomes of all that (`model`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::keys::{name_under, plain};
use super::parts::{Keyed, KeyedObject, Parts};
use crate::source::SourceError;
use crate::tensor::Dtype;

/// What a checkpoint has under its keys.
pub(super) struct Contents<'a> {
    pub(super) path: &'a Path,
    pub(super) parts: &'a Parts,
    pub(super) tensors: Vec<Keyed>,
    pub(super) objects: Vec<KeyedObject<'a>>,
    without_optimizer: bool,
}

/// The tensors of the model, by their names.
pub(super) struct Members {
    /// Name, and which of the tensors.
    pub(super) named: Vec<(Arc<str>, usize)>,
    /// Keys of objects that are among them.
    pub(super) objects: Vec<usize>,
}

impl Members {
    /// Takes tensors without elements away, and gives their names.
    pub(super) fn without_empty(&mut self, contents: &Contents<'_>) -> Vec<String> {
        let is_empty = |index: &usize| {
            contents.tensors.get(*index).is_some_and(|tensor| tensor.shape.elements() == Some(0))
        };
        let (empty, named) = std::mem::take(&mut self.named).into_iter().partition(|(_, index)| is_empty(index));
        self.named = named;
        let empty: Vec<(Arc<str>, usize)> = empty;
        empty.into_iter().map(|(name, _)| name.to_string()).collect()
    }
}

impl<'a> Contents<'a> {
    pub(super) fn of(path: &'a Path, parts: &'a Parts, without_optimizer: bool) -> Self {
        Self { path, parts, tensors: parts.tensors(), objects: parts.objects(), without_optimizer }
    }

    /// Whether the optimizer's state is not wanted.
    pub(super) fn is_without_optimizer(&self) -> bool {
        self.without_optimizer
    }

    /// Keys of all tensors without what wrappers put there.
    pub(super) fn keys(&self) -> impl Iterator<Item = std::borrow::Cow<'_, str>> {
        self.tensors.iter().map(|tensor| plain(&tensor.key))
    }

    /// The model under this prefix; where there is none, that which begins like one of `first`.
    pub(super) fn members(&self, prefix: &str, first: &BTreeSet<&str>) -> Result<Members, SourceError> {
        let mut named = Vec::new();
        let mut seen: HashMap<Arc<str>, usize> = HashMap::new();
        for (index, tensor) in self.tensors.iter().enumerate() {
            let key = plain(&tensor.key);
            let Some(name) = name_under(&key, prefix, first) else { continue };
            let name: Arc<str> = name.into();
            if let Some(other) = seen.insert(name.clone(), index).and_then(|other| self.tensors.get(other)) {
                let what = format!("the keys {} and {} are both of {name}", other.key, tensor.key);
                return Err(SourceError::Contents { file: self.path.display().to_string(), what });
            }
            named.push((name, index));
        }
        let is_one = |object: &KeyedObject<'_>| name_under(&plain(object.key), prefix, first).is_some();
        let objects = self.objects.iter().enumerate().filter(|(_, object)| is_one(object));
        let objects = objects.map(|(index, _)| index).collect();
        Ok(Members { named, objects })
    }

    /// The element type of most bytes of the model.
    pub(super) fn main_dtype(&self, members: &Members) -> Dtype {
        let mut bytes: BTreeMap<Dtype, u64> = BTreeMap::new();
        for tensor in members.named.iter().filter_map(|(_, index)| self.tensors.get(*index)) {
            let size = tensor.shape.bytes(tensor.dtype).unwrap_or(u64::MAX);
            let all = bytes.entry(tensor.dtype).or_default();
            *all = all.saturating_add(size);
        }
        bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map_or(Dtype::Float32, |(dtype, _)| dtype)
    }
}
