//! Parallel layouts: tensor-parallel size, layers per pipeline stage, ranks, and their names such as `tp8pp4@2,3,3,2`.
//!
//! Not here: which tensors a rank holds (`family`), directory names of a checkpoint format (`format`).

mod name;

use std::fmt;

pub use name::{LayoutSpec, NameError};

/// A parallel layout: how many ways tensors are cut, and how many layers each pipeline stage holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Tensor-parallel size, at least 1.
    pub tp: u32,
    /// Layers per pipeline stage.
    pub stages: Stages,
}

/// Layers per pipeline stage, first stage first. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stages(Vec<u32>);

/// One model-parallel rank of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rank {
    /// Pipeline stage. First, so that ranks sort stage by stage.
    pub pp: u32,
    /// Tensor-parallel rank.
    pub tp: u32,
}

/// Why a layout is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A size of zero.
    #[error("{what} must be at least 1")]
    Zero {
        /// Which size.
        what: &'static str,
    },
    /// Even stages asked for where layers do not divide.
    #[error(
        "{layers} layers do not divide into {pp} even pipeline stages; say how many layers each stage holds, e.g. {proposal} or --pp-layers {stages}"
    )]
    Uneven {
        /// Layers of the model.
        layers: u32,
        /// Stages asked for.
        pp: u32,
        /// The name of a layout that works.
        proposal: String,
        /// Its stages.
        stages: Stages,
    },
    /// More stages than layers.
    #[error("{pp} pipeline stages are too many for {layers} layers; possible: 1 to {layers}")]
    TooManyStages {
        /// Layers of the model.
        layers: u32,
        /// Stages asked for.
        pp: u32,
    },
    /// A cut whose layers are not the model's.
    #[error("the stages {stages} add up to {sum} layers, the model has {layers}")]
    WrongSum {
        /// The cut.
        stages: Stages,
        /// Its sum.
        sum: u64,
        /// Layers of the model.
        layers: u32,
    },
    /// A cut with another number of stages than the pipeline size.
    #[error("{pp} pipeline stages asked for, but {stages} is {count}")]
    WrongCount {
        /// Stages asked for.
        pp: u32,
        /// The cut.
        stages: Stages,
        /// Its length.
        count: usize,
    },
}

impl Stages {
    /// Stages of these sizes; at least one.
    #[must_use]
    pub fn new(layers: Vec<u32>) -> Option<Self> {
        (!layers.is_empty()).then_some(Self(layers))
    }

    /// `layers` over `pp` equal stages; `None` where they do not divide or `pp` is zero.
    #[must_use]
    pub fn even(layers: u32, pp: u32) -> Option<Self> {
        let each = layers.checked_div(pp)?;
        (each * pp == layers).then(|| Self(vec![each; pp as usize]))
    }

    /// `layers` over `pp` stages as evenly as can be, the longer stages first.
    #[must_use]
    pub fn nearly_even(layers: u32, pp: u32) -> Self {
        let (each, longer) = (layers / pp.max(1), layers % pp.max(1));
        Self((0..pp.max(1)).map(|stage| each + u32::from(stage < longer)).collect())
    }

    /// Number of stages.
    #[must_use]
    pub fn count(&self) -> u32 {
        // Built from rank numbers and `u32` sizes only.
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Layers per stage.
    #[must_use]
    pub fn layers(&self) -> &[u32] {
        &self.0
    }

    /// All layers together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(|n| u64::from(*n)).sum()
    }

    /// Whether every stage holds the same number of layers.
    #[must_use]
    pub fn is_even(&self) -> bool {
        self.0.windows(2).all(|pair| pair.first() == pair.last())
    }

    /// Global numbers of the layers on stage `pp`; empty for a stage there is none of.
    #[must_use]
    pub fn layers_of(&self, pp: u32) -> std::ops::Range<u32> {
        let before: u32 = self.0.iter().take(pp as usize).sum();
        before..before + self.0.get(pp as usize).copied().unwrap_or(0)
    }
}

impl fmt::Display for Stages {
    /// `2,3,3,2`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

impl Layout {
    /// Number of pipeline stages.
    #[must_use]
    pub fn pp(&self) -> u32 {
        self.stages.count()
    }

    /// Every rank, stage by stage.
    pub fn ranks(&self) -> impl Iterator<Item = Rank> + use<> {
        let (tp, pp) = (self.tp, self.pp());
        (0..pp).flat_map(move |pp| (0..tp).map(move |tp| Rank { pp, tp }))
    }

    /// Whether `rank` is one of this layout's.
    #[must_use]
    pub fn contains(&self, rank: Rank) -> bool {
        rank.tp < self.tp && rank.pp < self.pp()
    }

    /// Whether `rank` is on the last stage.
    #[must_use]
    pub fn is_last(&self, rank: Rank) -> bool {
        rank.pp + 1 == self.pp()
    }
}

impl fmt::Display for Layout {
    /// The one canonical name: `tp8pp4` for even stages, `tp8pp4@2,3,3,2` otherwise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tp{}pp{}", self.tp, self.pp())?;
        if self.stages.is_even() { Ok(()) } else { write!(f, "@{}", self.stages) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(layers: &[u32]) -> Stages {
        Stages::new(layers.to_vec()).unwrap()
    }

    #[test]
    fn stages_know_their_layers() {
        let cut = stages(&[2, 3, 1]);
        assert_eq!(cut.layers_of(0), 0..2);
        assert_eq!(cut.layers_of(1), 2..5);
        assert_eq!(cut.layers_of(2), 5..6);
        assert!(cut.layers_of(3).is_empty());
        assert!(!cut.is_even());
        assert_eq!(Stages::even(42, 4), None);
        assert_eq!(Stages::even(42, 0), None);
        assert_eq!(Stages::nearly_even(42, 4), stages(&[11, 11, 10, 10]));
    }

    #[test]
    fn names_show_a_cut_only_where_it_is_uneven() {
        let name = |tp, layers: &[u32]| Layout { tp, stages: stages(layers) }.to_string();
        assert_eq!(name(8, &[3, 3]), "tp8pp2");
        assert_eq!(name(1, &[10, 32]), "tp1pp2@10,32");
        assert_eq!(name(2, &[7]), "tp2pp1");
    }

    #[test]
    fn ranks_come_stage_by_stage() {
        let layout = Layout { tp: 2, stages: stages(&[1, 1]) };
        let ranks: Vec<_> = layout.ranks().map(|r| (r.pp, r.tp)).collect();
        assert_eq!(ranks, [(0, 0), (0, 1), (1, 0), (1, 1)]);
    }
}
