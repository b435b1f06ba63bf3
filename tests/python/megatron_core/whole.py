"""Writes a rank's weights and optimizer state as parts of whole parameters; `compare.wholes` puts them together.

This is how the harness is tested itself: the same numbers in every layout are what makes one layout's checkpoint the
answer for a view of another's.
"""

from pathlib import Path

import torch
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

from . import seeded

STATES = ("param", "exp_avg", "exp_avg_sq")


def write(run, directory):
    """This rank's parts, with their places."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    found = []
    states = dict(_states(run))
    for chunk in run.bare:
        for entry in seeded.entries(chunk, run.groups()):
            data = getattr(entry, "data", None)
            if isinstance(data, torch.Tensor):
                for kind, tensor in {"weight": data.detach(), **states.get(id(data), {})}.items():
                    for part, view in seeded.parts(entry, tensor.reshape(data.shape)):
                        rows = run.model["vocab_size"] if part.allow_shape_mismatch else None
                        found.append((part.key, kind, tuple(part.global_shape), part.global_offset, rows, view.clone()))
    torch.save(found, directory / f"{torch.distributed.get_rank()}.pt")


def _states(run):
    """(id of a model parameter, its master weight and moments)."""
    for chained in run.optimizer.chained_optimizers if run.optimizer else []:
        if isinstance(chained, DistributedOptimizer):
            for parameter in (p for buffer in chained.buffers for p in buffer.param_index_map):
                yield id(parameter), _gathered(chained, parameter)
        else:
            for parameter in (p for chunk in run.bare for p in chunk.parameters()):
                master = getattr(parameter, "main_param", parameter)
                if master in chained.optimizer.state:
                    yield id(parameter), _named({"param": master, **chained.optimizer.state[master]})


def _gathered(optimizer, parameter):
    """The states of a parameter, flat, from all data-parallel ranks that share it out."""
    own = None
    if parameter in optimizer.model_param_gbuf_map:
        place = optimizer._get_model_param_range_map(parameter)["param"]
        own = (place.start, place.end, _named(optimizer._get_main_param_and_optimizer_states(parameter)))
    group = optimizer.data_parallel_group
    shares = [None] * group.size()
    torch.distributed.all_gather_object(shares, own, group=group)
    states = {name: torch.full([parameter.numel()], torch.nan) for name in STATES}
    for start, end, tensors in filter(None, shares):
        for name in STATES:
            states[name][start:end] = tensors[name].reshape(-1)
    return states


def _named(tensors):
    return {name: tensors[name].detach() for name in STATES}
