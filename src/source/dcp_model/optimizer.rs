//! What is kept of a checkpoint's optimizer: its state by the names of the model's tensors, and the settings of its groups.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::groups;
use super::keys::plain;
use super::members::{Contents, Members};
use super::parts::KeyedObject;
use super::states::{self, Optimizers, StateKey};
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
    /// Takes away what was found, which is another model's.
    pub(super) fn forget(&mut self) {
        if self.tensors.is_empty() && self.values.is_empty() && self.groups.is_none() {
            return;
        }
        (self.tensors, self.values, self.groups) = (Vec::new(), Vec::new(), None);
        self.left_out.push("optimizer state (there are several models here, and it need not be that of the one chosen)".to_owned());
    }

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
    if !contents.is_without_optimizer() {
        check(contents, &found)?;
    }
    let mut kept = Kept::default();
    let mut odd: BTreeSet<String> = BTreeSet::new();
    let mut numbers: Vec<(&StateKey, &KeyedObject<'_>)> = Vec::new();
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
            numbers.push((key, object));
        }
    }
    kept.left_out.extend(odd);
    if contents.is_without_optimizer() {
        kept.keys.extend(of_roots(contents, &found.roots).map(|(_, object)| Arc::from(object.key)));
        return Ok(kept);
    }
    values(contents, &numbers, &shapes, &mut kept, store)?;
    settings(contents, &found, &names, &mut kept, store)?;
    Ok(kept)
}

/// Of every state there is one: which of several is the model's, nobody says.
fn check(contents: &Contents<'_>, found: &Optimizers) -> Result<(), SourceError> {
    let wrong = |what: String| {
        let file = contents.path.display().to_string();
        Err(SourceError::State(Box::new(SourceError::Contents { file, what })))
    };
    if let [one, other, ..] = found.roots.as_slice() {
        return wrong(format!("its keys have state of the model's tensors under {one} and under {other}; one optimizer is known"));
    }
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    match found.states.iter().find(|key| !seen.insert((&key.of, &key.state))) {
        Some(twice) => wrong(format!("two of its keys are the {} of {}", twice.state, twice.of)),
        None => Ok(()),
    }
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
    found: &Optimizers,
    names_of_model: &HashSet<&str>,
    kept: &mut Kept,
    store: &dyn Store,
) -> Result<(), SourceError> {
    let (names, objects): (Vec<&str>, Vec<&KeyedObject<'_>>) = of_roots(contents, &found.roots).unzip();
    let mut seen = HashSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(**name)) {
        let what = format!("two of its optimizers have settings of parameter groups ({twice} is there twice); one optimizer is known");
        let file = contents.path.display().to_string();
        return Err(SourceError::State(Box::new(SourceError::Contents { file, what })));
    }
    kept.keys.extend(objects.iter().map(|object| Arc::from(object.key)));
    if objects.len() > MOST_SETTINGS {
        kept.left_out.push(format!("settings of parameter groups (there are {})", objects.len()));
        return Ok(());
    }
    let read = contents.parts.read(&objects, store).map_err(|error| SourceError::State(Box::new(error)))?;
    let settings = names.into_iter().zip(read.into_iter().map(|file| file.tree)).collect();
    let groups = match groups::of(settings) {
        Ok(groups) => groups,
        Err(odd) => {
            kept.left_out.push(format!("settings of parameter groups ({odd} has no place in them)"));
            None
        }
    };
    let own = |name: &str| {
        let name = plain(name);
        name.strip_prefix(&*found.prefix).filter(|own| names_of_model.contains(own)).map(ToOwned::to_owned)
    };
    let groups = match groups.map(|groups| groups::renamed(&groups, own)) {
        Some(None) => {
            kept.left_out.push("settings of parameter groups (they name what is no tensor of the model)".to_owned());
            None
        }
        renamed => renamed.flatten(),
    };
    let key = Value::str(crate::format::megatron::keys::PARAM_GROUPS);
    kept.groups = groups.map(|groups| Value::Dict([(key, groups)].into()));
    Ok(())
}
