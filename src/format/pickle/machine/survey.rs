//! What a pickle names, whatever else is wrong with it: opcodes that no checkpoint has are followed too, and an error ends it with what was
//! seen so far.
//!
//! For people who want to know what loading would run. Not here: values; nothing that is found here becomes one.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::super::consume::{Consumer, Nothing};
use super::super::memo::Memo;
use super::super::node::{Id, Ids, Node};
use super::super::opcode as op;
use super::super::{PickleError, Survey};
use super::Machine;
use crate::value::{Construct, Global};

/// Goes through the pickle at the start of `bytes`.
pub(in crate::format::pickle) fn survey(bytes: &[u8]) -> Survey {
    let mut machine = Machine::new(bytes, Memo::new(bytes.len(), None), Nothing);
    machine.surveys = true;
    let problem = machine.run().err();
    Survey { globals: machine.uses(), len: machine.input.at(), problem }
}

impl<C: Consumer> Machine<'_, C> {
    /// An opcode that the decoder refuses, as CPython's machine would follow it.
    pub(super) fn foreign(&mut self, code: u8) -> Result<(), C::Error> {
        match code {
            b'i' | b'o' | 0x92 => self.instance(code),
            _ => Ok(self.other(code)?),
        }
    }

    /// An object, by class and arguments.
    fn instance(&mut self, code: u8) -> Result<(), C::Error> {
        match code {
            b'i' => {
                let (module, name) = (self.input.line()?.into(), self.input.line()?.into());
                let args = self.pop_mark()?;
                self.named(module, name)?;
                self.made(Construct::Call, args)
            }
            b'o' => {
                let mut args = self.pop_mark()?.into_iter();
                let callable = args.next().ok_or_else(|| self.underflow())?;
                self.push_id(callable)?;
                self.made(Construct::Call, args.collect())
            }
            // Class, arguments, arguments by name.
            _ => {
                let args = self.pop_many(2)?;
                self.made(Construct::New, args)
            }
        }
    }

    fn other(&mut self, code: u8) -> Result<(), PickleError> {
        match code {
            // A number that stands for a class where the program that loads has registered one.
            0x82 => self.extension(1),
            0x83 => self.extension(2),
            0x84 => self.extension(4),
            b'P' => {
                let id = self.input.line()?.into();
                self.push(Node::Str(id))?;
                let id = self.pop()?;
                self.push(Node::Persistent(id))
            }
            b'S' | b'V' => {
                let text = unescaped(self.input.line()?);
                self.push(Node::Str(text.into()))
            }
            b'T' | b'U' => {
                let count = if code == b'U' { self.input.u8()?.into() } else { self.input.u32()? };
                let text = String::from_utf8_lossy(self.input.take(count.into())?);
                self.push(Node::Str(text.into()))
            }
            0x96 => {
                let count = self.input.u64()?;
                let bytes = self.input.take(count)?;
                self.push(Node::Bytes(bytes.into()))
            }
            0x97 => self.push(Node::Bytes([].into())),
            0x98 => Ok(()),
            _ => Err(PickleError::UnsupportedOpcode { code, name: op::name(code), offset: self.offset }),
        }
    }

    fn extension(&mut self, len: u64) -> Result<(), PickleError> {
        let digits = self.input.take(len)?.iter().rev();
        let number = digits.fold(0u32, |number, digit| number << 8 | u32::from(*digit));
        self.named("copyreg".into(), format!("extension {number}").into())
    }

    fn named(&mut self, module: Arc<str>, name: Arc<str>) -> Result<(), PickleError> {
        self.push(Node::Global(Arc::new(Global { module, name })))
    }

    /// What the value on top of the stack makes of these arguments.
    fn made(&mut self, construct: Construct, args: Vec<Id>) -> Result<(), C::Error> {
        self.push(Node::Tuple(Ids::new(&args)))?;
        self.construct(construct)
    }

    /// How often each class and function is used: as a callable, within something else, or as the last that was seen. One that is named and
    /// dropped counts once.
    fn uses(&self) -> Vec<(Global, u64)> {
        let mut by_node: HashMap<Id, u64> = HashMap::new();
        let mut count = |id: Id| {
            if matches!(self.node(id), Some(Node::Global(_))) {
                let uses = by_node.entry(id).or_default();
                *uses = uses.saturating_add(1);
            }
        };
        self.nodes.iter().for_each(|node| node.children(&mut count));
        self.stack.iter().copied().for_each(&mut count);
        let mut all: BTreeMap<Global, u64> = BTreeMap::new();
        for (id, node) in self.nodes.iter().enumerate() {
            let Node::Global(global) = node else { continue };
            let uses = Id::try_from(id).ok().and_then(|id| by_node.get(&id)).copied().unwrap_or(1);
            let sum = all.entry((**global).clone()).or_default();
            *sum = sum.saturating_add(uses);
        }
        all.into_iter().collect()
    }
}

/// Text of protocol 0, in which a character may stand as its number and a string in quotes. A name must not hide behind that.
fn unescaped(text: &str) -> String {
    let inner = text.trim_matches(['\'', '"']);
    let mut out = String::new();
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        let digits = match (c, rest.as_str().chars().next()) {
            ('\\', Some('x')) => 2,
            ('\\', Some('u')) => 4,
            ('\\', Some('U')) => 8,
            _ => {
                out.push(c);
                continue;
            }
        };
        let number: String = rest.as_str().chars().skip(1).take(digits).collect();
        match u32::from_str_radix(&number, 16).ok().and_then(char::from_u32) {
            Some(meant) => {
                out.push(meant);
                rest = rest.as_str().get(number.len().saturating_add(1)..).unwrap_or_default().chars();
            }
            None => out.push(c),
        }
    }
    out
}
