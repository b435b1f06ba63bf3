"""Names for models, layouts and optimizers, as in `moe_tp2pp2ep2etp1_dist`."""

import dataclasses
import math
import re

TOKEN = re.compile(r"(tp|pp|vpp|ep|etp|dp|first|last)(\d+)|-(?P<stages>[EtmL.]+)")


@dataclasses.dataclass(frozen=True)
class Layout:
    """`tp2pp2vpp2ep2etp1dp2`; `first3`, `last3`: layers of the first or last stage; `-Ett.t.ttL`: a custom layout, with
    dots for bars."""

    tp: int = 1
    pp: int = 1
    vpp: int = 1
    ep: int = 1
    etp: int = 0  # as in Megatron, that of the dense part unless said
    dp: int = 0  # the smallest possible unless said
    first: int = 0
    last: int = 0
    stages: str = ""

    @classmethod
    def parse(cls, text):
        rest = TOKEN.sub("", text)
        if rest:
            raise ValueError(f"layout {text}: cannot read {rest}")
        found = {m[1] or "stages": m["stages"] or int(m[2]) for m in TOKEN.finditer(text)}
        layout = cls(**found)
        bars = layout.stages.count(".") + 1
        return dataclasses.replace(
            layout,
            etp=layout.etp or layout.tp,
            vpp=bars // layout.pp if layout.stages else layout.vpp,
            # As short as it can be said: Ettt.tL is Et*3|tL.
            stages=re.sub(r"t{2,}", lambda layers: f"t*{len(layers[0])}", layout.stages.replace(".", "|")),
        )

    @property
    def world(self):
        """Ranks: dense and expert layers must both fill them."""
        least = math.lcm(self.tp, self.ep * self.etp)
        return self.pp * (self.tp * self.dp if self.dp else least)

    @property
    def data_parallel(self):
        return self.world // (self.tp * self.pp)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """`plain` or `dist` (ributed), with `fused` for what GPUs use in place of torch's Adam, `fp32` for a model without
    mixed precision, `fp16` for one with a loss scale, and `b600` for buckets of at least 600 parameters, as with
    overlap_grad_reduce. `none` saves the weights alone."""

    kind: str
    fused: bool = False
    dtype: str = "bf16"
    bucket: int = 0

    @classmethod
    def parse(cls, text):
        match = re.fullmatch(r"(plain|dist|none)(fused)?(fp32|fp16)?(?:b(\d+))?", text)
        if not match:
            raise ValueError(f"optimizer {text}")
        return cls(match[1], bool(match[2]), match[3] or "bf16", int(match[4] or 0))

    @property
    def distributed(self):
        return self.kind == "dist"


# Sizes are chosen so that no parameter is a multiple of 64 elements, which is where flat buffers show their padding.
_BASE = {
    "num_layers": 8,
    "hidden_size": 20,
    "ffn_hidden_size": 36,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": 5,
    "add_bias_linear": False,
    "normalization": "RMSNorm",
    "swiglu": True,
    "tied": False,
    "vocab_size": 50,
    "divisible_by": 2,
    "positions": "rope",
    "max_positions": 30,
}
_MOE = {
    **_BASE,
    "num_layers": 4,
    "num_moe_experts": 4,
    "moe_ffn_hidden_size": 12,
    "moe_shared_expert_intermediate_size": 16,
    "moe_router_topk": 2,
    "moe_router_score_function": "sigmoid",
    "moe_router_enable_expert_bias": True,
    "moe_router_load_balancing_type": "none",
    "moe_token_dispatcher_type": "allgather",
}
MODELS = {
    "dense": _BASE,
    "qknorm": {**_BASE, "qk_layernorm": True},
    # transformers does not rotate heads of an odd size.
    "llama": {**_BASE, "kv_channels": 6},
    "qwen3": {**_BASE, "kv_channels": 6, "qk_layernorm": True},
    "tied": {
        **_BASE,
        "num_layers": 4,
        "num_query_groups": 4,
        "add_bias_linear": True,
        "normalization": "LayerNorm",
        "swiglu": False,
        "tied": True,
        "positions": "learned_absolute",
    },
    "moe": _MOE,
    # The first layer is dense, linear layers have biases (which shared experts cannot have), every expert a plain MLP.
    "moe8": {
        **_MOE,
        "num_moe_experts": 8,
        "moe_layer_freq": [0, 1, 1, 1],
        "moe_shared_expert_intermediate_size": None,
        "add_bias_linear": True,
        "swiglu": False,
    },
    "mla": {
        **_BASE,
        "num_layers": 4,
        "num_query_groups": 4,
        "multi_latent_attention": True,
        "q_lora_rank": 6,
        "kv_lora_rank": 6,
        "qk_head_dim": 4,
        "qk_pos_emb_head_dim": 2,
        "v_head_dim": 3,
        "qk_layernorm": True,
    },
    "mtp": {**_BASE, "num_layers": 4, "mtp_num_layers": 1},
}


def padded_vocabulary(model, tp):
    """megatron/training/vocab_utils.py, calculate_padded_vocab_size."""
    unit = model["divisible_by"] * tp
    return math.ceil(model["vocab_size"] / unit) * unit


def parse(name):
    """`dense_tp2pp2_plain` -> its model, layout and optimizer."""
    model, layout, optimizer = name.split("_")
    return MODELS[model], Layout.parse(layout), Optimizer.parse(optimizer)
