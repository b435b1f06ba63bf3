"""Logits of a Megatron checkpoint in one rank file, by megatron-core's own model on the CPU.

The model is built from the file's `args` alone, as --use-checkpoint-args and the flags that ckpt-fs prints would build
it (arguments.py, core_transformer_config_from_args; gpt_builders.py), and loaded strictly.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import torch

from megatron_core import ENVIRONMENT, environment_is_set, on_cpu


def transformer_config(args):
    from megatron.core.transformer.transformer_config import TransformerConfig

    experts = {}
    if args.num_experts:
        experts = dict(
            num_moe_experts=args.num_experts,
            moe_ffn_hidden_size=args.moe_ffn_hidden_size,
            moe_layer_freq=args.moe_layer_freq,
            moe_router_topk=args.moe_router_topk,
            moe_router_pre_softmax=args.moe_router_pre_softmax,
            moe_router_score_function=args.moe_router_score_function,
            moe_router_load_balancing_type=args.moe_router_load_balancing_type,
            moe_shared_expert_intermediate_size=args.moe_shared_expert_intermediate_size,
            moe_shared_expert_gate=args.moe_shared_expert_gate,
            moe_grouped_gemm=args.moe_grouped_gemm,
        )
    return TransformerConfig(
        num_layers=args.num_layers,
        hidden_size=args.hidden_size,
        ffn_hidden_size=args.ffn_hidden_size,
        num_attention_heads=args.num_attention_heads,
        num_query_groups=args.num_query_groups,
        kv_channels=args.kv_channels,
        layernorm_epsilon=args.layernorm_epsilon,
        normalization=args.normalization,
        add_bias_linear=args.add_bias_linear,
        add_qkv_bias=args.add_qkv_bias,
        qk_layernorm=args.qk_layernorm,
        window_size=args.window_size,
        gated_linear_unit=args.swiglu,
        activation_func=torch.nn.functional.silu,
        bias_activation_fusion=False,
        masked_softmax_fusion=False,
        attention_dropout=args.attention_dropout,
        hidden_dropout=args.hidden_dropout,
        **experts,
    )


def build(args):
    from megatron.core.models.gpt import GPTModel, gpt_layer_specs

    config = transformer_config(args)
    if config.num_moe_experts:
        layers = gpt_layer_specs.get_gpt_decoder_block_spec(
            config, use_transformer_engine=False, normalization=config.normalization
        )
    else:
        layers = gpt_layer_specs.get_gpt_layer_local_spec(
            qk_layernorm=config.qk_layernorm, normalization=config.normalization
        )
    return GPTModel(
        config=config,
        transformer_layer_spec=layers,
        vocab_size=args.padded_vocab_size,
        max_sequence_length=args.max_position_embeddings,
        share_embeddings_and_output_weights=not args.untie_embeddings_and_output_weights,
        position_embedding_type=args.position_embedding_type,
        rotary_percent=args.rotary_percent,
        rotary_base=args.rotary_base,
        rope_scaling=args.use_rope_scaling,
        rope_scaling_factor=args.rope_scaling_factor,
        seq_len_interpolation_factor=args.rotary_seq_len_interpolation_factor,
    )


def logits(directory, tokens):
    tracker = Path(directory) / "latest_checkpointed_iteration.txt"
    name = tracker.read_text().strip()
    name = name if name == "release" else f"iter_{int(name):07d}"
    file = Path(directory) / name / "mp_rank_00" / "model_optim_rng.pt"
    # As Megatron loads: nothing but plain values and argparse.Namespace.
    import argparse

    with torch.serialization.safe_globals([argparse.Namespace]):
        saved = torch.load(file, map_location="cpu", weights_only=True)
    assert saved["checkpoint_version"] == 3.0 and "iteration" in saved
    args = saved["args"]
    model = build(args)
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    missing = model.load_state_dict(saved["model"], strict=False)
    lacking = [key for key in missing.missing_keys if not key.endswith("_extra_state")]
    assert not lacking and not missing.unexpected_keys, missing
    model.float().eval()
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    mask = torch.triu(torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool), 1)[None, None]
    if args.window_size:
        back = args.window_size[0]
        far = torch.tril(torch.ones_like(mask), -back - 1)
        mask = mask | far
    with torch.no_grad():
        return model(tokens, positions, mask)[..., : args.vocab_size]


def main():
    if not environment_is_set():
        os.execve(sys.executable, [sys.executable, "-m", "hugging_face.megatron", *sys.argv[1:]], {**os.environ, **ENVIRONMENT})
    on_cpu.install()
    from megatron.core import parallel_state
    from megatron.core.transformer.moe import moe_utils

    # Looked at without Transformer Engine too, and defined with it alone.
    vars(moe_utils).setdefault("te_general_gemm", None)
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

    with tempfile.TemporaryDirectory() as directory:
        torch.distributed.init_process_group("gloo", f"file://{directory}/store", rank=0, world_size=1)
        parallel_state.initialize_model_parallel()
        model_parallel_cuda_manual_seed(1)
        for directory, tokens, out in json.load(open(sys.argv[1])):
            torch.save(logits(directory, torch.load(tokens)), out)
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
