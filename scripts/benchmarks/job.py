"""The whole job: a checkpoint of four stages loaded by four tensor-parallel ranks, against the Python way."""

import json
import time
from pathlib import Path

from .common import Mount, Sample, Table, alternate, binary, emptied, load, run, warm

OLD_WAY = Path(__file__).with_name("old_way.py")


def rows(python, repeats, source, work):
    stages = work / "pp4"
    run(binary(), "materialize", source, stages, "--tp", 1, "--pp", 4)
    table = Table("Whole job TP1 PP4 to TP4 PP1: torch load + slice + save + load in Python, against mount + load; without starting Python and torch")
    warm(stages)

    def old():
        with emptied(work / "old") as target:
            wall, cpu = json.loads(run(python, OLD_WAY, stages, target))
            sample = load(python, "torch", target)
            return Sample(wall + sample.wall, cpu + sample.cpu, sample.bytes)

    def ours():
        mount = Mount(stages, "--tp", 4, "--pp", 1)
        begin = time.perf_counter()
        with mount as path:
            mounting = time.perf_counter() - begin
            sample = load(python, "torch", path, path)
            return Sample(mounting + sample.wall, sample.cpu, sample.bytes)

    table.pairs(alternate(repeats, old, ours), 10, "the Python way", "mounted view")
