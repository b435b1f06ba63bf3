//! How large the buckets of a run's gradient buffers are: where a bucket ends decides where the next parameter is saved.
//!
//! Source: Megatron-LM's `distributed_data_parallel.py` and `training.py` (`resolve_ddp_bucket_size`).

use crate::layout::Place;
use crate::value::Value;

/// Elements that fill a bucket on the rank at `place`, which has `parameters` elements in all; `None` for a single bucket.
#[must_use]
pub fn bucket_size(args: &Value, place: Place, parameters: u64) -> Option<u64> {
    let is_set = |field: &str| args.attribute(field).is_some_and(Value::is_truthy);
    let number = |field: &str| {
        let value = args.attribute(field).and_then(Value::as_int);
        value.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0)
    };
    // Buckets are for gradients that travel while others are computed. Only the first stage is short of time for that.
    let is_first = place.rank.pp == 0 && place.chunk == 0;
    if !is_set("overlap_grad_reduce") || !is_first || is_set("overlap_param_gather_with_optimizer_step") {
        return None;
    }
    if let Some(buckets) = number("ddp_num_buckets") {
        return Some(parameters / buckets);
    }
    let replicas = number("data_parallel_size")
        .unwrap_or(1)
        .saturating_mul(number("context_parallel_size").unwrap_or(1));
    Some(number("ddp_bucket_size").unwrap_or_else(|| replicas.saturating_mul(1_000_000).max(40_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Rank;
    use crate::value::{Construct, Object};

    fn args(fields: &[(&str, Value)]) -> Value {
        let state = fields.iter().map(|(key, value)| (Value::str(key), value.clone())).collect();
        Value::Object(std::sync::Arc::new(Object {
            construct: Construct::New,
            callable: Value::None,
            args: Value::None,
            appended: vec![],
            items: vec![],
            state: Some(Value::Dict(state)),
        }))
    }

    #[test]
    fn only_the_first_stage_of_an_overlapping_run_has_buckets() {
        let place = |pp, chunk| Place { rank: Rank { pp, tp: 0, ep: 0 }, chunk };
        let overlap = [("overlap_grad_reduce", Value::Bool(true)), ("data_parallel_size", Value::Int(64))];
        let with = |field: &'static str, number| {
            args(&[overlap.as_slice(), &[(field, Value::Int(number))]].concat())
        };
        assert_eq!(bucket_size(&args(&[]), place(0, 0), 100), None);
        assert_eq!(bucket_size(&args(&overlap), place(0, 0), 100), Some(64_000_000));
        assert_eq!(bucket_size(&args(&overlap), place(1, 0), 100), None);
        assert_eq!(bucket_size(&args(&overlap), place(0, 1), 100), None);
        assert_eq!(bucket_size(&with("ddp_bucket_size", 7), place(0, 0), 100), Some(7));
        assert_eq!(bucket_size(&with("ddp_num_buckets", 7), place(0, 0), 100), Some(14));
    }
}
