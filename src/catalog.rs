//! What a checkpoint holds, free of the layout it is stored in: canonical parameters, where their bytes are, and what else each rank saved.
//!
//! Not here: how files are read (`source`), what parameters mean (`family`), what is made of them (`view`, `plan`). Knows no paths:
//! rank files are object numbers, with a name kept for messages.

#![deny(clippy::disallowed_methods)]

mod aux_file;
mod chunk;
mod coverage;
mod extra;
mod optimizer;
mod param;
mod params;
mod rng;
mod run;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

pub use aux_file::{AuxFile, AuxKind};
pub use extra::ExtraState;
pub use optimizer::{Buffers, Encoding, MASTER, NamedState, Optimizer, STEP, State, StateOf};
pub use chunk::{Chunk, Period};
pub use coverage::ChunkError;
pub use param::{Held, Param, Row};
pub use params::Params;
pub use rng::RngStates;
pub use run::{EntryKind, RunState, SavedEntry, one_or_more};

use crate::extent::{Extent, ObjectId};
use crate::layout::{Layout, Rank};
use crate::value::Value;

/// Everything known of a source checkpoint before a byte of tensor data is read.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// Layout the source is stored in.
    pub layout: Layout,
    /// Training step it was saved at.
    pub iteration: Iteration,
    /// Tensor-parallel size that the rows of the vocabulary were padded for: that of the run, where the source itself is in no layout.
    pub vocabulary_tp: u32,
    /// One entry per rank file that exists, sorted by rank.
    pub ranks: Vec<RankFile>,
    /// Names, as the family spells them with `{layer}`, of the entries that the source's files use, with the layers (in the model) where.
    pub spellings: BTreeMap<Arc<str>, BTreeSet<u32>>,
    /// Those of them that are extra state and hold an empty tensor instead of `None`.
    pub empty_states: BTreeSet<Arc<str>>,
    /// Extra state that holds something, by the entry's name with numbers of the model, lowest rank first.
    pub extra_states: HashMap<Arc<str>, Vec<ExtraState>>,
    /// What the source saved and this catalog leaves out, in words for people.
    pub left_out: BTreeSet<String>,
    /// Names of parameters that are saved and never computed with: they go along in views, and are no part of what the model is.
    pub unused: BTreeSet<Arc<str>>,
    /// For parameters that tensors hold copies of: what the tensors are called.
    pub copied: HashMap<Arc<str>, CopyNames>,
    /// The model's parameters.
    pub weights: Params,
    /// The optimizer's state, where the source has one that is to be shown.
    pub optimizer: Option<Optimizer>,
    /// Random-number states of the run's ranks, where the source is in no layout itself.
    pub rng_states: Option<RngStates>,
}

/// Which checkpoint of a run this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Iteration {
    /// `iter_0000100`
    Number(u64),
    /// `release`
    Release,
}

/// What the tensors are called that hold a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyNames {
    /// The one that is the parameter.
    pub original: String,
    /// The one that is a copy of it.
    pub copy: String,
}

/// What one rank of the source saved.
#[derive(Debug, Clone)]
pub struct RankFile {
    /// The rank.
    pub rank: Rank,
    /// The file.
    pub object: ObjectId,
    /// Its name for messages.
    pub name: String,
    /// The state of the run.
    pub run: RunState,
    /// Its parts of the model (virtual stages) in their order: dicts, tensors as references. None where nothing more is wanted of them.
    pub models: Vec<Value>,
    /// Every entry in its order, where it is a pickle. Megatron views carry them over.
    pub entries: Vec<SavedEntry>,
    /// The record of each storage.
    pub storages: HashMap<Arc<str>, Record>,
    /// The pieces of each tensor that is stored in several, by the key that stands for its storage. None of them is a copy of another.
    pub pieces: HashMap<Arc<str>, Vec<Chunk>>,
    /// The optimizer's state, where it is saved by the names of tensors.
    pub named_states: Vec<NamedState>,
    /// What it saved and the entries do not have, in words for people.
    pub left_out: Vec<String>,
    /// The file beside it with the flat buffers of a distributed optimizer.
    pub buffers: Option<BufferFile>,
    /// Names of the files that hold its tensors, where that is not one file of its own.
    pub files: HashMap<ObjectId, String>,
}

/// A file with the flat buffers of a distributed optimizer.
#[derive(Debug, Clone)]
pub struct BufferFile {
    /// The file.
    pub object: ObjectId,
    /// Its name for messages.
    pub name: String,
    /// The sets of buffers in it: one, or one for each optimizer of the rank.
    pub sets: Vec<Value>,
    /// The record of each storage.
    pub storages: HashMap<Arc<str>, Record>,
    /// The pieces of each buffer that is stored in several, by the key that stands for its storage.
    pub pieces: HashMap<Arc<str>, Vec<Chunk>>,
}

/// A record of a rank file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Where its bytes are.
    pub extent: Extent,
    /// CRC-32 that the file states; `None` where it states none.
    pub crc: Option<u32>,
}

impl RankFile {
    /// What a run in this state saved that has one rank, with nothing of its model yet.
    #[must_use]
    pub fn of_run(object: ObjectId, name: String, run: RunState) -> Self {
        Self {
            rank: Rank { pp: 0, tp: 0, ep: 0 },
            object,
            name,
            run,
            models: Vec::new(),
            entries: Vec::new(),
            storages: HashMap::new(),
            pieces: HashMap::new(),
            named_states: Vec::new(),
            left_out: Vec::new(),
            buffers: None,
            files: HashMap::new(),
        }
    }

