//! Nodes of a pickle while it is being decoded: mutable, and referred to by number, so that cycles cost nothing and do no harm.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use crate::value::{Construct, Global};

/// Number of a node.
pub(super) type Id = u32;

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
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Set(Vec<Id>),
    FrozenSet(Vec<Id>),
    Global(Arc<Global>),
    // Boxed, because most nodes are a few bytes and this one is not.
    Object(Box<ObjectNode>),
    Persistent(Id),
}

/// See [`crate::value::Object`].
#[derive(Debug)]
pub(super) struct ObjectNode {
    pub(super) construct: Construct,
    pub(super) callable: Id,
    pub(super) args: Id,
    pub(super) appended: Vec<Id>,
    pub(super) items: Vec<(Id, Id)>,
    pub(super) state: Option<Id>,
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
        }
    }

    /// Calls `visit` with the number of each child.
    pub(super) fn children(&self, mut visit: impl FnMut(Id)) {
        match self {
            Self::List(ids) | Self::Tuple(ids) | Self::Set(ids) | Self::FrozenSet(ids) => {
                ids.iter().copied().for_each(visit);
            }
            Self::Dict(items) => pairs(items, &mut visit),
            Self::Object(object) => {
                visit(object.callable);
                visit(object.args);
                object.appended.iter().copied().for_each(&mut visit);
                pairs(&object.items, &mut visit);
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
            | Self::Global(_) => {}
        }
    }
}

fn pairs(items: &[(Id, Id)], visit: &mut impl FnMut(Id)) {
    for (key, value) in items {
        visit(*key);
        visit(*value);
    }
}
