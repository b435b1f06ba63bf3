//! Which tensors a rank saves, in its order, by the rules of the family: before anybody looks at what the source has.
//!
//! Not here: what they are made of (`view`), where they are stored (`source`).

use std::ops::Range;

use super::names::{DEPTH, EXPERT};
use super::{Entry, Model, Numbers, Stage};
use crate::layout::{Layout, Place};

/// A tensor that a rank may save.
#[derive(Debug, Clone, Copy)]
pub struct Saved {
    /// Index of its entry.
    entry: usize,
    /// The numbers of its layer and expert as its name has them.
    pub local: Numbers,
    /// Their numbers in the model.
    pub global: Numbers,
}

impl Model {
    /// The entry of a tensor of [`Model::saved_at`].
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "they have indices of entries")]
    pub fn entry_of(&self, saved: Saved) -> &Entry {
        &self.entries[saved.entry]
    }

    /// Everything that the rank at `place` may save of the part of the model there, in order.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "without layers, all entries stand before where they would be")]
    pub fn saved_at(&self, layout: &Layout, place: Place) -> Vec<Saved> {
        let entries = self.entries();
        let is_layered = |entry: &Entry| entry.stage == Stage::Layer;
        let first_layered = entries.iter().position(is_layered).unwrap_or(entries.len());
        let after_layered = entries.iter().rposition(is_layered).map_or(entries.len(), |last| last + 1);
        let per_rank = self.experts_per_rank(layout);
        let mut lister = Lister { model: self, per_rank, ep: place.rank.ep, all: Vec::new() };
        lister.block(0..first_layered, At::default());
        for (local, layer) in (0..).zip(layout.layers_at(place)) {
            let of = |layer| Numbers { layer: Some(layer), ..Numbers::default() };
            let local = if self.global_layers() { layer } else { local };
            lister.block(first_layered..after_layered, At { local: of(local), global: of(layer) });
        }
        lister.after(after_layered);
        lister.all
    }
}

/// Numbers on the rank and in the model.
#[derive(Debug, Clone, Copy, Default)]
struct At {
    local: Numbers,
    global: Numbers,
}

/// Lists what a rank may save.
struct Lister<'a> {
    model: &'a Model,
    /// Experts that each rank has.
    per_rank: u32,
    ep: u32,
    all: Vec<Saved>,
}

impl Lister<'_> {
    /// Entries that stand together, all of one layer or of none. Those of the same modules of experts: each expert has all of them before the
    /// next one.
    #[expect(clippy::indexing_slicing, reason = "ranges are of entries")]
    fn block(&mut self, range: Range<usize>, at: At) {
        let entries = self.model.entries();
        let kind = self.model.kind_of_layer(at.global.layer);
        let first = self.per_rank.saturating_mul(self.ep);
        let mut start = range.start;
        for block in entries[range].chunk_by(|a, b| experts_of(a).is_some() && experts_of(a) == experts_of(b))
        {
            let of_experts = block.first().is_some_and(|entry| experts_of(entry).is_some());
            for expert in 0..if of_experts { self.per_rank } else { 1 } {
                let of = |numbers, expert| Numbers { expert: of_experts.then_some(expert), ..numbers };
                let global = first.saturating_add(expert);
                let local = if self.model.global_layers() { global } else { expert };
                let at = At { local: of(at.local, local), global: of(at.global, global) };
                let here = (start..).zip(block).filter(|(_, entry)| entry.fits(kind));
                self.all.extend(here.map(|(entry, _)| Saved { entry, local: at.local, global: at.global }));
            }
            start += block.len();
        }
    }

    /// What stands behind the layers, from this entry on: single tensors, or the layers that predict tokens beyond the next one.
    #[expect(clippy::indexing_slicing, reason = "it starts at an entry or behind the last one")]
    fn after(&mut self, mut start: usize) {
        let entries = self.model.entries();
        let rest = &entries[start..];
        for block in rest.chunk_by(|a, b| a.name.contains(DEPTH) && b.name.contains(DEPTH)) {
            let range = start..start + block.len();
            start = range.end;
            if !block.first().is_some_and(|entry| entry.name.contains(DEPTH)) {
                self.block(range, At::default());
                continue;
            }
            for depth in 0..self.model.predictions() {
                let numbers = Numbers { depth: Some(depth), ..Numbers::default() };
                self.block(range.clone(), At { local: numbers, global: numbers });
            }
        }
    }
}

/// The modules that stand once for each expert, if the entry is in them: what its name says before the part with the number.
fn experts_of(entry: &Entry) -> Option<&str> {
    let (before, _) = entry.name.split_once(EXPERT)?;
    match before.rsplit_once('.') {
        Some((modules, _)) => Some(modules),
        None => Some(""),
    }
}
