"""`materialize` against copying as many bytes."""

import os
import shutil
import time

from .common import Sample, Table, alternate, binary, emptied, size, timed, warm


def rows(repeats, source, real, work):
    """`real` is the finished copy: as many bytes for cp as materialize writes. Both are safely on disk at the end."""
    count = size(real)
    table = Table(f"materialize TP1 PP1 to TP4 PP2, {count / 1e9:.2f} GB, against cp --reflink=never and sync")

    def measured(command, reads):
        with emptied(work / "out"):
            os.sync()
            warm(reads)
            cpu = children_cpu()
            begin = time.perf_counter()
            timed("sh", "-c", command)
            return Sample(time.perf_counter() - begin, children_cpu() - cpu, count)

    copy = f'cp -r --reflink=never "{real}" "{work / "out"}" && sync "{work / "out"}" && sync'
    ours = f'"{binary()}" materialize "{source}" "{work / "out"}" --tp 4 --pp 2'
    pairs = alternate(repeats, lambda: measured(copy, real), lambda: measured(ours, source))
    table.pairs(pairs, 1.2, "cp and sync", "materialize")
    shutil.rmtree(work / "out", ignore_errors=True)


def children_cpu():
    return sum(os.times()[2:4])
