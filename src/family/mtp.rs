//! Layers that predict tokens beyond the next one: how many there are, and what they share with the layers of the model.

use super::Family;
use super::file::{PredictionsFile, TensorFile};
use crate::value::Value;

impl Family {
    /// Tensors of the family, those that are like layers written out, and whether they are that.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (TensorFile, bool)> {
        self.file.tensor.iter().flat_map(|tensor| {
            let Some(prefix) = &tensor.like_layer else { return vec![(tensor.clone(), false)] };
            let of_layers = self.file.tensor.iter().filter_map(|layered| {
                let rest = layered.name.strip_prefix(prefix.as_str())?;
                let name = format!("{}{rest}", tensor.name);
                Some((TensorFile { name, stage: tensor.stage, ..layered.clone() }, true))
            });
            of_layers.collect()
        })
    }
}

/// The parameter of a prediction's layer that is like this one of a layer.
pub(super) fn of_layer(param: &str) -> String {
    param.replacen("layers.{layer}.", "predictions.{depth}.layer.", 1)
}

/// How many layers predict tokens beyond the next one.
pub(super) fn count(file: &PredictionsFile, args: &Value) -> Option<(String, u64)> {
    /// No model has more.
    const MOST: u64 = 1 << 8;
    let count = args.attribute(&file.count)?.as_int().and_then(|n| u64::try_from(n).ok())?;
    let one = args.attribute(&file.one_if).is_some_and(Value::is_truthy);
    let count = if one { count.min(1) } else { count };
    (1..MOST).contains(&count).then_some(("predictions".to_owned(), count))
}
