//! The tensors of a checkpoint as those of a rank that saved everything: which are the model's, which the optimizer's, and what is neither.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::keys::{by_root, name_under, plain};
use super::optimizer::{self, Kept};
use super::parts::{Keyed, KeyedObject, Parts};
use crate::catalog::{NamedState, RankFile, RunState};
use crate::extent::ObjectId;
use crate::source::SourceError;
use crate::store::Store;
use crate::tensor::Dtype;
use crate::value::{TensorRef, Value};

/// What a checkpoint has under its keys.
pub(super) struct Contents<'a> {
    path: &'a Path,
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
    objects: Vec<usize>,
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

    /// The model, and the optimizer's state that is of it, as one rank's file of a run with these args.
    pub(super) fn rank_file(
        &self,
        members: &Members,
        args: Value,
        store: &dyn Store,
    ) -> Result<RankFile, SourceError> {
        let kept = optimizer::find(self, members, store)?;
        let left_out = self.left_out(members, &kept);
        let states = kept.tensors.iter().filter(|_| !self.without_optimizer);
        let states: Vec<(&str, &Arc<str>, &Keyed)> =
            states.filter_map(|(state, of, index)| Some((state.as_str(), of, self.tensors.get(*index)?))).collect();
        let weights = members.named.iter().filter_map(|(_, index)| self.tensors.get(*index));
        let wanted: Vec<&Keyed> = weights.chain(states.iter().map(|(_, _, keyed)| *keyed)).collect();
        let found = self.parts.pieces(&wanted, store)?;
        let files = self.parts.names();
        // Of no tensor nothing is read.
        let object = found.iter().flatten().next().map(|piece| piece.object);
        let object = object.or_else(|| files.keys().min().copied()).unwrap_or(ObjectId(0));
        let pieces = wanted.iter().map(|keyed| keyed.storage()).zip(found).collect();
        let model = members.named.iter().filter_map(|(name, index)| {
            Some((Value::Str(name.clone()), self.tensors.get(*index)?.tensor()))
        });
        let model = Value::Dict(model.collect());
        let named = states.iter().map(|(state, of, keyed)| NamedState {
            state: (*state).into(),
            of: Arc::clone(of),
            value: keyed.tensor(),
        });
        let named_states = named.chain(kept.values.into_iter().filter(|_| !self.without_optimizer)).collect();
        let run = RunState { optimizer: kept.groups, ..RunState::of_args(args) };
        let empty = RankFile::of_run(object, self.path.display().to_string(), run);
        Ok(RankFile { models: vec![model], pieces, files, named_states, left_out, ..empty })
    }

    /// What is neither the model's nor the optimizer's, and what of those is not taken, in words.
    fn left_out(&self, members: &Members, kept: &Kept) -> Vec<String> {
        let taken: BTreeSet<usize> = members.named.iter().map(|(_, index)| *index).collect();
        let tensors = self.tensors.iter().enumerate();
        let tensors = tensors.filter(|(index, keyed)| {
            // Those without elements are said apart.
            !taken.contains(index) && !kept.has(&keyed.key) && keyed.shape.elements() != Some(0)
        });
        let objects = self.objects.iter().enumerate();
        let objects = objects.filter(|(index, object)| !members.objects.contains(index) && !kept.has(object.key));
        let rest = tensors.map(|(_, keyed)| &*keyed.key).chain(objects.map(|(_, object)| object.key));
        let mut said = by_root(rest);
        if let Some(object) = members.objects.first().and_then(|index| self.objects.get(*index)) {
            let (count, key) = (members.objects.len(), object.key);
            let more = if count == 1 { String::new() } else { format!(" and {} more", count - 1) };
            said.push(format!("{key}{more} (no tensor)"));
        }
        said.extend(kept.left_out.iter().cloned());
        said
    }
}

impl Keyed {
    /// What stands for its storage: keys of several directories may be the same.
    fn storage(&self) -> Arc<str> {
        match self.part() {
            0 => self.key.clone(),
            part => format!("{part}:{}", self.key).into(),
        }
    }

    fn tensor(&self) -> Value {
        Value::Tensor(Arc::new(TensorRef::whole(self.storage(), self.dtype, self.shape.clone())))
    }
}
