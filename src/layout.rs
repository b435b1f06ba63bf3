//! Parallel layouts: parallel sizes, layers per pipeline stage, ranks, and their names such as `tp8pp4@2,3,3,2` or `tp2pp4vpp2ep8`.
//!
//! Not here: which tensors a rank holds (`family`), directory names of a checkpoint format (`format`).

mod format;
mod name;
mod processes;
mod stages;
mod pipeline_layout;

use std::fmt;

pub use format::Format;
pub use name::{LayoutSpec, NameError};
pub use processes::Processes;
pub use stages::Stages;
pub use pipeline_layout::{PipelineLayout, PipelineLayoutError};

/// A parallel layout: how many ways tensors are cut, how many layers each pipeline stage holds, and who holds which experts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Tensor-parallel size, at least 1.
    pub tp: u32,
    /// Layers per (virtual) pipeline stage, in the order of the model; a multiple of [`Layout::vpp`] many.
    pub stages: Stages,
    /// Virtual stages on each pipeline rank, at least 1.
    pub vpp: u32,
    /// How experts are shared out; `None` for a model without experts.
    pub experts: Option<Experts>,
}

/// How the experts of a layer are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Experts {
    /// Expert-parallel size: ranks that each hold their share of the experts. At least 1.
    pub ep: u32,
    /// Expert-tensor-parallel size: how many ways each expert is cut. Divides the tensor-parallel size.
    pub etp: u32,
}

/// A part of the model as one rank of the pipeline holds it: all of it, or one of its virtual stages (Megatron's model chunks).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The rank.
    pub rank: Rank,
    /// Which of its virtual stages.
    pub chunk: u32,
}

