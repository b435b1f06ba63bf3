//! What a checkpoint holds, free of the layout it is stored in: canonical parameters, where their bytes are, and what else each rank saved.
//!
//! Not here: how files are read (`source`), what parameters mean (`family`), what is made of them (`view`, `plan`). Knows no paths:
//! rank files are object numbers, with a name kept for messages.

mod param;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

pub use param::{Chunk, ChunkError, Param, Period};

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
    /// One entry per rank file that exists, sorted by rank.
    pub ranks: Vec<RankFile>,
    /// Names, as the family spells them with `{layer}`, of the entries that the source's files use.
    pub spellings: BTreeSet<Arc<str>>,
    /// Those of them that are extra state and hold an empty tensor instead of `None`.
    pub empty_states: BTreeSet<Arc<str>>,
    /// What the source saved and this catalog leaves out, in words for people.
    pub left_out: BTreeSet<String>,
    params: Vec<Param>,
    by_name: HashMap<Arc<str>, usize>,
}

/// Which checkpoint of a run this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Iteration {
    /// `iter_0000100`
    Number(u64),
    /// `release`
    Release,
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
    /// The whole tree of the file, tensors as references.
    pub tree: Value,
    /// The record of each storage.
    pub storages: HashMap<Arc<str>, Record>,
    /// Entries that it saved and the tree does not have.
    pub left_out: Vec<String>,
}

/// A record of a rank file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Where its bytes are.
    pub extent: Extent,
    /// CRC-32 that the file states; `None` where it states none.
    pub crc: Option<u32>,
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
            layout,
            iteration,
            ranks,
            spellings: BTreeSet::new(),
            empty_states: BTreeSet::new(),
            left_out,
            params: Vec::new(),
            by_name: HashMap::new(),
        }
    }

    /// The parameter called `name`.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&Param> {
        self.by_name.get(name).and_then(|index| self.params.get(*index))
    }

    /// All parameters, in the order they were met.
    #[must_use]
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// The parameter of `fresh`'s name: the one already there, or `fresh` itself. The caller compares the two.
    pub fn param_or_insert(&mut self, fresh: Param) -> &mut Param {
        let index = *self.by_name.entry(fresh.name.clone()).or_insert(self.params.len());
        if index == self.params.len() {
            self.params.push(fresh);
        }
        &mut self.params[index]
    }

    /// The source rank whose private state suits `target` best: the same rank where there is one, else the one at the same
    /// relative place in the layout, else whatever exists nearest to that.
    #[must_use]
    pub fn nearest_rank(&self, target: Rank, layout: &Layout) -> Option<&RankFile> {
        let scale = |rank: u32, from: u32, to: u32| {
            if from == to {
                rank
            } else {
                u32::try_from(u64::from(rank) * u64::from(to) / u64::from(from.max(1))).unwrap_or(0)
            }
        };
        let wanted = Rank {
            pp: scale(target.pp, layout.pp(), self.layout.pp()),
            tp: scale(target.tp, layout.tp, self.layout.tp),
        };
        self.ranks.iter().min_by_key(|file| {
            (file.rank.pp.abs_diff(wanted.pp), file.rank.tp.abs_diff(wanted.tp), file.rank)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Stages;

    fn layout(tp: u32, stages: &[u32]) -> Layout {
        Layout { tp, stages: Stages::new(stages.to_vec()).unwrap() }
    }

    fn catalog(layout: Layout, skip: &[Rank]) -> Catalog {
        let file = |rank: Rank| RankFile {
            rank,
            object: ObjectId(0),
            name: String::new(),
            tree: Value::None,
            storages: HashMap::new(),
            left_out: Vec::new(),
        };
        let ranks = layout.ranks().filter(|r| !skip.contains(r)).map(file).collect();
        Catalog::new(layout, Iteration::Release, ranks)
    }

    #[test]
    fn nearest_rank_is_the_same_rank_or_its_relative_place() {
        let source = catalog(layout(2, &[1, 1, 1, 1]), &[]);
        let near = |pp, tp, target: &Layout| {
            source.nearest_rank(Rank { pp, tp }, target).map(|f| (f.rank.pp, f.rank.tp))
        };
        assert_eq!(near(3, 1, &source.layout), Some((3, 1)));
        assert_eq!(near(0, 3, &layout(4, &[4])), Some((0, 1)));
        assert_eq!(near(1, 0, &layout(1, &[2, 2])), Some((2, 0)));
    }

    #[test]
    fn a_missing_rank_gives_way_to_its_neighbour() {
        let source = catalog(layout(2, &[2]), &[Rank { pp: 0, tp: 1 }]);
        assert_eq!(source.nearest_rank(Rank { pp: 0, tp: 1 }, &source.layout).map(|f| f.rank.tp), Some(0));
    }
}
