//! What stands in `common.pt` of a torch_dist checkpoint and in no rank file.
//!
//! Source: Megatron-LM's `checkpointing.py` (`_build_sharded_state_dict_metadata`), `dist_checkpointing/serialization.py`,
//! `optimizer/optimizer.py` and `optimizer/distrib_optimizer.py`.

use crate::format::megatron::keys::BUFFER_MASTERS;
use crate::value::Value;

/// The file with what all ranks save alike.
pub const COMMON_FILE: &str = "common.pt";
/// The object that takes its place in versions after 0.16: a list of one dict.
pub const COMMON_STATE: &str = "common_state";
/// What says how a checkpoint's content is laid out.
pub const CONTENT_METADATA: &str = "content_metadata";
/// How the states of a distributed optimizer are kept, in `content_metadata`.
const SHARDING: &str = "distrib_optim_sharding_type";
/// The same in the optimizer's own entry. Others do not say it.
pub const PARAM_STATE_SHARDING: &str = "param_state_sharding_type";
/// The masters as a mixed-precision optimizer calls them, and a distributed one.
pub const MASTERS: [&str; 2] = ["fp32_param", BUFFER_MASTERS];
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
        fields.push((Value::str(SHARDING), Value::str(FULLY_RESHARDABLE)));
        fields.push(flag("distrib_optim_fully_reshardable_mem_efficient", false));
    }
    Value::Dict(fields.into())
}
