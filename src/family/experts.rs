//! Experts: how many there are and which layers have them, by args.

use super::ModelError;
use super::file::ExpertsFile;
use crate::value::Value;

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

    pub(super) fn are_in(&self, layer: u32) -> bool {
        match &self.layers {
            Layers::Every(step) => layer.is_multiple_of(*step),
            // Args may list fewer layers than there are: a mistake that the tensors then show.
            Layers::Listed(layers) => layers.get(layer as usize).copied().unwrap_or(false),
        }
    }
}
