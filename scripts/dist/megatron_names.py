"""Whole tensors of a Megatron run as transformers has them in Llama and Qwen3: names, layers apart, and what Megatron has in one tensor.

Written from Megatron's and transformers' code and not from ckpt-fs, so that both must be right to agree.
"""

import torch

OUTSIDE = {
    "embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "decoder.final_layernorm.weight": "model.norm.weight",
    "output_layer.weight": "lm_head.weight",
}
IN_LAYERS = {
    "self_attention.linear_qkv.layer_norm_weight": "input_layernorm.weight",
    "self_attention.linear_proj.weight": "self_attn.o_proj.weight",
    "self_attention.q_layernorm.weight": "self_attn.q_norm.weight",
    "self_attention.k_layernorm.weight": "self_attn.k_norm.weight",
    "mlp.linear_fc1.layer_norm_weight": "post_attention_layernorm.weight",
    "mlp.linear_fc2.weight": "mlp.down_proj.weight",
}
LAYERS = "decoder.layers."
STATE = "optimizer.state."
MASTER = "fp32_param"


def of_transformers(tensors, config, step, masters=False):
    """{model.<name>, optim.state.<name>.<state>: tensor}, as fsdp2_load and dcp_load write them; with `masters` those are the weights."""
    found = {}
    for key, tensor in tensors.items():
        kind, _, name = key.removeprefix(STATE).partition(".") if key.startswith(STATE) else ("", "", key)
        for new, part in _parts(name, tensor, config):
            if kind == (MASTER if masters else ""):
                found[f"model.{new}"] = part
            elif kind:
                found[f"optim.state.{new}.{'master' if kind == MASTER else kind}"] = part
            if kind == MASTER:
                # Megatron takes a step of everything at once.
                found[f"optim.state.{new}.step"] = torch.tensor(float(step))
    return found


def _parts(name, tensor, config):
    if not name.startswith(LAYERS):
        yield OUTSIDE[name], tensor
        return
    for layer, of_layer in enumerate(tensor):
        for new, part in _of_layer(name.removeprefix(LAYERS), of_layer, config):
            yield f"model.layers.{layer}.{new}", part


def _of_layer(name, tensor, config):
    if name == "mlp.linear_fc1.weight":
        gate, up = tensor.chunk(2)
        yield from (("mlp.gate_proj.weight", gate), ("mlp.up_proj.weight", up))
    elif name == "self_attention.linear_qkv.weight":
        # Each group has the queries that share a key, then that and its value.
        groups, size = config["num_key_value_heads"], config["head_dim"]
        queries = config["num_attention_heads"] // groups
        rows = tensor.view(groups, queries + 2, size, -1)
        for kind, part in (("q", rows[:, :queries]), ("k", rows[:, queries]), ("v", rows[:, queries + 1])):
            yield f"self_attn.{kind}_proj.weight", part.reshape(-1, tensor.shape[1])
    else:
        yield IN_LAYERS[name], tensor
