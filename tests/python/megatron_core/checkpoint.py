"""Saves and loads one rank as megatron/training/checkpointing.py does for --ckpt-format torch, which is not on PyPI."""

import argparse
import dataclasses
import os
import random

import numpy
import torch
from megatron.core import parallel_state as mpu
from megatron.core import tensor_parallel

from .build import BATCH, SEED
from .specs import padded_vocabulary

# Fields of the configuration that training's args call otherwise, or do not have.
NOT_IN_ARGS = {
    "num_moe_experts",
    "gated_linear_unit",
    "num_layers_in_first_pipeline_stage",
    "num_layers_in_last_pipeline_stage",
}
PLAIN = (type(None), bool, int, float, str, list, tuple, torch.dtype)


def args_of(run, iteration, ckpt_format="torch"):
    """arguments.py: what decides the shape of a model and of a run, under the names of its options."""
    model, layout, spec = run.model, run.layout, run.spec
    config = {field.name: getattr(run.config, field.name) for field in dataclasses.fields(run.config)}
    fields = {k: v for k, v in config.items() if isinstance(v, PLAIN) and k not in NOT_IN_ARGS}
    fields |= {
        "num_experts": model.get("num_moe_experts"),
        "swiglu": model["swiglu"],
        "quick_geglu": False,
        "group_query_attention": model["num_query_groups"] != model["num_attention_heads"],
        "untie_embeddings_and_output_weights": not model["tied"],
        "position_embedding_type": model["positions"],
        "add_position_embedding": True,
        "max_position_embeddings": model["max_positions"],
        "transformer_impl": "local",
        "vocab_size": model["vocab_size"],
        "padded_vocab_size": padded_vocabulary(model, layout.tp),
        "make_vocab_size_divisible_by": model["divisible_by"],
        "pad_vocab_size": True,
        "rank": torch.distributed.get_rank(),
        "world_size": layout.world,
        "data_parallel_size": layout.data_parallel,
        "transformer_pipeline_model_parallel_size": layout.pp,
        "num_layers_per_virtual_pipeline_stage": None,
        "num_virtual_stages_per_pipeline_rank": layout.vpp if layout.vpp > 1 and not layout.stages else None,
        "pipeline_model_parallel_layout": layout.stages or None,
        "decoder_first_pipeline_num_layers": layout.first or None,
        "decoder_last_pipeline_num_layers": layout.last or None,
        "use_distributed_optimizer": spec.distributed,
        "overlap_grad_reduce": spec.bucket > 0,
        "ddp_bucket_size": spec.bucket or None,
        "ddp_num_buckets": None,
        "ddp_pad_buckets_for_high_nccl_busbw": False,
        "accumulate_allreduce_grads_in_fp32": spec.dtype == "bf16",
        "optimizer": "adam",
        "lr": run.rates[0],
        "min_lr": run.rates[1],
        "global_batch_size": BATCH,
        "data_parallel_random_init": False,
        "seed": SEED,
        "ckpt_format": ckpt_format,
        "microbatch_group_size_per_vp_stage": None,  # the configuration has its default filled in, args have not
        "no_save_optim": None,
        "no_save_rng": None,
        "iteration": iteration,
        "consumed_train_samples": iteration * BATCH,
    }
    return argparse.Namespace(**dict(sorted(fields.items())))  # training has one order, in whatever layout


def directory_of(root, iteration):
    """get_checkpoint_name"""
    name = f"mp_rank_{mpu.get_tensor_model_parallel_rank():02d}"
    if mpu.get_pipeline_model_parallel_world_size() > 1:
        name += f"_{mpu.get_pipeline_model_parallel_rank():03d}"
    if mpu.get_expert_model_parallel_world_size() > 1:
        name += f"_{mpu.get_expert_model_parallel_rank():03d}"
    return os.path.join(root, f"iter_{iteration:07d}", name)


def rng_state():
    """get_rng_state"""
    return [
        {
            "random_rng_state": random.getstate(),
            "np_rng_state": numpy.random.get_state(),
            "torch_rng_state": torch.get_rng_state(),
            "cuda_rng_state": torch.cuda.get_rng_state(),
            "rng_tracker_states": tensor_parallel.get_cuda_rng_tracker().get_states(),
        }
    ]


def save(run, root, iteration):
    """save_checkpoint and generate_state_dict"""
    directory = directory_of(root, iteration)
    os.makedirs(directory, exist_ok=True)
    if run.spec.distributed:
        run.optimizer.save_parameter_state(os.path.join(directory, "distrib_optim.pt"))
    if mpu.get_data_parallel_rank() == 0 or mpu.get_expert_data_parallel_rank() == 0:
        state = {"args": args_of(run, iteration), "checkpoint_version": 3.0, "iteration": iteration}
        for at, chunk in enumerate(run.bare):
            state["model" if len(run.bare) == 1 else f"model{at}"] = chunk.state_dict_for_save_checkpoint()
        if run.optimizer is not None:
            state["optimizer"] = run.optimizer.state_dict()
            state["opt_param_scheduler"] = run.scheduler.state_dict()
        state["rng_state"] = rng_state()
        state["num_floating_point_operations_so_far"] = 0
        torch.save(state, os.path.join(directory, "model_optim_rng.pt"))
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        with open(os.path.join(root, "latest_checkpointed_iteration.txt"), "w") as tracker:
            tracker.write(str(iteration))


def load(run, root):
    """load_checkpoint, but strict: training retries without, and then runs on weights that were never loaded."""
    with open(os.path.join(root, "latest_checkpointed_iteration.txt")) as tracker:
        iteration = int(tracker.read())
    directory = directory_of(root, iteration)
    state = torch.load(os.path.join(directory, "model_optim_rng.pt"), map_location="cpu", weights_only=False)
    args = state["args"]
    for name in (
        "tensor_model_parallel_size",
        "pipeline_model_parallel_size",
        "num_layers",
        "hidden_size",
        "num_attention_heads",
    ):
        # check_checkpoint_args
        assert getattr(args, name) == getattr(run.config, name), (name, getattr(args, name))
    assert state["checkpoint_version"] == 3.0 and state["iteration"] == iteration
    for at, chunk in enumerate(run.bare):
        chunk.load_state_dict(state["model" if len(run.bare) == 1 else f"model{at}"], strict=True)
    if run.optimizer is not None:
        run.optimizer.load_state_dict(state["optimizer"])
        if run.spec.distributed:
            run.optimizer.load_parameter_state(os.path.join(directory, "distrib_optim.pt"))
        run.scheduler.load_state_dict(state["opt_param_scheduler"])
    set_random_states(state["rng_state"])
    return iteration


def set_random_states(states):
    """load_checkpoint"""
    generators = states[0]
    random.setstate(generators["random_rng_state"])
    numpy.random.set_state(generators["np_rng_state"])
    torch.set_rng_state(generators["torch_rng_state"])
    torch.cuda.set_rng_state(generators["cuda_rng_state"])
    assert generators["rng_tracker_states"], "training exits at an empty tracker"
    tensor_parallel.get_cuda_rng_tracker().set_states(generators["rng_tracker_states"])
