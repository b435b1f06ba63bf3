//! What a distributed checkpoint has of the optimizer beside its states, which are tensors there: settings, steps taken, the loss scale.

#![expect(clippy::disallowed_methods, reason = "an optimizer that is no dict has no other entries")]

use super::groups::{self, Steps};
use super::{Chain, RankOptimizer};
use crate::catalog::Encoding;
use crate::format::megatron::dist_keys::{COMMON_STEP, FULLY_RESHARDABLE, PARAM_STATE_SHARDING};
use crate::format::megatron::keys::{MASTERS, OPTIMIZER, PARAM_GROUPS, STATE, STEP};
use crate::tensor::{Dtype, Shape};
use crate::value::Value;
use crate::view::megatron::contents::Contents;
use crate::view::megatron::verbatim::Verbatim;
use crate::view::optimizer::inner_of;

impl RankOptimizer<'_> {
    /// The entry `optimizer` of what all ranks save alike: one, or by number where experts have one of their own.
    pub(in crate::view) fn common(&self, contents: &mut Contents<'_>) -> Value {
        let mut chains: Vec<Value> = self.chains.iter().map(|chain| self.common_of(chain, contents)).collect();
        if chains.len() == 1 {
            return chains.remove(0);
        }
        Value::Dict((0i64..).map(Value::Int).zip(chains).collect())
    }

    fn common_of(&self, chain: &Chain<'_>, contents: &mut Contents<'_>) -> Value {
        let (inner_source, is_nested) = inner_of(chain.template);
        let inner = self.common_inner(chain, inner_source, contents);
        if self.encoding == Encoding::Single {
            return inner;
        }
        let mut entries = vec![(Value::str(OPTIMIZER), inner)];
        if is_nested {
            let is_made =
                |key: &str| key == OPTIMIZER || key == PARAM_STATE_SHARDING || MASTERS.contains(&key);
            let others = chain.template.items().unwrap_or_default().iter();
            let others = others.filter(|(key, _)| !key.as_str().is_some_and(is_made));
            let mut verbatim = Verbatim::new(chain.file, contents);
            entries.extend(others.map(|(key, value)| (key.clone(), verbatim.value(value))));
        }
        if self.has_buffers() {
            entries.push((Value::str(PARAM_STATE_SHARDING), Value::str(FULLY_RESHARDABLE)));
        }
        Value::Dict(entries.into())
    }

    /// Torch's own optimizer, without the numbers of parameters, which are those of a rank.
    fn common_inner(&self, chain: &Chain<'_>, source: &Value, contents: &mut Contents<'_>) -> Value {
        let keeps_state = !self.has_buffers();
        let steps = Steps::of(self.basis, self.source, keeps_state);
        let mut entries = Vec::new();
        for (key, value) in source.items().unwrap_or_default() {
            match key.as_str() {
                Some(STATE) => {}
                Some(PARAM_GROUPS) => {
                    let groups = groups::list(self, chain, &steps, groups::Numbers::LeftOut, contents);
                    entries.push((key.clone(), groups));
                }
                _ => entries.push((key.clone(), Verbatim::new(chain.file, contents).value(value))),
            }
        }
        if let Some(step) = self.step_of_each(&steps).filter(|_| keeps_state) {
            // Torch keeps it in 32 bits, however large.
            let bytes = (step as f32).to_le_bytes().to_vec();
            let step = contents.bytes(STEP, Dtype::Float32, Shape(vec![]), bytes);
            let state = Value::Dict([(Value::str(COMMON_STEP), step)].into());
            entries.push((Value::str(STATE), state));
        }
        Value::Dict(entries.into())
    }

    /// The number of steps, where it is kept with each parameter.
    fn step_of_each(&self, steps: &Steps<'_>) -> Option<f64> {
        let optimizer = self.basis.catalog.optimizer.as_ref()?;
        let with_each = optimizer.state(STEP).and(optimizer.step);
        steps.with_parameters.or(with_each)
    }
}
