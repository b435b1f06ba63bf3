"""Asks for what a model of Transformer Engine's modules asks for, which needs a GPU: some keys differ, and more modules have a state.

The parameters are the same as with torch's modules. Sources: the Transformer Engine specs of gpt_layer_specs.py and the `sharded_state_dict`
of extensions/transformer_engine.py; norms of Transformer Engine 2 are operations, which have an `_extra_state`.
"""

import megatron.core
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedObject

# Norms that a linear layer does by itself, in models whose attention is multi-latent.
FUSED = {
    "self_attention.q_layernorm.": "self_attention.linear_q_up_proj.layer_norm_",
    "self_attention.kv_layernorm.": "self_attention.linear_kv_up_proj.layer_norm_",
}
BEFORE_MLP, BEFORE_FC1 = "pre_mlp_layernorm.", "mlp.linear_fc1.layer_norm_"
PROJECTION = "self_attention.linear_proj.weight"
# 0.16 leaves the state of attention itself out.
ATTENTION_HAS_STATE = tuple(map(int, megatron.core.__version__.split(".")[:2])) < (0, 16)


def apply(chunk, entries):
    """Give the entries of a model chunk their other keys; returns those that torch's modules lack."""
    extra = {}
    for name, entry in entries.items():
        if not hasattr(entry, "prepend_axis_num") and not hasattr(entry, "build_fn"):
            continue
        if BEFORE_MLP in name:
            layer, leaf = name.split(BEFORE_MLP)
            stem = entry.key.removesuffix(BEFORE_MLP + leaf).removesuffix(BEFORE_FC1 + leaf)
            has_experts = hasattr(chunk.get_submodule(f"{layer}mlp"), "experts")
            entry.key = stem + (BEFORE_MLP if has_experts else BEFORE_FC1) + leaf
        elif chunk.config.multi_latent_attention:
            for norm, linear in FUSED.items():
                entry.key = entry.key.replace(norm, linear)
        if entry.key.endswith("norm.weight"):
            state = entry.key.removesuffix("weight") + "_extra_state"
            extra[name.removesuffix("weight") + "_extra_state"] = _state(state, entry)
        if ATTENTION_HAS_STATE and entry.key.endswith(PROJECTION):
            state = entry.key.replace(PROJECTION, "self_attention.core_attention._extra_state")
            extra[name.replace(PROJECTION, "self_attention.core_attention._extra_state")] = _state(state, entry)
    return extra


def _state(key, entry):
    """An empty state, once for every layer, as the module's own parameter is there."""
    axes = entry.prepend_axis_num
    shape, offset = (entry.global_shape[:axes], entry.global_offset[:axes]) if axes else ((1,), (0,))
    return ShardedObject(key, None, shape, offset, replica_id=_replica())


def _replica():
    """Parts that ranks share out are each a first copy, but all ranks have the same state."""
    return (0, parallel_state.get_tensor_model_parallel_rank(), parallel_state.get_data_parallel_rank(with_context_parallel=True))