/// One model-parallel rank of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Rank {
    /// Pipeline stage. First, so that ranks sort stage by stage.
    pub pp: u32,
    /// Tensor-parallel rank.
    pub tp: u32,
    /// Expert-parallel rank.
    pub ep: u32,
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
    #[error(
        "{pp} pipeline stages, virtual ones counted, are too many for {layers} layers; possible: 1 to {layers}"
    )]
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
    /// Stages that do not share out among the pipeline ranks.
    #[error(
        "{count} stages do not share out among {pp} pipeline ranks with {vpp} virtual stages each; the number of stages must be a multiple of the pipeline-parallel size"
    )]
    NotVirtual {
        /// Stages in all.
        count: u32,
        /// Pipeline ranks.
        pp: u32,
        /// Virtual stages on each.
        vpp: u32,
    },
    /// A cut in Megatron's text, which does not say how many ranks take turns with it.
    #[error(
        "a pipeline layout of {count} stages is for any pipeline size that divides them; say which with --pp"
    )]
    TextWithoutPp {
        /// Stages in all.
        count: u32,
    },
    /// Virtual stages without a pipeline.
    #[error(
        "{vpp} virtual stages take turns on several pipeline ranks; ask for a pipeline-parallel size above 1"
    )]
    VirtualAlone {
        /// Virtual stages asked for.
        vpp: u32,
    },
    /// Experts asked for in a model that has none.
    #[error("the model has no experts; leave out ep and etp")]
    NoExperts,
    /// Experts that do not share out among the expert-parallel ranks.
    #[error("EP {ep} does not divide {experts} experts; possible: {}", divisors(*.experts))]
    Experts {
        /// Expert-parallel size asked for.
        ep: u32,
        /// Experts of a layer.
        experts: u64,
    },
    /// Experts cut in a way that Megatron's legacy files cannot hold: two processes would write the same file.
    #[error(
        "the expert-tensor-parallel size {etp} must divide the tensor-parallel size {tp} in this format; possible: {}",
        divisors((*.tp).into())
    )]
    ExpertCut {
        /// Expert-tensor-parallel size asked for.
        etp: u32,
        /// Tensor-parallel size.
        tp: u32,
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

impl Layout {
    /// A layout without virtual stages and experts.
    #[must_use]
    pub fn dense(tp: u32, stages: Stages) -> Self {
        Self { tp, stages, vpp: 1, experts: None }
    }

    /// That of one rank with everything.
    #[must_use]
    pub fn undivided(&self) -> Self {
        // No model has as many layers as 2^32.
        let layers = self.stages.total() as u32;
        let stages = Stages::new(vec![layers]).unwrap_or_else(|| Stages::nearly_even(0, 1));
        Self { experts: self.experts.map(|_| Experts { ep: 1, etp: 1 }), ..Self::dense(1, stages) }
    }

    /// Number of pipeline ranks.
    #[must_use]
    pub fn pp(&self) -> u32 {
        self.stages.count() / self.vpp.max(1)
    }

    /// Expert-parallel size; 1 for a model without experts.
    #[must_use]
    pub fn ep(&self) -> u32 {
        self.experts.map_or(1, |experts| experts.ep)
    }

    /// Ways in which experts are cut.
    #[must_use]
    pub fn etp(&self) -> u32 {
        self.experts.map_or(self.tp, |experts| experts.etp)
    }

    /// Every rank, stage by stage.
    pub fn ranks(&self) -> impl Iterator<Item = Rank> + use<> {
        let (tp, pp, ep) = (self.tp, self.pp(), self.ep());
        (0..pp).flat_map(move |pp| (0..tp).flat_map(move |tp| (0..ep).map(move |ep| Rank { pp, tp, ep })))
    }

    /// The parts of the model that `rank` holds.
    pub fn places(&self, rank: Rank) -> impl Iterator<Item = Place> + use<> {
        (0..self.vpp).map(move |chunk| Place { rank, chunk })
    }

    /// The (virtual) stage at `place`. Data passes all pipeline ranks before it comes back to the first one's next chunk.
    #[must_use]
    pub fn stage(&self, place: Place) -> u32 {
        place.chunk * self.pp() + place.rank.pp
    }

    /// Global numbers of the layers at `place`.
    #[must_use]
    pub fn layers_at(&self, place: Place) -> std::ops::Range<u32> {
        self.stages.layers_of(self.stage(place))
    }

    /// Whether `place` is the first stage, where the embedding is.
    #[must_use]
    pub fn is_first(&self, place: Place) -> bool {
        self.stage(place) == 0
    }

    /// Whether `place` is the last stage, where the head is.
    #[must_use]
    pub fn is_last(&self, place: Place) -> bool {
        self.stage(place) + 1 == self.stages.count()
    }

    /// Which part of its experts' tensors `rank` holds: processes count through both kinds of tensor parallelism alike.
    #[must_use]
    pub fn etp_rank(&self, rank: Rank) -> u32 {
        rank.tp % self.etp().max(1)
    }
}

impl fmt::Display for Layout {
    /// The one canonical name: `tp8pp4` for even stages, `tp8pp4@2,3,3,2` otherwise, with `vpp2` where stages are virtual and `ep4` where
    /// there are experts (`etp1` where they are cut in another way than the rest).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tp{}pp{}", self.tp, self.pp())?;
        if self.vpp > 1 {
            write!(f, "vpp{}", self.vpp)?;
        }
        if let Some(Experts { ep, etp }) = self.experts {
            write!(f, "ep{ep}")?;
            if etp != self.tp {
                write!(f, "etp{etp}")?;
            }
        }
        if self.stages.is_even() { Ok(()) } else { write!(f, "@{}", self.stages) }
    }
}

