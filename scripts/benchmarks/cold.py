"""Loading from a source that is not in the page cache."""

import os
import threading
import time
from pathlib import Path

from .common import Mount, Sample, Table, alternate, cool, load, size, status


def sequential(path):
    """Reads files front to back in blocks of 1 MiB: the disk's own bandwidth."""
    cool(path)
    cpu, begin, count = sum(os.times()[:2]), time.perf_counter(), 0
    block = bytearray(1 << 20)
    for item in sorted(Path(path).rglob("*.pt")):
        with open(item, "rb", buffering=0) as file:
            while got := file.readinto(block):
                count += got
    return Sample(time.perf_counter() - begin, sum(os.times()[:2]) - cpu, count)


def rows(python, repeats, source):
    table = Table("Source not in the page cache, contiguous (TP1 PP2 view), against reading the source in order")

    def ours():
        with Mount(source, "--tp", 1, "--pp", 2) as path:
            cool(source)
            sample = load(python, "read", path, path)
            # The tied embedding is in both stages: what counts is how fast what is served comes.
            sample.wall *= size(source) / sample.bytes
            return sample

    table.pairs(alternate(repeats, lambda: sequential(source), ours), 0.9, "the disk in order", "mounted view")
    eight_readers(python, repeats, source)


def eight_readers(python, repeats, source):
    """The eight ranks of a TP8 view at once: every byte of the source is to be read about once."""
    table = Table("Eight readers of the eight ranks of a TP8 view at once, source not in the page cache")
    ratios, walls = [], []
    for _ in range(repeats):
        with Mount(source, "--tp", 8, "--pp", 1) as path:
            cool(source)
            before = storage_reads(path)
            ranks = sorted((path / "iter_0000100").iterdir())
            threads = [threading.Thread(target=load, args=(python, "read", rank)) for rank in ranks]
            begin = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            walls.append(time.perf_counter() - begin)
            ratios.append((storage_reads(path) - before) / size(path))
    table.row("time until all have loaded", walls)
    table.row("bytes read from storage / bytes served", ratios, "x", 1.1)


def storage_reads(mount):
    """Bytes that the process of a mount has had fetched from storage."""
    lines = Path(f"/proc/{status(mount)['pid']}/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])
