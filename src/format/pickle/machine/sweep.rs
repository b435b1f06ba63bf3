//! Dropping what nothing refers to any more, while a consumer takes objects out of a pickle.
//!
//! Nodes are moved together in their order and get new numbers. It is done when as much was added as half of what was left the last time, so
//! that all of it together costs a small multiple of what was added.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::super::PickleError;
use super::super::consume::Consumer;
use super::super::node::{Id, Node};
use super::{MOST, Machine};

/// As much may be there before it is worth looking. In tests of the decoder it always is.
pub(super) const FIRST: usize = if cfg!(test) { 8 } else { 1 << 16 };

/// Numbers in containers that are left. Half a gigabyte of them: fifty for each of a million objects.
const MOST_HELD: usize = 1 << 26;

/// The number of a node that is dropped.
const DROPPED: Id = Id::MAX;

impl<C: Consumer> Machine<'_, C> {
    /// Drops what neither the stack nor the memo leads to.
    pub(super) fn sweep(&mut self) -> Result<(), PickleError> {
        let mut renumbered = self.reached();
        let mut next: Id = 0;
        for (number, node) in renumbered.iter_mut().zip(&self.nodes) {
            *number = match node {
                _ if *number == DROPPED => DROPPED,
                // Those who refer to it refer to what was taken instead.
                Node::Taken(id) => *id,
                _ => {
                    let number = next;
                    next = next.saturating_add(1);
                    number
                }
            };
        }
        let mut stays = renumbered.iter().zip(0..).map(|(number, old)| *number <= old);
        self.nodes.retain(|_| stays.next().is_some_and(|stays| stays));
        let mut held = 0usize;
        // What was taken has no node and keeps its number.
        let change = |id: &mut Id| {
            if let Some(number) = renumbered.get(*id as usize) {
                *id = *number;
            }
        };
        for node in &mut self.nodes {
            node.renumber(|id| {
                held = held.saturating_add(1);
                change(id);
            });
        }
        self.stack.iter_mut().chain(self.memo.ids()).for_each(change);
        self.held = held;
        renumbered.clear();
        self.renumbered = renumbered;
        let left = self.nodes.len();
        if left > MOST / 2 || held > MOST_HELD {
            return Err(PickleError::TooManyValues);
        }
        let more = left.saturating_add(held).saturating_add(self.memo.len()) / 2;
        self.sweep_at = left.saturating_add(held).saturating_add(more.clamp(FIRST, MOST / 2));
        Ok(())
    }

    /// Zero for each node that is reached, [`DROPPED`] for the others.
    fn reached(&mut self) -> Vec<Id> {
        let mut reached = std::mem::take(&mut self.renumbered);
        reached.resize(self.nodes.len(), DROPPED);
        let mut open: Vec<Id> = Vec::new();
        let mut reach = |open: &mut Vec<Id>, id: Id| {
            if let Some(mark) = reached.get_mut(id as usize).filter(|mark| **mark == DROPPED) {
                *mark = 0;
                open.push(id);
            }
        };
        // The constants, which no number need refer to now.
        (super::NONE..=super::UNIT).for_each(|id| reach(&mut open, id));
        self.stack.iter().for_each(|id| reach(&mut open, *id));
        self.memo.ids().for_each(|id| reach(&mut open, *id));
        while let Some(id) = open.pop() {
            if let Some(node) = self.nodes.get(id as usize) {
                node.children(|child| reach(&mut open, child));
            }
        }
        reached
    }
}
