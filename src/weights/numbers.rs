//! Single numbers that an optimizer keeps for each parameter, such as how many steps it has taken with it.
//!
//! Not here: numbers of which there is one for each element (`Weights::sets`), and settings of parameter groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Set, Weights, WeightsError};
use crate::catalog::{Optimizer, Param, STEP, StateOf};
use crate::tensor::Dtype;

/// What an optimizer says in one number for each parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// The optimizer's name of it: `step`.
    pub state: Arc<str>,
    /// The number of every parameter that has none of its own, as text. `None` where the checkpoint does not say it.
    pub common: Option<String>,
    /// Numbers of parameters that have another, by canonical name.
    pub own: BTreeMap<Arc<str>, String>,
}

impl Numbers {
    /// That of a parameter.
    #[must_use]
    pub fn of(&self, parameter: &str) -> Option<&str> {
        self.own.get(parameter).or(self.common.as_ref()).map(String::as_str)
    }
}

impl Weights {
    /// The numbers of every state that is one for each parameter. The step is always among them.
    ///
    /// # Errors
    /// [`WeightsError::Read`], [`WeightsError::Gather`]
    pub fn numbers(&self) -> Result<Vec<Numbers>, WeightsError> {
        let Some(optimizer) = &self.catalog.optimizer else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        if optimizer.state(STEP).is_none() {
            all.push(Numbers { state: STEP.into(), common: optimizer.step.map(text), own: BTreeMap::new() });
        }
        for state in &optimizer.states {
            let (common, own) = match &state.of {
                StateOf::Elements(_) => continue,
                StateOf::Same(value) => (value.as_number().map(text), BTreeMap::new()),
                StateOf::Scalar(params) => {
                    let unused = &self.catalog.unused;
                    let own = self.each_number(Set { state: Some(&state.name), params, unused }.params())?;
                    let first = own.iter().next().map(|(_, number)| number.clone());
                    (first.clone(), own.into_iter().filter(|(_, number)| Some(number) != first.as_ref()).collect())
                }
            };
            all.push(Numbers { state: state.name.clone(), common, own });
        }
        Ok(all)
    }

    /// Its states that are one tensor of one element for each parameter.
    pub(crate) fn scalar_sets(&self) -> impl Iterator<Item = Set<'_>> {
        let states = self.catalog.optimizer.iter().flat_map(|optimizer: &Optimizer| &optimizer.states);
        states.filter_map(|state| match &state.of {
            StateOf::Scalar(params) => Some(Set { state: Some(&state.name), params, unused: &self.catalog.unused }),
            StateOf::Elements(_) | StateOf::Same(_) => None,
        })
    }

    fn each_number<'a>(&self, params: impl Iterator<Item = &'a Param>) -> Result<BTreeMap<Arc<str>, String>, WeightsError> {
        let mut found = BTreeMap::new();
        for param in params {
            let mut bytes = Vec::new();
            self.stream(&Self::plan(param, param.size())?, &mut |read| {
                bytes.extend_from_slice(read);
                true
            })?;
            found.insert(param.name.clone(), number(param.dtype, &bytes));
        }
        Ok(found)
    }
}

/// A number as text. Whole ones have no point, so that numbers of two types are the same text where they are the same.
fn text(number: f64) -> String {
    number.to_string()
}

fn number(dtype: Dtype, bytes: &[u8]) -> String {
    let known = match dtype {
        Dtype::Float32 => bytes.try_into().map(|bytes| f64::from(f32::from_le_bytes(bytes)).to_string()),
        Dtype::Float64 => bytes.try_into().map(|bytes| f64::from_le_bytes(bytes).to_string()),
        Dtype::Int32 => bytes.try_into().map(|bytes| i32::from_le_bytes(bytes).to_string()),
        Dtype::Int64 => bytes.try_into().map(|bytes| i64::from_le_bytes(bytes).to_string()),
        _ => Ok(format!("{dtype} {bytes:02x?}")),
    };
    match known {
        Ok(text) => text,
        Err(_) => format!("{dtype} {bytes:02x?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_is_the_same_text_in_every_type() {
        let seven = [
            number(Dtype::Float32, &7f32.to_le_bytes()),
            number(Dtype::Float64, &7f64.to_le_bytes()),
            number(Dtype::Int32, &7i32.to_le_bytes()),
            number(Dtype::Int64, &7i64.to_le_bytes()),
            text(7.0),
        ];
        assert!(seven.iter().all(|text| text == "7"), "{seven:?}");
        assert_eq!(number(Dtype::Bfloat16, &[1, 2]), "bfloat16 [01, 02]");
        assert_eq!(number(Dtype::Float32, &[1]), "float32 [01]");
    }
}
