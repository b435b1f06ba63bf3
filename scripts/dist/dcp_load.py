#!/usr/bin/env python3
"""Load all of a torch.distributed.checkpoint directory without knowing the model, in every way torch has, and write what came out.

Three ways, which must agree: `load` into tensors made from .metadata (filled with NaN or ones first, so that a hole shows),
`_load_state_dict_from_keys`, which builds the nested dictionaries, and `dcp_to_torch_save`, which many tools use. What is no tensor goes
to the JSON file beside.
"""

import common

common.begin()
import argparse  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402
from compare import differences  # noqa: E402
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save  # noqa: E402
from torch.distributed.checkpoint.metadata import TensorStorageMetadata  # noqa: E402
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys  # noqa: E402


def by_name(directory):
    """{flat name: value}, as a program does that has the tensors already."""
    state = {}
    for name, entry in dcp.FileSystemReader(directory).read_metadata().state_dict_metadata.items():
        if isinstance(entry, TensorStorageMetadata):
            state[name] = torch.empty(entry.size, dtype=entry.properties.dtype)
            if state[name].numel():
                # No value of float8 and of integers is NaN everywhere; all bits set is as good.
                state[name].view(-1).view(torch.uint8).fill_(0xFF)
        else:
            state[name] = None
    dcp.load(state, storage_reader=dcp.FileSystemReader(directory))
    return state


def nested(directory):
    """As programs do that have no model. Without keys torch 2.6 loads nothing."""
    names = dcp.FileSystemReader(directory).read_metadata().state_dict_metadata
    return _load_state_dict_from_keys(set(names), checkpoint_id=directory)


def converted(directory):
    """What dcp_to_torch_save makes of it."""
    with tempfile.TemporaryDirectory() as scratch:
        dcp_to_torch_save(directory, f"{scratch}/all.pt")
        return torch.load(f"{scratch}/all.pt", map_location="cpu", weights_only=False)


def flattened(tree, path=()):
    """{flat name: value} of nested dictionaries and lists, by the rules of .metadata: an empty one is a value."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = {}
    for key, value in inner:
        found |= flattened(value, (*path, str(key)))
    return found or {".".join(path): tree}


def split(state):
    """Tensors in a form that safetensors takes, and the rest in words."""
    tensors, rest = {}, {}
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            tensors[name] = torch.view_as_real(value) if value.is_complex() else value
        else:
            rest[name] = repr(value)
    return tensors, rest


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    state = {}
    for name, value in by_name(options.directory).items():
        state |= flattened(value, (name,))
    tensors, rest = split(state)
    for way in (nested, converted):
        others, other_rest = split(flattened(way(options.directory)))
        found = list(differences(tensors, others))
        found += [f"{name}: {rest.get(name)}, {other_rest.get(name)}" for name in rest | other_rest if rest.get(name) != other_rest.get(name)]
        if found:
            raise SystemExit("two ways to load it differ:\n" + "\n".join(found))
    common.write(options.out, tensors, {"values": rest, **common.versions()})


if __name__ == "__main__":
    main()
