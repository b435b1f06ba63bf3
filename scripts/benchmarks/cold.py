"""Loading from a source that is not in the page cache."""

import threading
import time

from .common import Mount, Table, alternate, cool, load, size, storage_reads


def rows(python, repeats, source):
    table = Table("Source not in the page cache, contiguous (TP1 PP2 view), both streamed in blocks of 1 MiB")

    def native():
        cool(source)
        return load(python, "stream", source)

    def ours():
        with Mount(source, "--tp", 1, "--pp", 2) as path:
            cool(source)
            sample = load(python, "stream", path, path)
            # The tied embedding is in both stages: what counts is how fast what is served comes.
            sample.wall *= size(source) / sample.bytes
            return sample

    table.pairs(alternate(repeats, native, ours), 0.9, "the disk in order", "mounted view")
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
