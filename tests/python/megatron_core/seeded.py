"""Numbers that depend on the name of a whole parameter and on nothing else, cut by megatron-core itself.

sharded_state_dict is what megatron-core saves layout-independent checkpoints with: for every tensor of a rank it has
the name and shape of the whole (layers and experts numbered over the whole model) and the place of this rank's part.
"""

import functools
import hashlib

import numpy
import torch
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory

from . import versions


@functools.lru_cache(maxsize=256)
def whole(name, kind, shape):
    """`kind` tells weights and the gradients of each step apart. Longer is the same with more at the end."""
    seed = hashlib.sha256(f"{kind} {name}".encode()).digest()[:8]
    dice = numpy.random.Generator(numpy.random.Philox(int.from_bytes(seed, "little")))
    numbers = dice.random(int(numpy.prod(shape)), dtype=numpy.float32)
    return torch.from_numpy(numbers - numpy.float32(0.5)).mul_(0.25).reshape(shape)


def _part(entry, kind, vocabulary):
    full = whole(entry.key, kind, tuple(entry.global_shape)).clone()
    if entry.allow_shape_mismatch:
        # Rows of the vocabulary's padding, of which another layout has another number.
        full[vocabulary:] = 0
    index = tuple(slice(at, at + size) for at, size in zip(entry.global_offset, _local(entry)))
    return full[index]


def _local(entry):
    """Shape of the part, with the axes (layers, experts) that the whole has in addition."""
    return (1,) * entry.prepend_axis_num + tuple(entry.local_shape)


def parts(entry, tensor):
    """`tensor`, of the shape of the entry's parameter, as (place in the whole, view) pairs: two for gate and up."""
    if isinstance(entry, ShardedTensorFactory):
        return [(part, part.data) for part in _leaves(entry.build_fn(entry.key, tensor, entry.replica_id, None))]
    return [(entry, tensor)]


def fill(entry, tensor, kind, vocabulary):
    """Write this rank's part of a parameter into `tensor`, which has the parameter's shape."""
    with torch.no_grad():
        for part, target in parts(entry, tensor):
            target.copy_(_part(part, kind, vocabulary).reshape(target.shape))


def _leaves(tree):
    if isinstance(tree, (ShardedTensor, ShardedTensorFactory)):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _leaves(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from _leaves(value)


def entries(model, groups):
    """Every tensor of a model chunk with its place in the whole."""
    versions.set_stage(model.vp_stage)
    return list(_leaves(model.sharded_state_dict(metadata={"dp_cp_group": groups})))
