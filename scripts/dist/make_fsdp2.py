#!/usr/bin/env python3
"""Train a tiny transformers model under FSDP2 for two steps and save it in every way that DCP is written.

usage: make_fsdp2.py KIND --out OUT [--nproc N]
KIND is a model of MODELS. In OUT: `dcp/` (parts model and optim), `accelerate/`, `hf/` with the same weights; `whole.safetensors`, and
`next.safetensors` of the step after.
"""

import common

common.begin()
import argparse  # noqa: E402
from pathlib import Path  # noqa: E402

import fsdp2_run  # noqa: E402
import torch  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

STEPS = 2
# Sizes that no number of ranks divides.
SIZES = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=53, vocab_size=101, head_dim=8, max_position_embeddings=64)
MODELS = {
    "llama": ("llama", dict(num_hidden_layers=3, tie_word_embeddings=False, dtype="float32", **SIZES)),
    "llama-tied-bf16": ("llama", dict(num_hidden_layers=2, tie_word_embeddings=True, dtype="bfloat16", **SIZES)),
    "qwen3": ("qwen3", dict(num_hidden_layers=2, tie_word_embeddings=False, dtype="float32", **SIZES)),
}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=MODELS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--nproc", type=int, default=3, help="ranks (default 3)")
    options = parser.parse_args(arguments)
    (options.out / "accelerate").mkdir(parents=True)
    model, sizes = MODELS[options.kind]
    config = AutoConfig.for_model(model, **sizes)
    config.save_pretrained(options.out / "hf")
    kept = fsdp2_run.on_ranks(options.nproc, train, options, name=options.kind)
    for name, whole in kept.items():
        fsdp2_run.write(options.out / f"{name}.safetensors", whole)
    save_hugging_face(config, kept["whole"][0], options.out / "hf")


def train(results, options):
    run = fsdp2_run.Run(options.out / "hf", seed=1)
    for step in range(STEPS):
        run.step(step)
    fsdp2_run.save_dcp(run, options.out / "dcp")
    fsdp2_run.save_accelerate(run, options.out / "accelerate")
    whole = run.whole()
    run.step(STEPS)
    fsdp2_run.keep(results, whole=whole, next=run.whole())


def save_hugging_face(config, tensors, directory):
    model = AutoModelForCausalLM.from_config(config, dtype=config.dtype)
    weights = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    model.load_state_dict(weights)
    with torch.no_grad():
        model.save_pretrained(directory)


if __name__ == "__main__":
    main()
