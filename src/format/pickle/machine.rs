//! The stack machine: opcodes in, an arena of nodes out.
//!
//! It follows CPython's `_pickle.c`, except that it refuses what no pickler writes: values left over, state set twice, items set after
//! the state.
//!
//! A consumer may take objects as they are finished; then what nothing refers to any more is dropped while it runs (`sweep`), so that a
//! pickle of any length is decoded in the room of what is left.
//!
//! Not here: turning nodes into a tree (`freeze`).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod literals;
mod stack;
mod survey;
mod sweep;

pub(super) use survey::survey;

use std::sync::Arc;

use super::PickleError;
use super::consume::{Consumer, Item, Made, Nothing};
use super::cursor::Cursor;
use super::memo::{Fetched, Memo};
use super::node::{Id, Ids, Node, ObjectNode};
use super::opcode as op;
use crate::value::{Construct, Global};

/// Decodes `bytes` into nodes and the number of the root.
pub(super) fn run(bytes: &[u8]) -> Result<(Vec<Node>, Id), PickleError> {
    let mut machine = Machine::new(bytes, Memo::new(bytes.len(), None), Nothing);
    let root = machine.run()?;
    machine.check_end()?;
    Ok((machine.nodes, root))
}

/// Decodes `bytes`, gives `consumer` what it takes, and at last the root.
pub(super) fn consume<C: Consumer, T>(
    bytes: &[u8],
    consumer: C,
    finish: impl FnOnce(C, Item<'_>) -> Result<T, C::Error>,
) -> Result<T, C::Error> {
    let mut machine = Machine::new(bytes, Memo::new(bytes.len(), Fetched::of(bytes)), consumer);
    machine.sweep_at = sweep::FIRST;
    let root = machine.run()?;
    machine.check_end()?;
    finish(machine.consumer, Item::new(&machine.nodes, root))
}

/// More values, open marks or memo entries has no checkpoint whose pickle is read at all: one tensor makes about 25 of them, in 200 bytes.
/// Without a bound a file of single-byte opcodes takes a hundred times its size.
const MOST: usize = 1 << 23;

const NONE: Id = 0;
const TRUE: Id = 1;
const FALSE: Id = 2;
const UNIT: Id = 3;

struct Machine<'a, C> {
    input: Cursor<'a>,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Height of the stack at each open mark.
    marks: Vec<usize>,
    memo: Memo,
    /// The opcode being run and where it is, for errors.
    code: u8,
    offset: usize,
    /// Whether opcodes that no checkpoint has are followed too, to see what they name.
    surveys: bool,
    consumer: C,
    /// Numbers that were put into containers since nodes were last dropped, and those that were left then.
    held: usize,
    /// Nodes and numbers in containers at which to see what can be dropped.
    sweep_at: usize,
    /// What became of each node: kept from one time to the next, empty between.
    renumbered: Vec<Id>,
}

impl<'a, C: Consumer> Machine<'a, C> {
    fn new(bytes: &'a [u8], memo: Memo, consumer: C) -> Self {
        Self {
            input: Cursor::new(bytes),
            // The constants have one node each: NONE is a single byte and may occur as often as there are bytes.
            nodes: vec![Node::None, Node::Bool(true), Node::Bool(false), Node::Tuple(Ids::new(&[]))],
            stack: Vec::new(),
            marks: Vec::new(),
            memo,
            code: 0,
            offset: 0,
            surveys: false,
            consumer,
            held: 0,
            sweep_at: usize::MAX,
            renumbered: Vec::new(),
        }
    }
}

