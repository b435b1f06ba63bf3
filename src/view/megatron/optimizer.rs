//! The optimizer's state of one rank of a view: the entry in its rank file, and the file with the buffers of a distributed optimizer.
//!
//! Everything is made anew from the target's parameters; the source gives what does not depend on the layout: settings of the parameter
//! groups, the loss scale, how things are wrapped. Not here: the values (`plan`), how a source's state is understood (`source`).

mod buffers;
mod common;
mod elementwise;
mod groups;
mod order;
mod slots;

use super::verbatim::Verbatim;
use super::contents::Contents;
use crate::catalog::{Encoding, RankFile};
use crate::format::megatron::keys::{MASTERS, OPTIMIZER, PARAM_GROUPS, STATE};
use crate::layout::{Layout, Place, Rank};
use crate::value::Value;
use crate::view::optimizer::inner_of;
use crate::view::{Basis, ViewError};

use groups::Group;
pub(in crate::view) use order::check_order;
use slots::Slot;

/// The optimizer's state of one rank.
pub(in crate::view) struct RankOptimizer<'s> {
    basis: &'s Basis,
    encoding: Encoding,
    rank: Rank,
    layout: &'s Layout,
    /// The rank's parameters, in their order.
    slots: Vec<Slot<'s>>,
    /// The source rank that settings are taken from.
    source: &'s RankFile,
    /// Its optimizers: one, or one for the dense part and one for the experts.
    chains: Vec<Chain<'s>>,
}

/// One optimizer of a rank.
struct Chain<'s> {
    /// The source's optimizer that it is like.
    template: &'s Value,
    /// The rank file that has it.
    file: &'s RankFile,
    groups: Vec<Group<'s>>,
}

impl<'s> RankOptimizer<'s> {
    /// The state of `rank`; `None` where the view shows none.
    pub(in crate::view) fn new(basis: &'s Basis, layout: &'s Layout, rank: Rank) -> Result<Option<Self>, ViewError> {
        Self::with_experts(basis, layout, rank, basis.has_expert_optimizer(layout))
    }

    /// As [`Self::new`], with an optimizer of their own for experts if they are `apart`.
    pub(in crate::view) fn with_experts(
        basis: &'s Basis,
        layout: &'s Layout,
        rank: Rank,
        apart: bool,
    ) -> Result<Option<Self>, ViewError> {
        let Some(encoding) = basis.optimizer else { return Ok(None) };
        let source = basis.nearest(rank, layout)?;
        let slots = slots::slots(basis, layout, rank, apart)?;
        let chains = groups::chains(basis, source, &slots, apart)?;
        Ok(Some(Self { basis, encoding, rank, layout, slots, source, chains }))
    }

    /// Whether it has a file of its own beside the rank file.
    pub(super) fn has_buffers(&self) -> bool {
        matches!(self.encoding, Encoding::Distributed(_))
    }

    /// The entry `optimizer` of the rank file.
    pub(super) fn entry<'a>(&'a self, contents: &mut Contents<'a>) -> Value {
        let chains: Vec<Value> = self.chains.iter().map(|chain| self.chain(chain, contents)).collect();
        one_or_list(chains)
    }

    /// One optimizer: the source's, with its state and parameter groups replaced.
    fn chain<'a>(&'a self, chain: &'a Chain<'s>, contents: &mut Contents<'a>) -> Value {
        let (inner_source, is_nested) = inner_of(chain.template);
        let inner = self.inner(chain, inner_source, contents);
        if self.encoding == Encoding::Single {
            return inner;
        }
        let mut entries = vec![(Value::str(OPTIMIZER), inner)];
        if is_nested {
            let mut verbatim = Verbatim::new(chain.file, contents);
            #[expect(
                clippy::disallowed_methods,
                reason = "an optimizer that is no dict has no other entries"
            )]
            let others =
                chain.template.items().unwrap_or_default().iter().filter(|(key, _)| {
                    !key.as_str().is_some_and(|key| key == OPTIMIZER || MASTERS.contains(&key))
                });
            entries.extend(others.map(|(key, value)| (key.clone(), verbatim.value(value))));
        }
        if self.encoding == Encoding::Mixed {
            let masters = elementwise::masters(self, chain, contents);
            let [name, ..] = MASTERS;
            entries.push((Value::str(name), masters));
        }
        Value::Dict(entries.into())
    }

    /// What torch's own optimizer saves: state and parameter groups.
    fn inner<'a>(&'a self, chain: &'a Chain<'s>, source: &'s Value, contents: &mut Contents<'a>) -> Value {
        let keeps_state = !self.has_buffers();
        let steps = groups::Steps::of(self.basis, self.source, keeps_state);
        let mut entries = Vec::new();
        if keeps_state {
            let state = elementwise::state(self, chain, &steps, contents);
            entries.push((Value::str(STATE), state));
        }
        #[expect(clippy::disallowed_methods, reason = "an optimizer that is no dict has no other entries")]
        let others = source.items().unwrap_or_default();
        for (key, value) in others {
            match key.as_str() {
                Some(STATE) => {}
                Some(PARAM_GROUPS) => {
                    entries.push((key.clone(), groups::list(self, chain, &steps, self.numbers(), contents)));
                }
                _ => entries.push((key.clone(), Verbatim::new(chain.file, contents).value(value))),
            }
        }
        Value::Dict(entries.into())
    }

    /// Whether groups number their parameters in a rank file: buffers are not told apart by numbers.
    fn numbers(&self) -> groups::Numbers {
        if self.has_buffers() { groups::Numbers::LeftOut } else { groups::Numbers::Listed }
    }

    /// The tree of the file with the buffers.
    pub(super) fn buffers<'a>(&'a self, contents: &mut Contents<'a>) -> Result<Value, ViewError> {
        let Encoding::Distributed(kept) = self.encoding else { return Err(ViewError::NoOptimizer) };
        // Of several optimizers, a rank saves those whose first replica it is.
        #[expect(clippy::disallowed_methods, reason = "a run without args says nothing of its processes")]
        let args = self.basis.args().unwrap_or(&Value::None);
        let processes = self.basis.model.processes(args, self.layout).enlarged();
        let (dense, experts) = processes.is_first_replica(self.rank);
        let parts = self.chains.iter().enumerate().map(|(index, chain)| {
            let is_saved = self.chains.len() == 1 || if index == 0 { dense } else { experts };
            if is_saved { buffers::part(self, chain, kept, contents) } else { Ok(Value::None) }
        });
        Ok(one_or_list(parts.collect::<Result<_, _>>()?))
    }

    /// The parameters in a group, in their order.
    fn members<'a>(&'a self, group: &Group<'_>) -> impl Iterator<Item = &'a Slot<'s>> {
        let kind = group.kind;
        self.slots.iter().filter(move |slot| slot.kind == kind)
    }

    fn place(&self, chunk: u32) -> Place {
        Place { rank: self.rank, chunk }
    }
}

fn one_or_list(values: Vec<Value>) -> Value {
    match <[Value; 1]>::try_from(values) {
        Ok([only]) => only,
        Err(values) => Value::List(values.into()),
    }
}
