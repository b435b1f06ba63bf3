//! What is kept of a checkpoint's optimizer: its state by the names of the model's tensors, and the settings of its groups.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::groups;
use super::members::{Contents, Members};
use super::parts::KeyedObject;
use super::states::{self, StateKey};
use crate::catalog::NamedState;
use crate::source::SourceError;
use crate::store::Store;
use crate::tensor::Shape;
use crate::value::Value;

/// More settings than this are not read: each is an object of its own, and flattened optimizers have a dozen for each tensor.
const MOST_SETTINGS: usize = 1 << 17;

/// What is kept of the optimizer.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// State, the model's tensor, and which of the tensors.
    pub(super) tensors: Vec<(String, Arc<str>, usize)>,
    /// States that are plain values.
    pub(super) values: Vec<NamedState>,
    /// The settings of its groups.
    pub(super) groups: Option<Value>,
    /// What is not taken, in words.
    pub(super) left_out: Vec<String>,
    /// Keys of all that.
    keys: HashSet<Arc<str>>,
}

impl Kept {
    /// Whether what has this key is the optimizer's, and is taken or said.
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains(key)
    }
}

/// What is kept of the optimizer of these members.
pub(super) fn find(
    contents: &Contents<'_>,
    members: &Members,
    store: &dyn Store,
) -> Result<Kept, SourceError> {
    let of_model: HashSet<usize> = members.named.iter().map(|(_, index)| *index).collect();
    let shapes: HashMap<&str, (&Arc<str>, &Shape)> = members
        .named
        .iter()
        .filter_map(|(name, index)| Some((&**name, (name, &contents.tensors.get(*index)?.shape))))
        .collect();
    let names: HashSet<&str> = shapes.keys().copied().collect();
    // Tensors first, then objects: one numbering for both.
    let count = contents.tensors.len();
    let tensors = contents.tensors.iter().enumerate().map(|(index, keyed)| (index, &*keyed.key));
    let objects = contents.objects.iter().enumerate().map(|(index, object)| (count + index, object.key));
    let keys = tensors.filter(|(index, _)| !of_model.contains(index)).chain(objects);
    let found = states::find(keys, &names);
    let mut kept = Kept::default();
    let mut odd: BTreeSet<String> = BTreeSet::new();
    let mut plain: Vec<(&StateKey, &KeyedObject<'_>)> = Vec::new();
    for key in &found.states {
        let Some((name, shape)) = shapes.get(&*key.of) else { continue };
        if let Some(keyed) = contents.tensors.get(key.index) {
            kept.keys.insert(keyed.key.clone());
            if keyed.shape.rank() == 0 || keyed.shape == **shape {
                kept.tensors.push((key.state.clone(), Arc::clone(name), key.index));
            } else {
                odd.insert(format!("{} (optimizer state that is not one number for each element)", key.state));
            }
        } else if let Some(object) = contents.objects.get(key.index - count) {
            kept.keys.insert(object.key.into());
            plain.push((key, object));
        }
    }
    kept.left_out.extend(odd);
    if contents.is_without_optimizer() {
        kept.keys.extend(of_roots(contents, &found.roots).map(|(_, object)| Arc::from(object.key)));
        return Ok(kept);
    }
    values(contents, &plain, &shapes, &mut kept, store)?;
    settings(contents, &found.roots, &mut kept, store)?;
    Ok(kept)
}

/// Reads states that are objects: numbers of steps, as versions before 2.0 kept them.
fn values(
    contents: &Contents<'_>,
    plain: &[(&StateKey, &KeyedObject<'_>)],
    shapes: &HashMap<&str, (&Arc<str>, &Shape)>,
    kept: &mut Kept,
    store: &dyn Store,
) -> Result<(), SourceError> {
    let objects: Vec<&KeyedObject<'_>> = plain.iter().map(|(_, object)| *object).collect();
    let read = contents.parts.read(&objects, store).map_err(|error| SourceError::State(Box::new(error)))?;
    for ((key, _), file) in plain.iter().zip(read) {
        let is_plain = matches!(file.tree, Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_));
        match shapes.get(&*key.of) {
            Some((name, _)) if is_plain => kept.values.push(NamedState {
                state: key.state.as_str().into(),
                of: Arc::clone(name),
                value: file.tree,
            }),
            _ => kept.left_out.push(format!("{} of {} (optimizer state that is no number)", key.state, key.of)),
        }
    }
    Ok(())
}

/// Objects that are settings of the groups of these optimizers, with what they are called there.
fn of_roots<'c>(
    contents: &'c Contents<'_>,
    roots: &'c [String],
) -> impl Iterator<Item = (&'c str, &'c KeyedObject<'c>)> {
    contents.objects.iter().filter_map(|object| Some((states::setting(object.key, roots)?, object)))
}

/// Reads the settings of parameter groups.
fn settings(
    contents: &Contents<'_>,
    roots: &[String],
    kept: &mut Kept,
    store: &dyn Store,
) -> Result<(), SourceError> {
    let (names, objects): (Vec<&str>, Vec<&KeyedObject<'_>>) = of_roots(contents, roots).unzip();
    kept.keys.extend(objects.iter().map(|object| Arc::from(object.key)));
    if objects.len() > MOST_SETTINGS {
        kept.left_out.push(format!("settings of parameter groups (there are {})", objects.len()));
        return Ok(());
    }
    let read = contents.parts.read(&objects, store).map_err(|error| SourceError::State(Box::new(error)))?;
    let settings = names.into_iter().zip(read.into_iter().map(|file| file.tree)).collect();
    let groups = groups::of(settings);
    let key = Value::str(crate::format::megatron::keys::PARAM_GROUPS);
    kept.groups = groups.map(|groups| Value::Dict([(key, groups)].into()));
    Ok(())
}
