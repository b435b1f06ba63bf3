//! The tensors of a checkpoint as those of a rank that saved everything: which are the model's, which the optimizer's, and what is neither.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::keys::by_root;
use super::members::{Contents, Members};
use super::optimizer::{self, Kept};
use super::parts::Keyed;
use crate::catalog::{NamedState, RankFile, RunState};
use crate::extent::ObjectId;
use crate::source::SourceError;
use crate::store::Store;
use crate::value::{TensorRef, Value};

impl Contents<'_> {
    /// The model, and the optimizer's state that is of it, as one rank's file of a run with these args. Of a model that is one of several here and
    /// not the one that is trained, there is no state.
    pub(super) fn rank_file(
        &self,
        members: &Members,
        args: Value,
        is_trained: bool,
        store: &dyn Store,
    ) -> Result<RankFile, SourceError> {
        let mut kept = optimizer::find(self, members, store)?;
        if !is_trained {
            kept.forget();
        }
        let left_out = self.left_out(members, &kept);
        let states = kept.tensors.iter().filter(|_| !self.is_without_optimizer());
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
        let named_states = named.chain(kept.values.into_iter().filter(|_| !self.is_without_optimizer())).collect();
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
