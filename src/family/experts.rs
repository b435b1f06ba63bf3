//! Experts: which layers have them, and what cuts their tensors.

use super::file::ExpertsFile;
use super::{ArgRole, Entry, Model, ModelError, Stage};
use crate::layout::{Layout, Place, Processes, Rank};
use crate::value::Value;

/// The layers that have a tensor. In a model without experts every layer is dense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerKind {
    /// Whatever the layer is.
    #[default]
    Any,
    /// Layers without experts.
    Dense,
    /// Layers with experts.
    Expert,
}

/// What cuts a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CutBy {
    /// Tensor parallelism.
    #[default]
    Tp,
    /// Expert tensor parallelism.
    Etp,
}

impl CutBy {
    /// In how many parts `layout` cuts, and which of them is that of `rank`.
    #[must_use]
    pub fn part(self, layout: &Layout, rank: Rank) -> (u64, u64) {
        match self {
            Self::Tp => (layout.tp.into(), rank.tp.into()),
            Self::Etp => (layout.etp().into(), layout.etp_rank(rank).into()),
        }
    }
}

impl Entry {
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

/// Which layers have experts, and how many.
#[derive(Debug, Clone)]
pub(super) struct Experts {
    pub(super) count: u64,
    /// Rows of an expert before it is cut, where args say them.
    pub(super) ffn: Option<u64>,
    layers: Layers,
}

#[derive(Debug, Clone)]
enum Layers {
    /// Every Nth, from the first.
    Every(u32),
    /// Those that are true.
    Listed(Vec<bool>),
}

impl Experts {
    /// What args say of experts; `None` for a model without.
    pub(super) fn of(file: &ExpertsFile, args: &Value) -> Result<Option<Self>, ModelError> {
        /// No layer has more.
        const MOST: i64 = 1 << 16;
        let Some(value) = args.attribute(&file.count).filter(|value| value.is_truthy()) else {
            return Ok(None);
        };
        let count =
            value.as_int().filter(|count| (1..MOST).contains(count)).and_then(|n| u64::try_from(n).ok());
        let unclear = |field: &String, what: &str| ModelError::MissingArg {
            what: what.into(),
            fields: vec![field.clone()],
        };
        let count =
            count.ok_or_else(|| unclear(&file.count, "number of experts, the same for all layers"))?;
        let layers = match args.attribute(&file.layers) {
            None | Some(Value::None) => Some(Layers::Every(1)),
            Some(Value::List(layers) | Value::Tuple(layers)) => {
                let flags = layers.iter().map(|flag| flag.as_int().filter(|flag| (0..2).contains(flag)));
                flags.map(|flag| flag.map(|flag| flag == 1)).collect::<Option<Vec<_>>>().map(Layers::Listed)
            }
            Some(value) => {
                value.as_int().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).map(Layers::Every)
            }
        };
        let layers = layers.ok_or_else(|| unclear(&file.layers, "layers with experts"))?;
        let ffn = args.attribute(&file.ffn).and_then(Value::as_int).and_then(|n| u64::try_from(n).ok());
        Ok(Some(Self { count, ffn: ffn.filter(|rows| *rows > 0), layers }))
    }

    fn are_in(&self, layer: u32) -> bool {
        match &self.layers {
            Layers::Every(step) => layer.is_multiple_of(*step),
            // Args may list fewer layers than there are: a mistake that the tensors then show.
            Layers::Listed(layers) => layers.get(layer as usize).copied().unwrap_or(false),
        }
    }
}

impl Model {
    /// Whether the layer with this number in the model has experts.
    #[must_use]
    pub fn kind_of(&self, layer: u32) -> LayerKind {
        let has_experts = self.experts.as_ref().is_some_and(|experts| experts.are_in(layer));
        if has_experts { LayerKind::Expert } else { LayerKind::Dense }
    }

    /// Experts that each expert rank of `layout` has; none in a model without.
    #[must_use]
    pub fn experts_per_rank(&self, layout: &Layout) -> u32 {
        let experts = self.size("experts").unwrap_or(0);
        u32::try_from(experts / u64::from(layout.ep().max(1))).unwrap_or(u32::MAX)
    }

    /// The kind of the layer with this number, if it is one.
    #[must_use]
    pub fn kind_of_layer(&self, layer: Option<u32>) -> Option<LayerKind> {
        layer.map(|layer| self.kind_of(layer))
    }

    /// The processes of the run that `args` are of, in `layout`.
    #[must_use]
    pub fn processes<'a>(&self, args: &Value, layout: &'a Layout) -> Processes<'a> {
        let size = |field: Option<&str>| {
            let value = field.and_then(|field| args.attribute(field)).and_then(Value::as_int);
            value.and_then(|n| u32::try_from(n).ok()).filter(|n| (1..1 << 20).contains(n)).unwrap_or(1)
        };
        Processes {
            layout,
            cp: size(Some("context_parallel_size")),
            dp: size(self.field_of(ArgRole::DataParallel)),
            dp_last: args.attribute("use_tp_pp_dp_mapping").is_some_and(Value::is_truthy),
        }
    }
}
