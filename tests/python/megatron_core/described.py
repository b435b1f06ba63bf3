"""A checkpoint's args, in the words of `specs`: the model that was trained, for a layout of one's own.

What args do not say but the model needs is here as Megatron's options have it by default. How tokens go to experts does
not change what is saved, so it is always what works without a GPU.
"""

import dataclasses

import torch

from .build import LEARNING_RATE
from .specs import Layout, Optimizer

# Fields of args that `specs` and the configuration call the same.
SAME = (
    "num_layers",
    "hidden_size",
    "ffn_hidden_size",
    "num_attention_heads",
    "kv_channels",
    "add_bias_linear",
    "add_qkv_bias",
    "qk_layernorm",
    "normalization",
    "moe_layer_freq",
    "moe_ffn_hidden_size",
    "moe_shared_expert_intermediate_size",
    "moe_router_topk",
    "moe_router_score_function",
    "moe_router_enable_expert_bias",
    "mtp_num_layers",
    "multi_latent_attention",
    "q_lora_rank",
    "kv_lora_rank",
    "qk_head_dim",
    "qk_pos_emb_head_dim",
    "v_head_dim",
)


def model(args):
    """The model of `args`, a mapping."""
    found = {name: args[name] for name in SAME if args.get(name) is not None}
    if args.get("num_experts"):
        found |= {
            "num_moe_experts": args["num_experts"],
            "moe_router_load_balancing_type": "none",
            "moe_token_dispatcher_type": "allgather",
        }
    else:
        # Some versions keep sizes of experts in args of models that have none, which others refuse.
        found = {name: value for name, value in found.items() if not name.startswith("moe_")}
    if found.get("moe_router_enable_expert_bias"):
        found["moe_router_score_function"] = "sigmoid"  # the only one that may have it
    groups = args.get("num_query_groups") if args.get("group_query_attention") else None
    return found | {
        "num_query_groups": groups or args["num_attention_heads"],
        "swiglu": args["swiglu"],
        "tied": not args["untie_embeddings_and_output_weights"],
        "positions": args["position_embedding_type"],
        "max_positions": args["max_position_embeddings"],
        "vocab_size": args.get("vocab_size") or args["padded_vocab_size"],
        "divisible_by": args["make_vocab_size_divisible_by"],
    }


def rates(args):
    """Learning rates, highest and lowest: the unreleased megatron-core tells parameter groups apart by them."""
    return args.get("lr", LEARNING_RATE), args.get("min_lr", LEARNING_RATE / 10)


def layout(tp=1, pp=1, vpp=1, ep=1, etp=0, dp=0):
    return dataclasses.replace(Layout(), tp=tp, pp=pp, vpp=vpp, ep=ep, etp=etp or tp, dp=dp)


def optimizer(args, kind, fused=False):
    """`kind` as in `specs`; the element type is the model's."""
    kinds = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
    return Optimizer(kind, fused, kinds[args["params_dtype"]])
