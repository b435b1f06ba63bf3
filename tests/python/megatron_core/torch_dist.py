"""Saves and loads all ranks as megatron/training/checkpointing.py does for --ckpt-format torch_dist, which is not on PyPI."""

import os
from pathlib import Path

import torch
from megatron.core import dist_checkpointing
from megatron.core import parallel_state as mpu
from megatron.core.dist_checkpointing.mapping import ShardedObject
from megatron.core.dist_checkpointing.serialization import (
    get_default_load_sharded_strategy,
    get_default_save_sharded_strategy,
)
from megatron.core.dist_checkpointing.strategies.fully_parallel import (
    FullyParallelLoadStrategyWrapper,
    FullyParallelSaveStrategyWrapper,
)

from . import checkpoint, te_names, versions

TRACKER = "latest_checkpointed_iteration.txt"


def directory_of(root):
    """get_load_checkpoint_path_by_args; an iteration's own directory is taken as well."""
    tracker = Path(root) / TRACKER
    if not tracker.exists():
        return Path(root)
    said = tracker.read_text().strip()
    return Path(root) / (said if said == "release" else f"iter_{int(said):07d}")


def common(root):
    """What is not a tensor of the model: args, iteration, parameter groups, the scheduler."""
    return dist_checkpointing.load_common_state_dict(str(directory_of(root)))


def save(run, root, iteration, sharding=None):
    """save_checkpoint. `sharding` names the encoding of a distributed optimizer's state."""
    import psutil  # noqa: F401  without it the processes that write end at once, and megatron-core waits for them forever

    directory = os.path.join(root, f"iter_{iteration:07d}")
    if torch.distributed.get_rank() == 0:
        os.makedirs(directory, exist_ok=True)
    torch.distributed.barrier()
    # _build_sharded_state_dict_metadata
    content = {"singleton_local_shards": False, "chained_optim_avoid_prefix": True}
    if run.spec.distributed:
        content["distrib_optim_sharding_type"] = sharding
    state = {
        "args": checkpoint.args_of(run, iteration, ckpt_format="torch_dist"),
        "checkpoint_version": 3.0,
        "iteration": iteration,
        **state_of(run, content, is_loading=False),
        "rng_state": rng_state(),
        "num_floating_point_operations_so_far": 0,
    }
    if run.scheduler is not None:
        state["opt_param_scheduler"] = run.scheduler.state_dict()
    strategy = get_default_save_sharded_strategy()
    # --ckpt-fully-parallel-save, which is the default.
    strategy = FullyParallelSaveStrategyWrapper(strategy, run.groups(), False)
    dist_checkpointing.save(
        state,
        directory,
        strategy,
        preprocess_common_before_consistancy_check=_same_on_all_ranks,
        **versions.content_arguments(content),
    )
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        with open(os.path.join(root, TRACKER), "w") as tracker:
            tracker.write(str(iteration))


def load(run, root, random_states=False, fully_parallel=False):
    """load_checkpoint; says what it found: the iteration, and whether there were a scheduler and random states.

    Weights are taken with strict keys: training retries without, and then runs on weights that were never loaded.
    """
    directory = str(directory_of(root))
    content = versions.content_metadata(common(root))
    if content is None:
        # "Backward-compatibility with old checkpoints which don't have content versioning"
        kind = "fully_sharded_model_space" if _is_fully_sharded(directory) else "dp_zero_gather_scatter"
        content = {"distrib_optim_sharding_type": kind} if run.spec.distributed else {}
    asked = state_of(run, content, is_loading=True)
    if random_states:
        asked["rng_state"] = rng_state()
    strategy = get_default_load_sharded_strategy(directory)
    if fully_parallel:
        strategy = FullyParallelLoadStrategyWrapper(strategy, run.groups())
    state = dist_checkpointing.load(asked, directory, strategy)
    for at, chunk in enumerate(run.bare):
        chunk.load_state_dict(state[_name(run, at)], strict=True)
    if run.optimizer is not None:
        run.optimizer.load_state_dict(state["optimizer"])
        if run.scheduler is not None and "opt_param_scheduler" in state:
            run.scheduler.load_state_dict(state["opt_param_scheduler"])
    if random_states:
        checkpoint.set_random_states(state["rng_state"])
    return {
        "iteration": state["iteration"],
        "checkpoint_version": state["checkpoint_version"],
        "scheduler": "opt_param_scheduler" in state,
        "random_states": random_states,
        "optimizer_sharding": content.get("distrib_optim_sharding_type"),
    }


def state_of(run, content, is_loading):
    """generate_state_dict, as far as it is sharded."""
    metadata = {**content, "dp_cp_group": run.groups()}
    state = {}
    for at, chunk in enumerate(run.bare):
        versions.set_stage(chunk.vp_stage)
        state[_name(run, at)] = entries = chunk.sharded_state_dict(metadata=metadata)
        if run.te_names:
            state[f"te{at}"] = te_names.apply(chunk, entries)
    if run.optimizer is not None:
        told = versions.optimizer_arguments(run.optimizer, metadata)
        state["optimizer"] = run.optimizer.sharded_state_dict(state, is_loading=is_loading, **told)
    return state


def rng_state():
    """get_rng_state"""
    tp, pp = mpu.get_tensor_model_parallel_rank(), mpu.get_pipeline_model_parallel_rank()
    sizes = (mpu.get_pipeline_model_parallel_world_size(), mpu.get_tensor_model_parallel_world_size())
    replica = mpu.get_data_parallel_rank(with_context_parallel=True)
    return ShardedObject("rng_state", checkpoint.rng_state(), sizes, (pp, tp), replica_id=replica)


def _same_on_all_ranks(state):
    """preprocess_common_state_dict"""
    fields = {name: value for name, value in vars(state["args"]).items() if name != "rank"}
    return {**state, "args": fields}


def _name(run, at):
    return "model" if len(run.bare) == 1 else f"model{at}"


def _is_fully_sharded(directory):
    """Training looks at args.ckpt_fully_parallel_save; the keys say it too."""
    keys = dist_checkpointing.load_tensors_metadata(directory)
    return any(".exp_avg." in key for key in keys)
