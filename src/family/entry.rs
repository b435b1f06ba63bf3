//! One tensor that a rank of a model may save: its name, the parameters in it, and how they are cut.

use std::sync::Arc;

use super::{Arrangement, CutBy, LayerKind, Stage};
use crate::layout::{Layout, Place, Rank};

/// One tensor (or extra state) that a rank of this model may save.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name with `{layer}` and `{expert}`; `/` separates nested dicts.
    pub name: Arc<str>,
    /// The parameters it holds; empty for extra state.
    pub holds: Vec<Holding>,
    /// How it holds them.
    pub arrangement: Arrangement,
    /// The axis along which it is arranged; 0 where it is replicated.
    pub axis: usize,
    /// What cuts it.
    pub by: CutBy,
    /// Where it is.
    pub stage: Stage,
    /// The layers that have it.
    pub layers: LayerKind,
    /// Not trained: no optimizer has a state of it.
    pub buffer: bool,
    /// On the last stage too: a copy, if that is not the first.
    pub also_last: bool,
    /// Whether it is known if ranks hold parts of it or copies.
    pub copies: Copies,
    /// Saved only where there is more than one stage.
    pub only_if_pipelined: bool,
    /// Saved and never computed with. It is what this parameter is where the source has none.
    pub unused_like: Option<String>,
    /// Where its dict must be made anew: the dict it is like.
    pub container_like: Option<String>,
    /// The spelling it belongs to, where the same parameters have several.
    pub dialect: Option<Arc<str>>,
    /// Another tensor holds the same, and both are saved.
    pub copy: bool,
    /// It is this part of so many equal ones, on every rank.
    pub fixed_part: Option<(u64, u64)>,
    /// It holds the parameters of all experts of its rank, along an axis of their own that stands first.
    pub stacked: bool,
    /// Nothing but this number.
    pub constant: Option<f32>,
    /// Files may have it, and nobody needs it.
    pub ignored: bool,
    /// Why not, where that is not because the model computes it.
    pub why_ignored: Option<String>,
}

/// One parameter in a tensor.
#[derive(Debug, Clone)]
pub struct Holding {
    /// Canonical name with `{layer}` and `{expert}`.
    pub param: String,
    /// Its share of the tensor's rows.
    pub share: u64,
    /// Names of its dimensions.
    pub dimensions: Vec<String>,
    /// Most parts it is cut in: ranks beyond that hold copies.
    pub most_parts: Option<u64>,
}

/// How far a checkpoint says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// It is not a question for this tensor, or it is answered.
    Settled,
    /// A rank's rows must be looked at: as many as this are a copy.
    Ask {
        /// Rows of the whole tensor.
        rows: u64,
    },
    /// Nothing says it. Without tensor parallelism it makes no difference.
    Unknown,
}

/// Name of the dimension that padding makes longer.
pub const VOCABULARY: &str = "vocabulary";

impl Holding {
    /// Whether axis `axis` of the parameter is the vocabulary, whose padding depends on the layout.
    #[must_use]
    pub fn is_vocabulary(&self, axis: usize) -> bool {
        self.dimensions.get(axis).is_some_and(|name| name == VOCABULARY)
    }
}

impl Entry {
    /// Whether it is a copy: what it holds is what another tensor says.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        self.copy || (self.only_if_pipelined && self.unused_like.is_none())
    }

    /// Whether a layer of this kind may have it; `None` is no layer.
    #[must_use]
    pub fn fits(&self, kind: Option<LayerKind>) -> bool {
        kind.is_none_or(|kind| self.layers == LayerKind::Any || self.layers == kind)
    }

    /// Whether it is on the stage of `place`, where its layer is not asked for.
    #[must_use]
    pub fn is_on(&self, layout: &Layout, place: Place) -> bool {
        match self.stage {
            Stage::First => layout.is_first(place) || (self.also_last && layout.is_last(place)),
            Stage::Last => layout.is_last(place),
            Stage::Layer => true,
        }
    }

    /// In how many parts `layout` cuts this tensor, and which of them is that of `rank`.
    #[must_use]
    pub fn part(&self, layout: &Layout, rank: Rank) -> (u64, u64) {
        if let Some((part, of)) = self.fixed_part {
            return (of, part);
        }
        match self.arrangement {
            super::Arrangement::Replicated => (1, 0),
            _ => self.by.part(layout, rank),
        }
    }
}
