//! From the arena of a decoded pickle to an immutable [`Value`] tree, in one pass that bounds what the tree can cost its readers.
//!
//! A node that is referred to twice becomes one `Arc`. Cycles are refused, and so is a tree that is too deep (readers and `Drop` may
//! recurse) or too large when walked without regard to sharing (a few hundred bytes can stand for 2^64 nodes).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::HashSet;
use std::sync::Arc;

use super::node::{Id, Node, ObjectNode};
use super::{Limits, PickleError};
use crate::value::{Object, Value};

/// Text and bytes of this length weigh as much as a node.
const BYTES_PER_NODE: u64 = 16;

/// A finished node.
struct Done {
    value: Value,
    /// Nodes on its longest path down, itself included.
    height: u32,
    /// Nodes below it with sharing undone, itself included.
    expanded: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    New,
    Open,
    Finished,
}

/// Turns `root` and what it refers to into a tree.
pub(super) fn freeze(nodes: Vec<Node>, root: Id, limits: &Limits) -> Result<Value, PickleError> {
    let mut done: Vec<Option<Done>> = Vec::new();
    done.resize_with(nodes.len(), || None);
    let mut freezer =
        Freezer { progress: vec![Progress::New; nodes.len()], nodes, done, limits, open: 0, keys: 0 };
    freezer.run(root)?;
    freezer.finished(root).map(|done| done.value.clone())
}

struct Freezer<'a> {
    nodes: Vec<Node>,
    done: Vec<Option<Done>>,
    progress: Vec<Progress>,
    limits: &'a Limits,
    /// Number of open nodes: the length of the path from the root to the current node.
    open: u32,
    /// What the keys of all dicts so far count for. A long one that a million dicts share is cheap to write and dear to compare.
    keys: u64,
}

