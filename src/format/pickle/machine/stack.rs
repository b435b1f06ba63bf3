//! The stack, its marks and the memo.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::super::PickleError;
use super::super::consume::{Consumer, Item};
use super::super::node::{Id, Node};
use super::super::opcode as op;
use super::{Machine, bounded};

impl<C: Consumer> Machine<'_, C> {
    #[inline]
    pub(super) fn put(&mut self) -> Result<(), PickleError> {
        let index = match self.code {
            op::MEMOIZE => self.memo.next(),
            _ => self.memo_index()?,
        };
        let top = self.top()?;
        self.memo.put(index, top);
        bounded(self.memo.len())
    }

    #[inline]
    pub(super) fn get(&mut self) -> Result<(), PickleError> {
        let index = self.memo_index()?;
        match self.memo.get(index) {
            // Of what was taken only the number goes on.
            Some(id) => match self.node(id) {
                Some(Node::Taken(taken)) => self.push_id(*taken),
                _ => self.push_id(id),
            },
            None => Err(PickleError::UnknownMemo { name: op::name(self.code), offset: self.offset, index }),
        }
    }

    #[inline]
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

    pub(super) fn node(&self, id: Id) -> Option<&Node> {
        self.nodes.get(usize::try_from(id).ok()?)
    }

    /// A value, to be looked at.
    fn item(&self, id: Id) -> Item<'_> {
        Item::new(&self.nodes, id)
    }

    #[inline]
    pub(super) fn push(&mut self, node: Node) -> Result<(), PickleError> {
        // One more than may be must not make room for as many again.
        bounded(self.nodes.len().saturating_add(1))?;
        let id = Id::try_from(self.nodes.len()).map_err(|_| PickleError::TooManyValues)?;
        self.nodes.push(node);
        self.push_id(id)
    }

    #[inline]
    pub(super) fn push_id(&mut self, id: Id) -> Result<(), PickleError> {
        bounded(self.stack.len().saturating_add(1))?;
        self.stack.push(id);
        Ok(())
    }

    /// Values above the innermost mark. What is below it is out of reach for all but the opcodes that close the mark.
    fn available(&self) -> usize {
        self.stack.len().saturating_sub(self.marks.last().copied().unwrap_or(0))
    }

    pub(super) fn pop(&mut self) -> Result<Id, PickleError> {
        if self.available() == 0 {
            return Err(self.underflow());
        }
        self.stack.pop().ok_or_else(|| self.underflow())
    }

    pub(super) fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, PickleError> {
        let height = self.height_of(count)?;
        Ok(self.stack.split_off(height))
    }

    /// Closes the innermost mark and takes everything above it.
    pub(super) fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let height = self.close_mark()?;
        Ok(self.stack.split_off(height))
    }

    /// Where the topmost `count` values begin.
    pub(super) fn height_of(&self, count: usize) -> Result<usize, PickleError> {
        if self.available() < count {
            return Err(self.underflow());
        }
        Ok(self.stack.len().saturating_sub(count))
    }

    /// Closes the innermost mark: where the values above it begin.
    pub(super) fn close_mark(&mut self) -> Result<usize, PickleError> {
        match self.marks.pop() {
            // Nothing pops below a mark, so the stack is at least this high.
            Some(height) => Ok(height.min(self.stack.len())),
            None => Err(PickleError::NoMark { name: op::name(self.code), offset: self.offset }),
        }
    }

    /// The value below those that begin at `height`.
    pub(super) fn below(&self, height: usize) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let below = height.checked_sub(1).filter(|below| *below >= floor);
        below.and_then(|below| self.stack.get(below)).copied().ok_or_else(|| self.underflow())
    }

    pub(super) fn pop_or_mark(&mut self) -> Result<(), PickleError> {
        if self.available() == 0 && self.marks.pop().is_some() {
            return Ok(());
        }
        self.pop().map(drop)
    }

    pub(super) fn top(&self) -> Result<Id, PickleError> {
        if self.available() == 0 {
            return Err(self.underflow());
        }
        self.stack.last().copied().ok_or_else(|| self.underflow())
    }

    pub(super) fn pair_up<'i>(
        &self,
        flat: &'i [Id],
    ) -> Result<impl ExactSizeIterator<Item = (Id, Id)> + use<'i, C>, PickleError> {
        let (pairs, rest) = flat.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.operand_called("keys and values in pairs", "a key without a value"));
        }
        Ok(pairs.iter().map(|[key, value]| (*key, *value)))
    }

    pub(super) fn underflow(&self) -> PickleError {
        PickleError::StackUnderflow { name: op::name(self.code), offset: self.offset }
    }

    pub(super) fn operand(&self, expected: &'static str, found: Id) -> PickleError {
        self.operand_called(expected, self.item(found).kind())
    }

    fn operand_called(&self, expected: &'static str, found: &'static str) -> PickleError {
        PickleError::Operand { name: op::name(self.code), offset: self.offset, expected, found }
    }
}
