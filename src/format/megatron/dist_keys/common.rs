//! What stands in `common.pt` of a torch_dist checkpoint and in no rank file.
//!
//! Source: Megatron-LM's `checkpointing.py` (`_build_sharded_state_dict_metadata`), `dist_checkpointing/serialization.py`,
//! `optimizer/optimizer.py` and `optimizer/distrib_optimizer.py`.

use crate::value::Value;

/// The file with what all ranks save alike.
pub const COMMON_FILE: &str = "common.pt";
/// What says how a checkpoint's content is laid out.
pub const CONTENT_METADATA: &str = "content_metadata";
/// How the states of a distributed optimizer are kept, in `content_metadata`, and in the optimizer's own entry.
pub const SHARDING_TYPE: [&str; 2] = ["distrib_optim_sharding_type", "param_state_sharding_type"];
/// States of a distributed optimizer that are tensors like the weights.
pub const FULLY_RESHARDABLE: &str = "fully_reshardable";
/// Steps taken, among the states of an optimizer that counts them for each parameter.
pub const COMMON_STEP: &str = "common_step";

/// `content_metadata` of a checkpoint with stacked layers and states that are tensors like the weights.
#[must_use]
pub fn content_metadata(is_distributed: bool) -> Value {
    let flag = |name: &str, value| (Value::str(name), Value::Bool(value));
    let mut fields = vec![flag("singleton_local_shards", false), flag("chained_optim_avoid_prefix", true)];
    if is_distributed {
        let [kind, _] = SHARDING_TYPE;
        fields.push((Value::str(kind), Value::str(FULLY_RESHARDABLE)));
        fields.push(flag("distrib_optim_fully_reshardable_mem_efficient", false));
    }
    Value::Dict(fields.into())
}
