"""Tells two checkpoint directories of one layout apart: keys and their order, tensors, their attributes and numbers."""

import argparse
from pathlib import Path

import torch

FILES = ("model_optim_rng.pt", "distrib_optim.pt")


def differences(left, right, ignore=()):
    """A line for everything that differs; entries and args fields whose names are in `ignore` are passed over."""
    left, right = Path(left), Path(right)
    one, other = ({str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} for root in (left, right))
    yield from (f"{name}: only in {left}" for name in sorted(one - other))
    yield from (f"{name}: only in {right}" for name in sorted(other - one))
    for name in sorted(one & other):
        if name.endswith(FILES):
            a, b = (torch.load(root / name, map_location="cpu", weights_only=False) for root in (left, right))
            yield from _values(name, a, b, set(ignore))
        elif (left / name).read_bytes() != (right / name).read_bytes():
            yield f"{name}: contents differ"


def _values(path, a, b, ignore):
    if type(a) is not type(b):
        yield f"{path}: {type(a).__name__} {_short(a)}, {type(b).__name__} {_short(b)}"
    elif isinstance(a, dict):
        yield from _mappings(path, a, b, ignore)
    elif isinstance(a, argparse.Namespace):
        yield from _mappings(f"{path} args", vars(a), vars(b), ignore)
    elif isinstance(a, (list, tuple)):
        if len(a) != len(b):
            yield f"{path}: length {len(a)}, {len(b)}"
        elif all(isinstance(x, (int, float)) for x in (*a, *b)):
            if list(a) != list(b):
                yield f"{path}: {_short(a)}, {_short(b)}"
            return
        for at, (x, y) in enumerate(zip(a, b)):
            yield from _values(f"{path}[{at}]", x, y, ignore)
    elif isinstance(a, torch.Tensor):
        yield from _tensors(path, a, b, ignore)
    elif hasattr(a, "tobytes"):
        if a.tobytes() != b.tobytes():
            yield f"{path}: arrays differ"
    elif a != b:
        yield f"{path}: {_short(a)}, {_short(b)}"


def _mappings(path, a, b, ignore):
    if getattr(a, "_metadata", None) != getattr(b, "_metadata", None):
        yield f"{path}: _metadata differs"
    yield from (f"{path} {key!r}: only on the left" for key in a if key not in b and key not in ignore)
    yield from (f"{path} {key!r}: only on the right" for key in b if key not in a and key not in ignore)
    both = [key for key in a if key in b]
    for at, (x, y) in enumerate(zip(both, (key for key in b if key in a))):
        if x != y:
            yield f"{path}: other order of keys, from number {at}: {x!r}, {y!r}"
            break
    for key in both:
        if key not in ignore:
            yield from _values(f"{path} {key}", a[key], b[key], ignore)


def _tensors(path, a, b, ignore):
    if (a.dtype, a.shape, a.requires_grad) != (b.dtype, b.shape, b.requires_grad):
        kinds = (f"{t.dtype} {tuple(t.shape)} grad={t.requires_grad}" for t in (a, b))
        yield f"{path}: {', '.join(kinds)}"
    else:
        unequal = (_bits(a) != _bits(b)).reshape(-1)
        if unequal.any():
            where = int(unequal.nonzero()[0])
            x, y = (t.detach().reshape(-1)[where].item() for t in (a, b))
            yield f"{path}: {int(unequal.sum())} of {a.numel()} elements differ, first number {where}: {x}, {y}"
    yield from _mappings(f"{path} attributes", vars(a), vars(b), ignore)


def _bits(tensor):
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.detach().contiguous().reshape(-1).view(kind)


def _short(value):
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def wholes(directory):
    """{(parameter, kind): whole tensor} of what whole.py wrote; raises where ranks disagree or something is lacking."""
    found, filled, true_rows = {}, {}, {}
    for path in sorted(Path(directory).iterdir()):
        for key, kind, shape, offset, rows, view in torch.load(path, weights_only=False):
            name = (key, kind)
            whole = found.setdefault(name, torch.zeros(shape, dtype=view.dtype))
            known = filled.setdefault(name, torch.zeros(shape, dtype=torch.bool))
            axes = len(shape) - view.dim()
            index = tuple(slice(at, at + size) for at, size in zip(offset, (1,) * axes + tuple(view.shape)))
            view = view.reshape(whole[index].shape)
            if (known[index] & (whole[index] != view)).any():
                raise AssertionError(f"{path}: {name} differs from another rank's")
            whole[index], known[index] = view, True
            true_rows[name] = rows
    for name, rows in true_rows.items():
        found[name], filled[name] = found[name][:rows], filled[name][:rows]
    lacking = [name for name, known in filled.items() if not known.all()]
    if lacking:
        raise AssertionError(f"{directory}: nobody has all of {lacking}")
    return found
