//! The optimizer's state, in whichever of the ways Megatron saves it.

use super::common::Common;
use super::names::Named;
use super::tensors;
use crate::format::megatron::dist_keys::Spec;
use crate::source::SourceError;
use crate::source::build::Builder;
use crate::source::dcp::Opened;
use crate::source::known::Known;
use crate::source::optimizer::named::{self, NamedState};
use crate::store::Store;

/// What the checkpoint has of it.
pub(super) struct State<'a> {
    pub(super) opened: &'a Opened,
    pub(super) named: &'a Named<'a>,
    pub(super) common: &'a Common,
    pub(super) spec: Spec,
}

impl State<'_> {
    /// Adds it to the catalog.
    pub(super) fn read(
        &self,
        builder: &mut Builder<'_>,
        known: &[Known<'_>],
        store: &dyn Store,
    ) -> Result<(), SourceError> {
        let model = builder.model;
        let mut states = Vec::new();
        let all: Vec<_> = self.named.states.iter().collect();
        let wanted: Vec<_> = all.iter().map(|state| state.weight.tensor).collect();
        let mut pieces = self.opened.pieces(&wanted, store)?.into_iter();
        for of_state in all.chunk_by(|one, other| one.state == other.state) {
            let Some(first) = of_state.first() else { continue };
            let weights: Vec<_> = of_state.iter().map(|state| &state.weight).collect();
            let of_weights = pieces.by_ref().take(weights.len()).collect();
            let tensors = tensors::of_pieces(self.opened, &weights, of_weights, model, self.spec)?;
            states.push(NamedState { name: first.state, tensors });
        }
        let optimizer = named::Named {
            file: &self.common.name,
            saved: self.common.optimizer.as_ref(),
            storages: &self.common.storages,
            states,
        };
        named::read(builder, known, optimizer, store)
    }

    /// Says that it is there and was not wanted.
    pub(super) fn leave_out(&self, builder: &mut Builder<'_>) -> Result<(), SourceError> {
        if !self.named.states.is_empty() || !self.named.buffers.is_empty() || self.common.optimizer.is_some() {
            builder.catalog.left_out.insert("optimizer state (--optimizer none)".to_owned());
        }
        Ok(())
    }
}
