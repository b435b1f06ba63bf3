//! Taking objects out of a pickle while it is decoded: a pickle of a million small objects is never there as a whole.
//!
//! A [`Consumer`] is shown each object when it is finished. For those that it takes it answers with a number, and only that number is left;
//! what the object was made of is dropped unless something else refers to it. Not here: the machine that makes them (`machine`).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "a test may panic")]
mod tests;

use std::sync::Arc;

use super::PickleError;
use super::node::{Id, Node, ObjectNode, SMALL, TAKEN};
use crate::value::{Construct, Global};

/// Takes finished objects, and leaves numbers in their place.
pub trait Consumer {
    /// Why a pickle is refused.
    type Error: From<PickleError>;

    /// Whether it takes anything at all.
    const TAKES: bool = true;

    /// An object that was just made by `REDUCE` or `NEWOBJ`, or given its state by `BUILD`: what stands for it from now on, or `None` to leave
    /// it as it is. One that is left when it is made is shown again with its state.
    ///
    /// # Errors
    /// [`Self::Error`], which ends the decoding.
    fn made(&mut self, made: Made<'_>) -> Result<Option<Taken>, Self::Error>;
}

/// A number that stands for an object that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken(u32);

impl Taken {
    /// `None` for numbers of 2^31 and more.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (number < TAKEN).then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }

    pub(super) fn id(self) -> Id {
        self.0 | TAKEN
    }
}

/// An object of a class that the pickle names, as it was made. Nothing was appended to it or set in it.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a> {
    /// How it was made.
    pub construct: Construct,
    /// Its class, or the function that was called.
    pub class: &'a Global,
    /// Its arguments.
    pub args: Item<'a>,
    /// Its state, where it has been given one.
    pub state: Option<Item<'a>>,
}

/// A value in a pickle that is being decoded.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    nodes: &'a [Node],
    id: Id,
}

impl std::fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Item({})", self.kind())
    }
}

impl<'a> Item<'a> {
    pub(super) fn new(nodes: &'a [Node], id: Id) -> Self {
        Self { nodes, id }
    }

    fn node(self) -> Option<&'a Node> {
        self.nodes.get(usize::try_from(self.id).ok()?)
    }

    /// What was taken, where it is that.
    #[must_use]
    pub fn taken(self) -> Option<Taken> {
        match self.node() {
            None => (self.id >= TAKEN).then_some(Taken(self.id & !TAKEN)),
            Some(Node::Taken(id)) => Some(Taken(id & !TAKEN)),
            Some(_) => None,
        }
    }

    /// Whether it is `None`.
    #[must_use]
    pub fn is_none(self) -> bool {
        matches!(self.node(), Some(Node::None))
    }

    /// The number of an `int` of 64 bits.
    #[must_use]
    pub fn int(self) -> Option<i64> {
        match self.node() {
            None => self.is_small().then(|| (self.id & !SMALL).into()),
            Some(Node::Int(number)) => Some(*number),
            Some(_) => None,
        }
    }

    /// The text of a `str`.
    #[must_use]
    pub fn text(self) -> Option<&'a Arc<str>> {
        match self.node()? {
            Node::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The class or function that it names.
    #[must_use]
    pub fn global(self) -> Option<&'a Global> {
        match self.node()? {
            Node::Global(global) => Some(global),
            _ => None,
        }
    }

    /// The items of a `tuple`.
    pub fn tuple(self) -> Option<impl ExactSizeIterator<Item = Item<'a>>> {
        match self.node()? {
            Node::Tuple(ids) => Some(self.each(ids.all())),
            _ => None,
        }
    }

    /// The items of a `list`.
    pub fn list(self) -> Option<impl ExactSizeIterator<Item = Item<'a>>> {
        match self.node()? {
            Node::List(ids) => Some(self.each(ids)),
            _ => None,
        }
    }

    /// Keys and values of a `dict`, in the order in which they were set; one that was set twice comes twice.
    pub fn dict(self) -> Option<impl ExactSizeIterator<Item = (Item<'a>, Item<'a>)>> {
        match self.node()? {
            Node::Dict(items) => {
                let items = items.iter();
                Some(items.map(move |(key, value)| (Item::new(self.nodes, *key), Item::new(self.nodes, *value))))
            }
            _ => None,
        }
    }

    /// An object that was left as it is: of a class that the pickle names, with nothing appended or set.
    #[must_use]
    pub fn object(self) -> Option<Made<'a>> {
        match self.node()? {
            Node::Object(object) => object.made(self.nodes),
            _ => None,
        }
    }

    /// What it is in Python, for errors.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self.node() {
            Some(node) => node.kind(),
            None if self.is_small() => "int",
            None => "finished object",
        }
    }

    fn is_small(self) -> bool {
        (SMALL..TAKEN).contains(&self.id)
    }

    fn each(self, ids: &'a [Id]) -> impl ExactSizeIterator<Item = Item<'a>> {
        ids.iter().map(move |id| Item::new(self.nodes, *id))
    }
}

impl ObjectNode {
    fn made<'a>(&self, nodes: &'a [Node]) -> Option<Made<'a>> {
        if !self.appended().is_empty() || !self.items().is_empty() {
            return None;
        }
        let item = |id| Item::new(nodes, id);
        let class = item(self.callable).global()?;
        Some(Made { construct: self.construct, class, args: item(self.args), state: self.state.map(item) })
    }
}

/// Takes nothing.
#[derive(Debug)]
pub(super) struct Nothing;

impl Consumer for Nothing {
    type Error = PickleError;

    const TAKES: bool = false;

    fn made(&mut self, _: Made<'_>) -> Result<Option<Taken>, PickleError> {
        Ok(None)
    }
}
