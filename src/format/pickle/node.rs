//! Nodes of a pickle while it is being decoded: mutable, and referred to by number, so that cycles cost nothing and do no harm.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use crate::value::{Construct, Global};

/// Number of a node, or, with [`TAKEN`], of what a consumer made of one, or, with [`SMALL`], a small number itself.
pub(super) type Id = u32;

/// Set in an [`Id`] that is a consumer's: there is no node of this number.
pub(super) const TAKEN: Id = 1 << 31;

/// Set in an [`Id`] below [`TAKEN`] that is an `int` of less than this.
pub(super) const SMALL: Id = 1 << 30;

/// A node.
#[derive(Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Long(Arc<[u8]>),
    Float(f64),
    Str(Arc<str>),
    /// See [`crate::value::Value::Surrogates`].
    Surrogates(Arc<[u8]>),
    Bytes(Arc<[u8]>),
    List(Vec<Id>),
    Tuple(Ids),
    Dict(Vec<(Id, Id)>),
    Set(Vec<Id>),
    FrozenSet(Vec<Id>),
    Global(Arc<Global>),
    Object(ObjectNode),
    Persistent(Id),
    /// An object that a consumer took after it was referred to: the number that stands for it.
    Taken(Id),
}

/// Numbers that do not change any more; most tuples have three at most.
#[derive(Debug)]
pub(super) enum Ids {
    /// The first so many of these.
    Few(u8, [Id; 3]),
    Many(Box<[Id]>),
}

/// See [`crate::value::Object`].
#[derive(Debug)]
pub(super) struct ObjectNode {
    pub(super) construct: Construct,
    pub(super) callable: Id,
    pub(super) args: Id,
    pub(super) state: Option<Id>,
    /// Apart, because few objects have it, and nodes are small.
    more: Option<Box<Contents>>,
}

/// What was put into an object as into a list or a dict.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) appended: Vec<Id>,
    pub(super) items: Vec<(Id, Id)>,
}

impl Ids {
    pub(super) fn new(ids: &[Id]) -> Self {
        match *ids {
            [] => Self::Few(0, [0; 3]),
            [a] => Self::Few(1, [a, 0, 0]),
            [a, b] => Self::Few(2, [a, b, 0]),
            [a, b, c] => Self::Few(3, [a, b, c]),
            _ => Self::Many(ids.into()),
        }
    }

    pub(super) fn all(&self) -> &[Id] {
        match self {
            Self::Few(len, ids) => ids.get(..usize::from(*len)).unwrap_or_default(),
            Self::Many(ids) => ids,
        }
    }

    fn all_mut(&mut self) -> &mut [Id] {
        match self {
            Self::Few(len, ids) => ids.get_mut(..usize::from(*len)).unwrap_or_default(),
            Self::Many(ids) => ids,
        }
    }
}

impl ObjectNode {
    pub(super) fn new(construct: Construct, callable: Id, args: Id) -> Self {
        Self { construct, callable, args, state: None, more: None }
    }

    pub(super) fn appended(&self) -> &[Id] {
        self.more.as_ref().map_or(&[], |more| &more.appended)
    }

    pub(super) fn items(&self) -> &[(Id, Id)] {
        self.more.as_ref().map_or(&[], |more| &more.items)
    }

    pub(super) fn contents(&mut self) -> &mut Contents {
        self.more.get_or_insert_default()
    }
}

impl Node {
    /// What it is, for errors.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::Long(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) | Self::Surrogates(_) => "str",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Set(_) => "set",
            Self::FrozenSet(_) => "frozenset",
            Self::Global(_) => "global",
            Self::Object(_) => "object",
            Self::Persistent(_) => "persistent id",
            Self::Taken(_) => "finished object",
        }
    }

    /// Calls `visit` with the number of each child.
    pub(super) fn children(&self, mut visit: impl FnMut(Id)) {
        match self {
            Self::List(ids) | Self::Set(ids) | Self::FrozenSet(ids) => ids.iter().copied().for_each(visit),
            Self::Tuple(ids) => ids.all().iter().copied().for_each(visit),
            Self::Dict(items) => pairs(items, &mut visit),
            Self::Object(object) => {
                visit(object.callable);
                visit(object.args);
                object.appended().iter().copied().for_each(&mut visit);
                pairs(object.items(), &mut visit);
                object.state.into_iter().for_each(visit);
            }
            Self::Persistent(id) => visit(*id),
            Self::None
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Long(_)
            | Self::Float(_)
            | Self::Str(_)
            | Self::Surrogates(_)
            | Self::Bytes(_)
            | Self::Global(_)
            | Self::Taken(_) => {}
        }
    }

    /// Calls `change` with each child, to give it another number.
    pub(super) fn renumber(&mut self, mut change: impl FnMut(&mut Id)) {
        match self {
            Self::List(ids) | Self::Set(ids) | Self::FrozenSet(ids) => ids.iter_mut().for_each(change),
            Self::Tuple(ids) => ids.all_mut().iter_mut().for_each(change),
            Self::Dict(items) => items.iter_mut().flat_map(|(key, value)| [key, value]).for_each(change),
            Self::Object(object) => {
                change(&mut object.callable);
                change(&mut object.args);
                object.state.iter_mut().for_each(&mut change);
                let Some(more) = &mut object.more else { return };
                more.appended.iter_mut().for_each(&mut change);
                more.items.iter_mut().flat_map(|(key, value)| [key, value]).for_each(change);
            }
            Self::Persistent(id) => change(id),
            Self::None
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Long(_)
            | Self::Float(_)
            | Self::Str(_)
            | Self::Surrogates(_)
            | Self::Bytes(_)
            | Self::Global(_)
            | Self::Taken(_) => {}
        }
    }
}

fn pairs(items: &[(Id, Id)], visit: &mut impl FnMut(Id)) {
    for (key, value) in items {
        visit(*key);
        visit(*value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_small() {
        assert_eq!(size_of::<Node>(), 32);
        let ids: Vec<Id> = (0..5).collect();
        for len in 0..=5 {
            assert_eq!(Ids::new(&ids[..len]).all(), &ids[..len]);
        }
    }
}
