//! Opcodes that push a number or a text.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::super::PickleError;
use super::super::consume::Consumer;
use super::super::integer;
use super::super::node::{Id, Node, SMALL};
use super::super::opcode as op;
use super::{FALSE, Machine, TRUE};
use crate::value::with_surrogates;

/// The number that is not one of a node, where `number` is small enough for it.
fn small(number: i64) -> Option<Id> {
    Id::try_from(number).ok().filter(|number| *number < SMALL).map(|number| number | SMALL)
}

impl<C: Consumer> Machine<'_, C> {
    pub(super) fn number(&mut self) -> Result<(), PickleError> {
        let offset = self.input.at();
        let code = self.code;
        let bad = || PickleError::BadNumber { name: op::name(code), offset };
        let node = match code {
            op::INT => match self.input.line()? {
                // Protocols 0 and 1 spell booleans like this.
                "01" => return self.push_id(TRUE),
                "00" => return self.push_id(FALSE),
                text => Node::Int(text.parse().map_err(|_| bad())?),
            },
            op::LONG => Node::Int(self.input.line()?.trim_end_matches('L').parse().map_err(|_| bad())?),
            op::FLOAT => Node::Float(self.input.line()?.parse().map_err(|_| bad())?),
            op::BININT => Node::Int(i32::from_le_bytes(self.input.array()?).into()),
            op::BININT1 => Node::Int(self.input.u8()?.into()),
            op::BININT2 => Node::Int(u16::from_le_bytes(self.input.array()?).into()),
            op::BINFLOAT => Node::Float(f64::from_be_bytes(self.input.array()?)),
            op::LONG1 => {
                let count = self.input.u8()?;
                self.long(count.into())?
            }
            _ => {
                // The length has a sign, as a relic; a negative one is an error in CPython too.
                let count = i32::from_le_bytes(self.input.array()?);
                self.long(u64::try_from(count).map_err(|_| bad())?)?
            }
        };
        match node {
            // To a consumer most numbers are sizes; as nodes they would be half of all.
            Node::Int(number) if C::TAKES => match small(number) {
                Some(id) => self.push_id(id),
                None => self.push(node),
            },
            node => self.push(node),
        }
    }

    fn long(&mut self, count: u64) -> Result<Node, PickleError> {
        let bytes = integer::shortest(self.input.take(count)?);
        Ok(integer::to_i64(bytes).map_or_else(|| Node::Long(bytes.into()), Node::Int))
    }

    /// The length that a text or bytes opcode declares: one, four or eight bytes.
    fn length(&mut self) -> Result<u64, PickleError> {
        match self.code {
            op::SHORT_BINUNICODE | op::SHORT_BINBYTES => self.input.u8().map(u64::from),
            op::BINUNICODE | op::BINBYTES => self.input.u32().map(u64::from),
            _ => self.input.u64(),
        }
    }

    pub(super) fn text(&mut self) -> Result<(), PickleError> {
        let count = self.length()?;
        let offset = self.input.at();
        let bytes = self.input.take(count)?;
        self.push(match std::str::from_utf8(bytes) {
            Ok(text) => Node::Str(text.into()),
            Err(_) if with_surrogates(bytes) => Node::Surrogates(bytes.into()),
            Err(_) => return Err(PickleError::NotUtf8 { offset }),
        })
    }

    pub(super) fn bytes(&mut self) -> Result<(), PickleError> {
        let count = self.length()?;
        let bytes = self.input.take(count)?;
        self.push(Node::Bytes(bytes.into()))
    }
}
