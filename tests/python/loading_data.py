"""A torch data set whose items are sums of checkpoint files: what workers of a DataLoader do with a mount.

A module of its own, because workers that are spawned import it. Not here: the test (`test_clients`).
"""

import hashlib

import standins
import torch
from safetensors import safe_open
from torch.utils.data import Dataset


class Sums(Dataset):
    """For each file a fingerprint of all its tensors, read by the way of its format."""

    def __init__(self, paths):
        self.paths = [str(path) for path in paths]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        path = self.paths[number]
        return fingerprint(mapped(path) if path.endswith(".safetensors") else loaded(path))


def loaded(path):
    standins.install()
    return sorted(tensors(torch.load(path, mmap=True, weights_only=False)["model"]))


def mapped(path):
    with safe_open(path, "pt") as file:
        return [(name, file.get_tensor(name)) for name in sorted(file.keys())]


def tensors(tree, name=""):
    """Names and tensors of a tree of dictionaries."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from tensors(value, f"{name}/{key}")
    elif isinstance(tree, torch.Tensor):
        yield name, tree


def fingerprint(named):
    found = hashlib.sha256()
    for name, tensor in named:
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy())
    return f"{len(named)} {found.hexdigest()}"