    /// Parts of the model (virtual stages) in it, at least 1.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        // A file holds fewer entries than 2^32.
        (self.models.len() as u32).max(1)
    }

    /// What messages call the file that holds the tensor.
    #[must_use]
    pub fn name_of(&self, value: &Value) -> &str {
        let key = value.tensor().map(|tensor| &tensor.storage.key);
        let stored = key.and_then(|key| self.storages.get(key)).map(|record| record.extent.object);
        let piece = || key.and_then(|key| self.pieces.get(key)).and_then(|pieces| pieces.first());
        match stored.or_else(|| Some(piece()?.object)).and_then(|object| self.files.get(&object)) {
            Some(name) => name,
            None => &self.name,
        }
    }

    /// Part `chunk` of the model.
    #[must_use]
    pub fn model(&self, chunk: u32) -> Option<&Value> {
        self.models.get(chunk as usize)
    }
}

impl fmt::Display for Iteration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Release => f.write_str("release"),
        }
    }
}

impl Catalog {
    /// A catalog of these rank files and no parameters yet.
    #[must_use]
    pub fn new(layout: Layout, iteration: Iteration, mut ranks: Vec<RankFile>) -> Self {
        ranks.sort_by_key(|file| file.rank);
        let left_out = ranks.iter().flat_map(|file| file.left_out.iter().cloned()).collect();
        Self {
            vocabulary_tp: layout.tp,
            layout,
            iteration,
            ranks,
            spellings: BTreeMap::new(),
            empty_states: BTreeSet::new(),
            extra_states: HashMap::new(),
            left_out,
            unused: BTreeSet::new(),
            copied: HashMap::new(),
            weights: Params::default(),
            optimizer: None,
            rng_states: None,
        }
    }

    /// The parameter called `name`.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&Param> {
        self.weights.get(name)
    }

    /// The first parameter that any layer has under the name that `name_in` gives for it.
    pub fn sample(&self, name_in: impl Fn(u32) -> String) -> Option<&Param> {
        let layers = self.layout.stages.total() as u32;
        (0..layers.max(1)).find_map(|layer| self.param(&name_in(layer)))
    }

    /// Whether the source's files use entry `name`, with `{layer}`, in this layer of the model.
    #[must_use]
    pub fn spells(&self, name: &str, layer: Option<u32>) -> bool {
        let layers = self.spellings.get(name);
        layers.is_some_and(|layers| layer.is_none_or(|layer| layers.contains(&layer)))
    }

    /// Notes that the source's files use entry `name`.
    pub fn spell(&mut self, name: &Arc<str>, layer: Option<u32>) {
        self.spellings.entry(name.clone()).or_default().extend(layer);
    }

    /// All parameters, in the order they were met.
    #[must_use]
    pub fn params(&self) -> &[Param] {
        self.weights.all()
    }

    /// The source rank whose private state suits `target` best: the same rank where there is one, else the one at the same
    /// relative place in the layout, else whatever exists nearest to that.
    #[must_use]
    pub fn nearest_rank(&self, target: Rank, layout: &Layout) -> Option<&RankFile> {
        let wanted = Rank {
            pp: relative_place(target.pp, layout.pp(), self.layout.pp()),
            tp: relative_place(target.tp, layout.tp, self.layout.tp),
            ep: relative_place(target.ep, layout.ep(), self.layout.ep()),
        };
        self.ranks.iter().min_by_key(|file| {
            let Rank { pp, tp, ep } = file.rank;
            (pp.abs_diff(wanted.pp), tp.abs_diff(wanted.tp), ep.abs_diff(wanted.ep), file.rank)
        })
    }
}

/// Of `to` ranks the one that stands where `rank` stands of `from`.
fn relative_place(rank: u32, from: u32, to: u32) -> u32 {
    if from == to {
        rank
    } else {
        // Below `to`, because `rank` is below `from`.
        (u64::from(rank) * u64::from(to) / u64::from(from.max(1))) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Stages;

    fn layout(tp: u32, stages: &[u32]) -> Layout {
        Layout::dense(tp, Stages::new(stages.to_vec()).unwrap())
    }

    fn catalog(layout: Layout, skip: &[Rank]) -> Catalog {
        let file = |rank: Rank| {
            let run = RunState::of_args(Value::None);
            RankFile { rank, ..RankFile::of_run(ObjectId(0), String::new(), run) }
        };
        let ranks = layout.ranks().filter(|r| !skip.contains(r)).map(file).collect();
        Catalog::new(layout, Iteration::Release, ranks)
    }

    #[test]
    fn nearest_rank_is_the_same_rank_or_its_relative_place() {
        let source = catalog(layout(2, &[1, 1, 1, 1]), &[]);
        let near = |pp, tp, target: &Layout| {
            source.nearest_rank(Rank { pp, tp, ep: 0 }, target).map(|f| (f.rank.pp, f.rank.tp))
        };
        assert_eq!(near(3, 1, &source.layout), Some((3, 1)));
        assert_eq!(near(0, 3, &layout(4, &[4])), Some((0, 1)));
        assert_eq!(near(1, 0, &layout(1, &[2, 2])), Some((2, 0)));
    }

    #[test]
    fn a_missing_rank_gives_way_to_its_neighbour() {
        let source = catalog(layout(2, &[2]), &[Rank { pp: 0, tp: 1, ep: 0 }]);
        assert_eq!(
            source.nearest_rank(Rank { pp: 0, tp: 1, ep: 0 }, &source.layout).map(|f| f.rank.tp),
            Some(0)
        );
    }
}
