#!/usr/bin/env python3
"""Compare two safetensors files (or directories of them) bit for bit, tensor by tensor; name what differs. Exit 1 when anything does.

Names of A can be changed first: `--strip model.` takes a prefix away (one that every tensor compared must have, others are left out),
`--map OLD=NEW` replaces a part of a name. `--only PREFIX` compares the tensors of either side that begin so, `--vocabulary N` no more
than the first N rows of the tensors that have a row for each word, of which another layout has another number. `--of-megatron CONFIG`
gives the tensors of B, which make_megatron.py wrote, the names of transformers (megatron_names.py).
"""

import argparse
import json
from pathlib import Path

import common  # noqa: F401
import megatron_names
import torch
from safetensors import safe_open

VOCABULARY = ("word_embeddings.weight", "output_layer.weight", "embed_tokens.weight", "lm_head.weight")


def read(path):
    """{name: tensor} of a file, or of all files of a directory."""
    found = {}
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        with safe_open(file, "pt") as opened:
            found |= {name: opened.get_tensor(name) for name in opened.keys()}
    return found


def renamed(tensors, strip="", maps=()):
    """`tensors` under the names that the other side has."""
    found = {}
    for name, tensor in tensors.items():
        if not name.startswith(strip):
            continue
        name = name[len(strip) :]
        for old, new in maps:
            name = name.replace(old, new)
        found[name] = tensor
    return found


def differences(a, b, vocabulary=None):
    """A line for everything that differs between two {name: tensor}."""
    yield from (f"{name}: only in A" for name in sorted(a.keys() - b.keys()))
    yield from (f"{name}: only in B" for name in sorted(b.keys() - a.keys()))
    for name in sorted(a.keys() & b.keys()):
        one, other = a[name], b[name]
        if vocabulary and name.endswith(VOCABULARY):
            if min(len(one), len(other)) < vocabulary:
                yield f"{name}: {len(one)} and {len(other)} rows, fewer than the {vocabulary} words"
                continue
            one, other = one[:vocabulary], other[:vocabulary]
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            yield f"{name}: {one.dtype} {list(one.shape)}, {other.dtype} {list(other.shape)}"
        elif not torch.equal(bits(one), bits(other)):
            yield f"{name}: {first(one, other)}"


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def first(one, other):
    """Where two tensors of one shape begin to differ, and in how many elements they do."""
    size = one.element_size()
    unequal = (bits(one) != bits(other)).reshape(-1, size).any(1)
    where = int(unequal.nonzero()[0])
    place = [int(index) for index in torch.unravel_index(torch.tensor(where), one.shape)] if one.dim() else []
    values = (tensor.reshape(-1)[where].item() for tensor in (one, other))
    return f"{int(unequal.sum())} of {one.numel()} elements differ, first at {place}: {', '.join(map(repr, values))}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--strip", default="", metavar="PREFIX")
    parser.add_argument("--map", action="append", default=[], metavar="OLD=NEW")
    parser.add_argument("--only", default="", metavar="PREFIX")
    parser.add_argument("--part", action="store_true", help="A may have tensors that B has not")
    parser.add_argument("--vocabulary", type=int, metavar="N")
    parser.add_argument("--of-megatron", type=Path, metavar="CONFIG")
    parser.add_argument("--masters", action="store_true", help="with it: weights are the optimizer's masters")
    options = parser.parse_args(arguments)
    a = renamed(read(options.a), options.strip, [pair.split("=", 1) for pair in options.map])
    b = read(options.b)
    if options.of_megatron:
        step = json.loads(options.b.with_suffix(".json").read_text())["step"]
        b = megatron_names.of_transformers(b, json.loads(options.of_megatron.read_text()), step, options.masters)
    a, b = ({name: t for name, t in side.items() if name.startswith(options.only)} for side in (a, b))
    if options.part:
        a = {name: tensor for name, tensor in a.items() if name in b}
    found = list(differences(a, b, options.vocabulary))
    if not a and not b:
        found = ["nothing to compare"]
    if found:
        raise SystemExit("\n".join(found))
    print(f"the same: {len(a)} tensors")


if __name__ == "__main__":
    main()
