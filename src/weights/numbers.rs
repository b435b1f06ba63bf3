//! Single numbers that an optimizer keeps for each parameter, such as how many steps it has taken with it.
//!
//! Not here: numbers of which there is one for each element (`Weights::sets`), and settings of parameter groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Set, Weights, WeightsError};
use crate::catalog::{Optimizer, Param, STEP, StateOf};
use crate::tensor::Dtype;

/// What an optimizer says in one number for each parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// The optimizer's name of it: `step`.
    pub state: Arc<str>,
    /// The number that most parameters have, as text. `None` where the checkpoint does not say it.
    pub common: Option<String>,
    /// Numbers of parameters that have another, by canonical name.
    pub own: BTreeMap<Arc<str>, String>,
    /// Parameters that it is said of, where it is said of each: of others there is none. `None` where it is said once, of all.
    pub said_of: Option<BTreeSet<Arc<str>>>,
}

impl Numbers {
    /// That of a parameter.
    #[must_use]
    pub fn of(&self, parameter: &str) -> Option<&str> {
        if self.said_of.as_ref().is_some_and(|all| !all.contains(parameter)) {
            return None;
        }
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
            all.push(Numbers { state: STEP.into(), common: optimizer.step.map(text), own: BTreeMap::new(), said_of: None });
        }
        for state in &optimizer.states {
            let state_name = state.name.clone();
            all.push(match &state.of {
                StateOf::Elements(_) => continue,
                StateOf::Same(value) => {
                    let common = value.as_number().map(text);
                    Numbers { state: state_name, common, own: BTreeMap::new(), said_of: None }
                }
                StateOf::Scalar(params) => {
                    let unused = &self.catalog.unused;
                    let each = self.each_number(Set { state: Some(&state.name), params, unused }.params())?;
                    of_each(state_name, each)
                }
            });
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

/// Those of a state of which each parameter has one.
fn of_each(state: Arc<str>, each: BTreeMap<Arc<str>, String>) -> Numbers {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for number in each.values() {
        *counts.entry(number).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    let common = most.map(|(number, _)| number.to_owned());
    let said_of = Some(each.keys().cloned().collect());
    let own = each.into_iter().filter(|(_, number)| Some(number) != common.as_ref()).collect();
    Numbers { state, common, own, said_of }
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
    fn the_common_number_is_that_of_most_parameters() {
        let each = [("a", "4"), ("b", "3"), ("c", "3")].map(|(name, number)| (name.into(), number.to_owned()));
        let numbers = of_each("step".into(), each.into());
        assert_eq!((numbers.common.as_deref(), numbers.of("a"), numbers.of("b"), numbers.of("d")), (Some("3"), Some("4"), Some("3"), None));
        assert_eq!(numbers.own.len(), 1);
    }

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
