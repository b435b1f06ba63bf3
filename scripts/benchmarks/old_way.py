"""What people do without ckpt-fs, as short and as fast as torch allows: join the stages, slice for four ranks, save.

usage: old_way.py SOURCE TARGET     (SOURCE: Yuan-2.0, TP1, as scripts/make-checkpoint writes it)

Prints seconds and CPU seconds, without those of starting Python. All in one process and in memory, with no check of anything, which flatters it: the scripts that are in use start a process for each
step and write the joined checkpoint first.
"""

import collections
import json
import os
import re
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))
import standins  # noqa: E402
import torch  # noqa: E402

RANKS = 4
# Parameters that are cut: the dimension, by the end of the name. get_query_key is q and k per head, dense_h_to_4h gate and up.
COLUMNS = ("self_attention.dense.weight", "mlp.dense_4h_to_h.weight")
ROWS = ("self_attention.get_value.weight", "self_attention.get_query_key.weight", "mlp.dense_h_to_4h.weight")


def part(name, tensor, rank):
    if name.endswith(COLUMNS):
        return tensor.chunk(RANKS, dim=1)[rank].clone()
    if name.endswith("mlp.dense_h_to_4h.weight"):
        return torch.cat([half.chunk(RANKS)[rank] for half in tensor.chunk(2)])
    if name.endswith(ROWS):
        return tensor.chunk(RANKS)[rank].clone()
    return tensor


def main():
    standins.install()
    cpu, begin = sum(os.times()[:2]), time.perf_counter()
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    stages = [torch.load(path, weights_only=False) for path in sorted(source.glob("iter_*/mp_rank_*/*.pt"))]
    joined, first = collections.OrderedDict(), 0
    for stage in stages:
        encoder = stage["model"]["language_model"]["encoder"]
        layers = 1 + max((int(name.split(".")[1]) for name in encoder if name.startswith("layers.")), default=-1)
        for name, tensor in encoder.items():
            moved = re.sub(r"^layers\.(\d+)", lambda match: f"layers.{int(match[1]) + first}", name)
            joined[moved] = tensor
        first += layers
    for rank in range(RANKS):
        language = dict(stages[0]["model"]["language_model"])
        table = language["embedding"]["word_embeddings"]["weight"].chunk(RANKS)[rank].clone()
        language["embedding"] = {**language["embedding"], "word_embeddings": {"weight": table}}
        language["encoder"] = {name: part(name, tensor, rank) for name, tensor in joined.items()}
        home = target / "iter_0000100" / f"mp_rank_{rank:02d}"
        home.mkdir(parents=True)
        torch.save({**stages[0], "model": {"language_model": language}}, home / "model_optim_rng.pt")
    print(json.dumps([time.perf_counter() - begin, sum(os.times()[:2]) - cpu]))


if __name__ == "__main__":
    main()