impl Freezer<'_> {
    fn run(&mut self, root: Id) -> Result<(), PickleError> {
        // Each entry is a node and whether its children have been seen to.
        let mut stack = vec![(root, false)];
        while let Some((id, children_done)) = stack.pop() {
            if children_done {
                self.finish(id)?;
                continue;
            }
            let (node, progress) = self.slot(id)?;
            match *progress {
                Progress::Finished => {}
                // The open nodes are exactly the ancestors of this reference.
                Progress::Open => return Err(PickleError::Cycle { kind: node.kind() }),
                Progress::New => {
                    *progress = Progress::Open;
                    stack.push((id, true));
                    node.children(|child| stack.push((child, false)));
                    self.open = self.open.saturating_add(1);
                    if self.open > self.limits.depth {
                        return Err(PickleError::TooDeep { limit: self.limits.depth });
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, id: Id) -> Result<(), PickleError> {
        let node = std::mem::replace(self.slot(id)?.0, Node::None);
        let (mut height, mut expanded) = (0, 1u64.saturating_add(weight(&node)));
        let mut missing = false;
        node.children(|child| match self.done.get(index(child)) {
            Some(Some(done)) => {
                height = done.height.max(height);
                expanded = expanded.saturating_add(done.expanded);
            }
            _ => missing = true,
        });
        if missing {
            return Err(PickleError::TooManyValues);
        }
        let height = height.saturating_add(levels(&node));
        // The longest path need not be the one this node was first met on, so the depth is checked again here; as it will be written, so that
        // what was read can be read again.
        if height > self.limits.depth {
            return Err(PickleError::TooDeep { limit: self.limits.depth });
        }
        if expanded > self.limits.expanded {
            return Err(PickleError::TooLarge { limit: self.limits.expanded });
        }
        let value = self.value(node)?;
        if let Some(slot) = self.done.get_mut(index(id)) {
            *slot = Some(Done { value, height, expanded });
        }
        *self.slot(id)?.1 = Progress::Finished;
        self.open = self.open.saturating_sub(1);
        Ok(())
    }

    fn value(&mut self, node: Node) -> Result<Value, PickleError> {
        Ok(match node {
            Node::None => Value::None,
            Node::Bool(flag) => Value::Bool(flag),
            Node::Int(number) => Value::Int(number),
            Node::Long(bytes) => Value::Long(bytes),
            Node::Float(number) => Value::Float(number),
            Node::Str(text) => Value::Str(text),
            Node::Surrogates(bytes) => Value::Surrogates(bytes),
            Node::Bytes(bytes) => Value::Bytes(bytes),
            Node::List(ids) => Value::List(self.values(&ids)?.into()),
            Node::Tuple(ids) => Value::Tuple(self.values(ids.all())?.into()),
            Node::Set(ids) => Value::Set(self.values(&ids)?.into()),
            Node::FrozenSet(ids) => Value::FrozenSet(self.values(&ids)?.into()),
            Node::Dict(items) => Value::Dict(self.items(&items)?.into()),
            Node::Global(global) => Value::Global(global),
            Node::Object(object) => Value::Object(Arc::new(self.object(&object)?)),
            Node::Persistent(id) => Value::Persistent(Arc::new(self.finished(id)?.value.clone())),
            // Nothing is taken out of what becomes a tree.
            Node::Taken(_) => return Err(PickleError::TooManyValues),
        })
    }

    fn object(&mut self, object: &ObjectNode) -> Result<Object, PickleError> {
        Ok(Object {
            construct: object.construct,
            callable: self.finished(object.callable)?.value.clone(),
            args: self.finished(object.args)?.value.clone(),
            appended: self.values(object.appended())?,
            items: self.items(object.items())?,
            state: object.state.map(|id| Ok(self.finished(id)?.value.clone())).transpose()?,
        })
    }

    fn values(&self, ids: &[Id]) -> Result<Vec<Value>, PickleError> {
        ids.iter().map(|id| Ok(self.finished(*id)?.value.clone())).collect()
    }

    /// Items of a dict. `Value::get` returns the first match and Python keeps the last, so keys must not repeat.
    fn items(&mut self, ids: &[(Id, Id)]) -> Result<Vec<(Value, Value)>, PickleError> {
        let (mut texts, mut odd_texts, mut numbers) = (HashSet::new(), HashSet::new(), HashSet::new());
        let mut items = Vec::with_capacity(ids.len());
        for (key, value) in ids {
            let Done { value: key, expanded, .. } = self.finished(*key)?;
            let (key, expanded) = (key.clone(), *expanded);
            self.keys = self.keys.saturating_add(expanded);
            if self.keys > self.limits.expanded {
                return Err(PickleError::TooLarge { limit: self.limits.expanded });
            }
            let fresh = match &key {
                Value::Str(text) => texts.insert(Arc::clone(text)),
                Value::Surrogates(bytes) => odd_texts.insert(Arc::clone(bytes)),
                // To Python True is 1, and 1.0 is 1.
                Value::Int(number) => numbers.insert(*number),
                Value::Bool(flag) => numbers.insert(i64::from(*flag)),
                Value::Float(number) => integral(*number).is_none_or(|number| numbers.insert(number)),
                _ => true,
            };
            if !fresh {
                return Err(PickleError::DuplicateKey { key: shown(&key) });
            }
            items.push((key, self.finished(*value)?.value.clone()));
        }
        Ok(items)
    }

    fn slot(&mut self, id: Id) -> Result<(&mut Node, &mut Progress), PickleError> {
        // Numbers come from the machine, so they are always in range; the error only keeps this total.
        let node = self.nodes.get_mut(index(id)).ok_or(PickleError::TooManyValues)?;
        let progress = self.progress.get_mut(index(id)).ok_or(PickleError::TooManyValues)?;
        Ok((node, progress))
    }

    fn finished(&self, id: Id) -> Result<&Done, PickleError> {
        self.done.get(index(id)).and_then(Option::as_ref).ok_or(PickleError::TooManyValues)
    }
}

/// The number that Python takes this one for where it is a key.
fn integral(number: f64) -> Option<i64> {
    let whole = number as i64;
    (number.fract() == 0.0 && whole as f64 == number).then_some(whole)
}

/// A key as a message can hold it.
fn shown(key: &Value) -> String {
    match key {
        Value::Str(text) => format!("{:?}", text.chars().take(80).collect::<String>()),
        Value::Surrogates(bytes) => {
            format!("{:?}", String::from_utf8_lossy(bytes).chars().take(80).collect::<String>())
        }
        Value::Int(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Float(number) => number.to_string(),
        other => other.kind().to_owned(),
    }
}

fn index(id: Id) -> usize {
    id as usize
}

/// What a node's own bytes count for.
fn weight(node: &Node) -> u64 {
    let bytes = match node {
        Node::Str(text) => text.len(),
        Node::Bytes(bytes) | Node::Long(bytes) | Node::Surrogates(bytes) => bytes.len(),
        Node::Global(global) => global.module.len().saturating_add(global.name.len()),
        _ => 0,
    };
    (bytes as u64).checked_div(BYTES_PER_NODE).unwrap_or(0)
}

/// How deep a node lies above its children, as protocol 2 writes it.
fn levels(node: &Node) -> u32 {
    match node {
        // A call of one argument, a list or a text.
        Node::Set(_) | Node::FrozenSet(_) | Node::Bytes(_) => 3,
        _ => 1,
    }
}