impl<C: Consumer> Machine<'_, C> {
    fn run(&mut self) -> Result<Id, C::Error> {
        loop {
            if self.nodes.len().saturating_add(self.held) >= self.sweep_at {
                self.sweep()?;
            }
            self.offset = self.input.at();
            self.code = self.input.u8()?;
            if self.code == op::STOP {
                return Ok(self.stop()?);
            }
            self.step()?;
        }
    }

    /// A pickle is all of its record.
    fn check_end(&self) -> Result<(), PickleError> {
        match (self.input.at(), self.input.left()) {
            (_, 0) => Ok(()),
            (offset, count) => Err(PickleError::TrailingBytes { offset, count }),
        }
    }

    fn stop(&self) -> Result<Id, PickleError> {
        match (self.stack.as_slice(), self.marks.as_slice()) {
            (&[root], []) => Ok(root),
            (stack, marks) => Err(PickleError::UnbalancedStop { count: stack.len(), marks: marks.len() }),
        }
    }

    fn step(&mut self) -> Result<(), C::Error> {
        match self.code {
            op::REDUCE => return self.construct(Construct::Call),
            op::NEWOBJ => return self.construct(Construct::New),
            op::BUILD => return self.build(),
            op::PROTO => self.protocol(),
            op::FRAME => self.frame(),
            op::MARK => {
                bounded(self.marks.len().saturating_add(1))?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::POP => self.pop_or_mark(),
            op::POP_MARK => self.pop_mark().map(drop),
            op::DUP => {
                let top = self.top()?;
                self.push_id(top)
            }
            op::NONE => self.push_id(NONE),
            op::NEWTRUE => self.push_id(TRUE),
            op::NEWFALSE => self.push_id(FALSE),
            op::INT
            | op::LONG
            | op::FLOAT
            | op::BININT
            | op::BININT1
            | op::BININT2
            | op::LONG1
            | op::LONG4
            | op::BINFLOAT => self.number(),
            op::SHORT_BINUNICODE | op::BINUNICODE | op::BINUNICODE8 => self.text(),
            op::SHORT_BINBYTES | op::BINBYTES | op::BINBYTES8 => self.bytes(),
            op::EMPTY_TUPLE => self.push_id(UNIT),
            op::EMPTY_LIST | op::EMPTY_DICT | op::EMPTY_SET => self.empty(),
            op::LIST | op::DICT | op::TUPLE | op::FROZENSET => self.collect(),
            op::TUPLE1 | op::TUPLE2 | op::TUPLE3 => self.short_tuple(),
            op::APPEND | op::APPENDS | op::ADDITEMS => self.append(),
            op::SETITEM | op::SETITEMS => self.set_items(),
            op::GLOBAL | op::STACK_GLOBAL => self.global(),
            op::BINPERSID => {
                let id = self.pop()?;
                self.push(Node::Persistent(id))
            }
            op::PUT | op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => self.put(),
            op::GET | op::BINGET | op::LONG_BINGET => self.get(),
            code if self.surveys => return self.foreign(code),
            code => Err(PickleError::UnsupportedOpcode { code, name: op::name(code), offset: self.offset }),
        }?;
        Ok(())
    }

    fn protocol(&mut self) -> Result<(), PickleError> {
        let found = self.input.u8()?;
        if found > 5 {
            return Err(PickleError::Protocol { found, offset: self.offset });
        }
        Ok(())
    }

    /// A frame only says that so many bytes follow; that they are there is all there is to check.
    fn frame(&mut self) -> Result<(), PickleError> {
        let need = self.input.u64()?;
        let have = self.input.left();
        if need > have as u64 {
            return Err(PickleError::Truncated { offset: self.input.at(), need, have });
        }
        Ok(())
    }

    fn empty(&mut self) -> Result<(), PickleError> {
        self.push(match self.code {
            op::EMPTY_LIST => Node::List(Vec::new()),
            op::EMPTY_DICT => Node::Dict(Vec::new()),
            _ => Node::Set(Vec::new()),
        })
    }

    fn collect(&mut self) -> Result<(), PickleError> {
        let items = self.pop_mark()?;
        self.held = self.held.saturating_add(items.len());
        let node = match self.code {
            op::LIST => Node::List(items),
            op::DICT => Node::Dict(self.pair_up(&items)?.collect()),
            op::FROZENSET => Node::FrozenSet(items),
            _ => Node::Tuple(Ids::new(&items)),
        };
        self.push(node)
    }

    fn short_tuple(&mut self) -> Result<(), PickleError> {
        let count = match self.code {
            op::TUPLE1 => 1,
            op::TUPLE2 => 2,
            _ => 3,
        };
        let height = self.height_of(count)?;
        let items = Ids::new(self.stack.get(height..).unwrap_or_default());
        self.held = self.held.saturating_add(count);
        self.stack.truncate(height);
        self.push(Node::Tuple(items))
    }

    fn append(&mut self) -> Result<(), PickleError> {
        let height = if self.code == op::APPEND { self.height_of(1)? } else { self.close_mark()? };
        let set = self.code == op::ADDITEMS;
        let target = self.below(height)?;
        let items = self.stack.get(height..).unwrap_or_default();
        self.held = self.held.saturating_add(items.len());
        match self.nodes.get_mut(target as usize) {
            Some(Node::List(list)) if !set => list.extend(items),
            Some(Node::Set(members)) if set => members.extend(items),
            Some(Node::Object(object)) if !set && object.state.is_none() && object.items().is_empty() => {
                object.contents().appended.extend(items);
            }
            _ => {
                let expected = if set { "a set" } else { "a list or a new object" };
                return Err(self.operand(expected, target));
            }
        }
        self.stack.truncate(height);
        Ok(())
    }

    fn set_items(&mut self) -> Result<(), PickleError> {
        let height = if self.code == op::SETITEM { self.height_of(2)? } else { self.close_mark()? };
        let target = self.below(height)?;
        let flat = self.stack.get(height..).unwrap_or_default();
        let pairs = self.pair_up(flat)?;
        self.held = self.held.saturating_add(flat.len());
        match self.nodes.get_mut(target as usize) {
            Some(Node::Dict(items)) => items.extend(pairs),
            Some(Node::Object(object)) if object.state.is_none() => object.contents().items.extend(pairs),
            _ => return Err(self.operand("a dict or an object without state", target)),
        }
        self.stack.truncate(height);
        Ok(())
    }

    fn global(&mut self) -> Result<(), PickleError> {
        let (module, name) = if self.code == op::GLOBAL {
            let module: Arc<str> = self.input.line()?.into();
            (module, self.input.line()?.into())
        } else {
            let name = self.pop()?;
            let module = self.pop()?;
            (self.string(module)?, self.string(name)?)
        };
        self.push(Node::Global(Arc::new(Global { module, name })))
    }

    fn string(&self, id: Id) -> Result<Arc<str>, PickleError> {
        match self.node(id) {
            Some(Node::Str(text)) => Ok(Arc::clone(text)),
            _ => Err(self.operand("a str", id)),
        }
    }

    fn construct(&mut self, construct: Construct) -> Result<(), C::Error> {
        let args = self.pop()?;
        let callable = self.pop()?;
        if C::TAKES
            && let Some(Node::Global(class)) = self.nodes.get(callable as usize)
        {
            let made = Made { construct, class, args: Item::new(&self.nodes, args), state: None };
            if let Some(taken) = self.consumer.made(made)? {
                return Ok(self.push_id(taken.id())?);
            }
        }
        Ok(self.push(Node::Object(ObjectNode::new(construct, callable, args)))?)
    }

    fn build(&mut self) -> Result<(), C::Error> {
        let state = self.pop()?;
        let target = self.top()?;
        match self.nodes.get_mut(target as usize) {
            Some(Node::Object(object)) if object.state.is_none() => object.state = Some(state),
            _ => return Err(self.operand("an object without state", target).into()),
        }
        if C::TAKES { self.offer(target) } else { Ok(()) }
    }

    /// Shows the consumer the object on top of the stack, which was given its state.
    fn offer(&mut self, object: Id) -> Result<(), C::Error> {
        let Some(made) = Item::new(&self.nodes, object).object() else { return Ok(()) };
        let Some(taken) = self.consumer.made(made)? else { return Ok(()) };
        // Others may refer to the object too.
        if let Some(node) = self.nodes.get_mut(object as usize) {
            *node = Node::Taken(taken.id());
        }
        self.pop()?;
        Ok(self.push_id(taken.id())?)
    }
}

fn bounded(count: usize) -> Result<(), PickleError> {
    if count > MOST { Err(PickleError::TooManyValues) } else { Ok(()) }
}
