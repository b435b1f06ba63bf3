//! What a family says that matters to optimizers: which tensors are trained, and how its training code keeps their state.

use super::names::EXPERT;
use super::{DistributedBuffers, Entry, Model};
use crate::layout::Layout;
use crate::value::Value;

impl Entry {
    /// Whether it is a parameter that training changes, and not a module's other state.
    #[must_use]
    pub fn is_trained(&self) -> bool {
        !self.holds.is_empty() && !self.buffer
    }

    /// Whether it belongs to an expert, of which each expert-parallel rank has others.
    #[must_use]
    pub fn is_expert(&self) -> bool {
        self.name.contains(EXPERT)
    }

    /// Whether it is the embedding of the vocabulary or its head, which may have a learning rate of their own.
    #[must_use]
    pub fn is_vocabulary(&self) -> bool {
        self.holds.iter().any(|holding| VOCABULARY_WEIGHTS.contains(&holding.param.as_str()))
    }
}

const EMBEDDING: &str = "embedding.weight";
const VOCABULARY_WEIGHTS: &[&str] = &[EMBEDDING, "output.weight", "unused_output.weight"];

impl Model {
    /// How a distributed optimizer of this model keeps its buffers, where the family says it.
    #[must_use]
    pub fn distributed_buffers(&self, args: &Value) -> Option<DistributedBuffers> {
        let rule = self.family().file.optimizer.as_ref()?;
        let newer = rule.coalesced_if_arg.as_ref().is_some_and(|field| args.attribute(field).is_some());
        Some(if newer { DistributedBuffers::Coalesced } else { rule.buffers })
    }

    /// Whether experts have an optimizer of their own in this layout, by its sizes and the version of the training code: where each
    /// expert-parallel rank has other experts, and since some version where they are cut in another way than the rest.
    #[must_use]
    pub fn optimizes_experts_apart(&self, args: &Value, layout: &Layout) -> bool {
        let rule = self.family().file.optimizer.as_ref();
        let since = rule.and_then(|rule| rule.experts_apart_if_cut_differently.as_ref());
        let is_newer = since.is_some_and(|field| args.attribute(field).is_some());
        layout.experts.is_some() && (layout.ep() > 1 || (is_newer && layout.etp() != layout.tp))
    }

    /// Whether a tensor is an embedding that two stages of this layout keep a copy of each.
    #[must_use]
    pub fn shares_embedding(&self, entry: &Entry, layout: &Layout) -> bool {
        let is_embedding = |entry: &Entry| entry.holds.iter().any(|holding| holding.param == EMBEDDING);
        layout.stages.count() > 1
            && is_embedding(entry)
            && self
                .entries()
                .iter()
                .any(|entry| is_embedding(entry) && (entry.only_if_pipelined || entry.also_last))
    }
}