fn divisors(number: u64) -> String {
    // Numbers of experts are small: what a file claims beyond that is not worth a list.
    let all = (1..=number.min(1 << 12)).filter(|n| number.is_multiple_of(*n));
    all.map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
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
        let name = |tp, layers: &[u32]| Layout::dense(tp, stages(layers)).to_string();
        assert_eq!(name(8, &[3, 3]), "tp8pp2");
        assert_eq!(name(1, &[10, 32]), "tp1pp2@10,32");
        assert_eq!(name(2, &[7]), "tp2pp1");
    }

    #[test]
    fn ranks_come_stage_by_stage() {
        let layout = Layout::dense(2, stages(&[1, 1]));
        let ranks: Vec<_> = layout.ranks().map(|r| (r.pp, r.tp)).collect();
        assert_eq!(ranks, [(0, 0), (0, 1), (1, 0), (1, 1)]);
    }

    #[test]
    fn virtual_stages_take_turns() {
        let layout = Layout { vpp: 2, ..Layout::dense(1, stages(&[1, 2, 3, 4])) };
        let rank = Rank { pp: 1, tp: 0, ep: 0 };
        let layers: Vec<_> = layout.places(rank).map(|place| layout.layers_at(place)).collect();
        assert_eq!(layers, [1..3, 6..10]);
        assert_eq!((layout.pp(), layout.to_string()), (2, "tp1pp2vpp2@1,2,3,4".to_owned()));
        let last = layout.places(rank).filter(|place| layout.is_last(*place)).collect::<Vec<_>>();
        assert_eq!(last, [Place { rank, chunk: 1 }]);
    }

    #[test]
    fn experts_are_in_the_name() {
        let with = |tp, ep, etp| {
            let experts = Some(Experts { ep, etp });
            Layout { experts, ..Layout::dense(tp, stages(&[4, 4])) }
        };
        assert_eq!(with(2, 4, 2).to_string(), "tp2pp2ep4");
        assert_eq!(with(4, 1, 2).to_string(), "tp4pp2ep1etp2");
        assert_eq!(with(4, 3, 2).ranks().count(), 24);
        assert_eq!(with(4, 3, 2).etp_rank(Rank { pp: 0, tp: 3, ep: 0 }), 1);
    }

    #[test]
    fn a_layout_lists_its_ranks_and_no_others() {
        let experts = Some(Experts { ep: 3, etp: 1 });
        let layout = Layout { experts, ..Layout::dense(2, stages(&[1, 1, 1, 1])) };
        let ranks: Vec<_> = layout.ranks().collect();
        for (pp, tp, ep) in
            (0..6).flat_map(|pp| (0..4).flat_map(move |tp| (0..5).map(move |ep| (pp, tp, ep))))
        {
            let rank = Rank { pp, tp, ep };
            assert_eq!(ranks.contains(&rank), pp < 4 && tp < 2 && ep < 3, "{rank:?}");
        }
    }

    #[test]
    fn the_first_place_has_the_embedding_and_the_last_one_the_head() {
        let layout = Layout { vpp: 2, ..Layout::dense(1, stages(&[1, 2, 3, 4])) };
        let of = |is: fn(&Layout, Place) -> bool| -> Vec<(u32, u32)> {
            let places = layout.ranks().flat_map(|rank| layout.places(rank));
            places.filter(|place| is(&layout, *place)).map(|place| (place.rank.pp, place.chunk)).collect()
        };
        assert_eq!((of(Layout::is_first), of(Layout::is_last)), (vec![(0, 0)], vec![(1, 1)]));
    }

    #[test]
    fn ranks_count_through_the_parts_of_experts() {
        let parts = |tp, etp| {
            let layout = Layout { experts: Some(Experts { ep: 1, etp }), ..Layout::dense(tp, stages(&[1])) };
            layout.ranks().map(|rank| layout.etp_rank(rank)).collect::<Vec<_>>()
        };
        assert_eq!((parts(4, 2), parts(4, 1), parts(3, 3)), (vec![0, 1, 0, 1], vec![0; 4], vec![0, 1, 2]));
        let dense = Layout::dense(3, stages(&[1]));
        assert_eq!(dense.ranks().map(|rank| dense.etp_rank(rank)).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn refusals_say_what_is_possible() {
        let possible = |experts| {
            let error = LayoutError::Experts { ep: 5, experts }.to_string();
            error.split_once("possible: ").unwrap().1.to_owned()
        };
        assert_eq!((possible(12), possible(1)), ("1, 2, 3, 4, 6, 12".into(), "1".into()));
        // A number that no model has is not worth a longer list.
        assert!(possible(1 << 13).ends_with("2048, 4096"));
        assert_eq!(possible(1 << 12), possible(1 << 13));
    }

    #[test]
    fn no_stage_is_one_stage() {
        assert_eq!((Stages::nearly_even(7, 0), Stages::nearly_even(7, 1)), (stages(&[7]), stages(&[7])));
    }
}
