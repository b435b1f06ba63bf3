//! The stack machine: opcodes in, an arena of nodes out.
//!
//! It follows CPython's `_pickle.c`, except that it refuses what no pickler writes: values left over, state set twice, items set after
//! the state.
//!
//! Not here: turning nodes into a tree (`freeze`).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod literals;
mod survey;

pub(super) use survey::survey;

use std::collections::HashMap;
use std::sync::Arc;

use super::PickleError;
use super::cursor::Cursor;
use super::node::{Id, Node, ObjectNode};
use super::opcode as op;
use crate::value::{Construct, Global};

/// Decodes `bytes` into nodes and the number of the root.
pub(super) fn run(bytes: &[u8]) -> Result<(Vec<Node>, Id), PickleError> {
    let mut machine = Machine::new(bytes);
    let root = machine.run()?;
    machine.check_end()?;
    Ok((machine.nodes, root))
}

/// More values, open marks or memo entries has no checkpoint whose pickle is read at all: one tensor makes about 25 of them, in 200 bytes.
/// Without a bound a file of single-byte opcodes takes a hundred times its size.
const MOST: usize = 1 << 23;

const NONE: Id = 0;
const TRUE: Id = 1;
const FALSE: Id = 2;

struct Machine<'a> {
    input: Cursor<'a>,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Height of the stack at each open mark.
    marks: Vec<usize>,
    // A map and not a vector: indices come from the input and may be as large as it likes.
    memo: HashMap<u64, Id>,
    /// The opcode being run and where it is, for errors.
    code: u8,
    offset: usize,
    /// Whether opcodes that no checkpoint has are followed too, to see what they name.
    surveys: bool,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            input: Cursor::new(bytes),
            // The three constants have one node each: NONE is a single byte and may occur as often as there are bytes.
            nodes: vec![Node::None, Node::Bool(true), Node::Bool(false)],
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            code: 0,
            offset: 0,
            surveys: false,
        }
    }
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Id, PickleError> {
        loop {
            self.offset = self.input.at();
            self.code = self.input.u8()?;
            if self.code == op::STOP {
                return self.stop();
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

    fn step(&mut self) -> Result<(), PickleError> {
        match self.code {
            op::PROTO => self.protocol(),
            op::FRAME => self.frame(),
            op::MARK => {
                self.marks.push(self.stack.len());
                bounded(self.marks.len())
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
            op::EMPTY_LIST | op::EMPTY_DICT | op::EMPTY_SET | op::EMPTY_TUPLE => self.empty(),
            op::LIST | op::DICT | op::TUPLE | op::FROZENSET => self.collect(),
            op::TUPLE1 | op::TUPLE2 | op::TUPLE3 => self.short_tuple(),
            op::APPEND | op::APPENDS | op::ADDITEMS => self.append(),
            op::SETITEM | op::SETITEMS => self.set_items(),
            op::GLOBAL | op::STACK_GLOBAL => self.global(),
            op::REDUCE => self.construct(Construct::Call),
            op::NEWOBJ => self.construct(Construct::New),
            op::BUILD => self.build(),
            op::BINPERSID => {
                let id = self.pop()?;
                self.push(Node::Persistent(id))
            }
            op::PUT | op::BINPUT | op::LONG_BINPUT | op::MEMOIZE => self.put(),
            op::GET | op::BINGET | op::LONG_BINGET => self.get(),
            code if self.surveys => self.foreign(code),
            code => Err(PickleError::UnsupportedOpcode { code, name: op::name(code), offset: self.offset }),
        }
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
            op::EMPTY_SET => Node::Set(Vec::new()),
            _ => Node::Tuple(Vec::new()),
        })
    }

    fn collect(&mut self) -> Result<(), PickleError> {
        let items = self.pop_mark()?;
        let node = match self.code {
            op::LIST => Node::List(items),
            op::DICT => Node::Dict(self.pair_up(&items)?),
            op::FROZENSET => Node::FrozenSet(items),
            _ => Node::Tuple(items),
        };
        self.push(node)
    }

    fn short_tuple(&mut self) -> Result<(), PickleError> {
        let count = match self.code {
            op::TUPLE1 => 1,
            op::TUPLE2 => 2,
            _ => 3,
        };
        let items = self.pop_many(count)?;
        self.push(Node::Tuple(items))
    }

    fn append(&mut self) -> Result<(), PickleError> {
        let items = if self.code == op::APPEND { self.pop_many(1)? } else { self.pop_mark()? };
        let set = self.code == op::ADDITEMS;
        match self.target()? {
            Node::List(list) if !set => list.extend(items),
            Node::Set(members) if set => members.extend(items),
            Node::Object(object) if !set && object.state.is_none() && object.items.is_empty() => {
                object.appended.extend(items);
            }
            other => {
                let found = other.kind();
                let expected = if set { "a set" } else { "a list or a new object" };
                return Err(self.operand(expected, found));
            }
        }
        Ok(())
    }

    fn set_items(&mut self) -> Result<(), PickleError> {
        let flat = if self.code == op::SETITEM { self.pop_many(2)? } else { self.pop_mark()? };
        let pairs = self.pair_up(&flat)?;
        match self.target()? {
            Node::Dict(items) => items.extend(pairs),
            Node::Object(object) if object.state.is_none() => object.items.extend(pairs),
            other => {
                let found = other.kind();
                return Err(self.operand("a dict or an object without state", found));
            }
        }
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
            other => Err(self.operand("a str", other.map_or("nothing", Node::kind))),
        }
    }

    fn construct(&mut self, construct: Construct) -> Result<(), PickleError> {
        let args = self.pop()?;
        let callable = self.pop()?;
        self.push(Node::Object(Box::new(ObjectNode {
            construct,
            callable,
            args,
            appended: Vec::new(),
            items: Vec::new(),
            state: None,
        })))
    }

    fn build(&mut self) -> Result<(), PickleError> {
        let state = self.pop()?;
        match self.target()? {
            Node::Object(object) if object.state.is_none() => {
                object.state = Some(state);
                Ok(())
            }
            other => {
                let found = other.kind();
                Err(self.operand("an object without state", found))
            }
        }
    }

    fn put(&mut self) -> Result<(), PickleError> {
        let index = match self.code {
            op::MEMOIZE => self.memo.len() as u64,
            _ => self.memo_index()?,
        };
        let top = self.top()?;
        self.memo.insert(index, top);
        bounded(self.memo.len())
    }

    fn get(&mut self) -> Result<(), PickleError> {
        let index = self.memo_index()?;
        match self.memo.get(&index) {
            Some(id) => self.push_id(*id),
            None => Err(PickleError::UnknownMemo { name: op::name(self.code), offset: self.offset, index }),
        }
    }

    fn memo_index(&mut self) -> Result<u64, PickleError> {
        let offset = self.input.at();
        match self.code {
            op::BINPUT | op::BINGET => self.input.u8().map(u64::from),
            op::LONG_BINPUT | op::LONG_BINGET => self.input.u32().map(u64::from),
            code => {
                let text = self.input.line()?;
                text.parse().map_err(|_| PickleError::BadNumber { name: op::name(code), offset })
            }
        }
    }

    fn node(&self, id: Id) -> Option<&Node> {
        self.nodes.get(usize::try_from(id).ok()?)
    }

    fn push(&mut self, node: Node) -> Result<(), PickleError> {
        let id = Id::try_from(self.nodes.len()).map_err(|_| PickleError::TooManyValues)?;
        self.nodes.push(node);
        bounded(self.nodes.len())?;
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<(), PickleError> {
        self.stack.push(id);
        bounded(self.stack.len())
    }

    /// Values above the innermost mark. What is below it is out of reach for all but the opcodes that close the mark.
    fn available(&self) -> usize {
        self.stack.len().saturating_sub(self.marks.last().copied().unwrap_or(0))
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        if self.available() == 0 {
            return Err(self.underflow());
        }
        self.stack.pop().ok_or_else(|| self.underflow())
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, PickleError> {
        if self.available() < count {
            return Err(self.underflow());
        }
        Ok(self.stack.split_off(self.stack.len().saturating_sub(count)))
    }

    /// Closes the innermost mark and takes everything above it.
    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let Some(height) = self.marks.pop() else {
            return Err(PickleError::NoMark { name: op::name(self.code), offset: self.offset });
        };
        // Nothing pops below a mark, so the stack is at least this high.
        Ok(self.stack.split_off(height.min(self.stack.len())))
    }

    fn pop_or_mark(&mut self) -> Result<(), PickleError> {
        if self.available() == 0 && self.marks.pop().is_some() {
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn top(&self) -> Result<Id, PickleError> {
        if self.available() == 0 {
            return Err(self.underflow());
        }
        self.stack.last().copied().ok_or_else(|| self.underflow())
    }

    /// The node on top of the stack, to be changed in place.
    fn target(&mut self) -> Result<&mut Node, PickleError> {
        let underflow = self.underflow();
        let id = usize::try_from(self.top()?).map_err(|_| PickleError::TooManyValues)?;
        self.nodes.get_mut(id).ok_or(underflow)
    }

    fn pair_up(&self, flat: &[Id]) -> Result<Vec<(Id, Id)>, PickleError> {
        let (pairs, rest) = flat.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.operand("keys and values in pairs", "a key without a value"));
        }
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    }

    fn underflow(&self) -> PickleError {
        PickleError::StackUnderflow { name: op::name(self.code), offset: self.offset }
    }

    fn operand(&self, expected: &'static str, found: &'static str) -> PickleError {
        PickleError::Operand { name: op::name(self.code), offset: self.offset, expected, found }
    }
}

fn bounded(count: usize) -> Result<(), PickleError> {
    if count > MOST { Err(PickleError::TooManyValues) } else { Ok(()) }
}
