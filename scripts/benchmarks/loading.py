"""Loading from a warm source: every way that loaders read, against the same files on disk."""

import threading

from .common import Mount, PeakOwn, Table, alternate, binary, cool, load, memory_group, memory_root, run, size, status, storage_reads, warm


def rows(python, repeats, source, work):
    """`source`: TP1 PP1. Views: cut for more ranks, and the way back."""
    cut, whole = ("--tp", 4, "--pp", 2), ("--tp", 1, "--pp", 1)
    parts = work / "parts"
    run(binary(), "materialize", source, parts, *cut)
    directions = (
        ("TP1 PP1 to TP4 PP2", source, cut, parts),
        ("TP4 PP2 to TP1 PP1", parts, whole, source),
    )
    for name, stored, flags, real in directions:
        for how, what, limit in (("torch", "torch.load of every rank", 1.1), ("read", "reads of 16 MiB into new memory", 1.0)):
            table = Table(f"{what}, {name}")
            warm(real, stored)
            load(python, how, real)

            def native(real=real, how=how):
                return load(python, how, real)

            def ours(stored=stored, flags=flags, how=how):
                with Mount(stored, *flags) as path:
                    return load(python, how, path, path)

            table.pairs(alternate(repeats, native, ours), limit)
    strided(python, repeats, source, work)
    mapped(python, repeats, source, work, parts)
    return parts


def strided(python, repeats, source, work):
    """The shortest runs of the usual layouts: row-parallel weights cut eight ways."""
    flags = ("--tp", 8, "--pp", 1)
    real = work / "tp8"
    run(binary(), "materialize", source, real, *flags)
    table = Table("torch.load of every rank, TP1 PP1 to TP8 PP1 (runs of 512 B and 2 KiB in three tensors of ten)")
    warm(real, source)

    def ours():
        with Mount(source, *flags) as path:
            return load(python, "torch", path, path)

    table.pairs(alternate(repeats, lambda: load(python, "torch", real), ours), 1.0)


def mapped(python, repeats, source, work, parts):
    """Loaders that map: a first load from a fresh mount, and the next one."""
    real = work / "safetensors"
    run(binary(), "materialize", source, real, "--tp", 4, "--pp", 2, "--as", "safetensors")
    cases = (
        ("safetensors", "safetensors load_file + clone", real, ("--as", "safetensors")),
        ("torchmap", "torch.load(mmap=True) + clone", parts, ("--io", "cached")),
    )
    for how, what, native_files, flags in cases:
        flags = ("--tp", 4, "--pp", 2, "--cache-size", "16GiB", *flags)
        warm(native_files, source)
        load(python, how, native_files)
        first, again = [], []

        def native(native_files=native_files, how=how):
            return load(python, how, native_files)

        def ours(flags=flags, how=how):
            with Mount(source, *flags) as path:
                begin = load(python, how, path, path)
                return begin, load(python, how, path, path)

        for a, (b, c) in alternate(repeats, native, ours):
            first.append((a, b))
            again.append((a, c))
        Table(f"{what}, first load from a mount").pairs(first, 0.6)
        Table(f"{what}, again in a new process").pairs(again, 0.9)


def many_readers(python, repeats, source):
    """Four processes that load one rank, as data-parallel replicas on a node do, with the cache and without."""
    flags = ("--tp", 8, "--pp", 1)
    table = Table("Four processes load the same rank of TP8 at once, direct, runs of 512 B and 2 KiB")

    def measured(cache):
        with Mount(source, *flags, "--cache-size", cache) as path:
            home = path / "iter_0000100" / "mp_rank_03"
            samples = []
            threads = [threading.Thread(target=lambda: samples.append(load(python, "read", home))) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            slowest = max(samples, key=lambda sample: sample.wall)
            slowest.hits = status(path)["cache"]["hits"]
            return slowest

    warm(source)
    pairs = alternate(repeats, lambda: measured("0"), lambda: measured("1GiB"))
    table.pairs(pairs, None, "--cache-size 0", "--cache-size 1GiB")
    table.row("tiles found in the cache", [ours.hits for _, ours in pairs], "")


def little_memory(python, repeats, source):
    """A rank that is loaded again where the page cache cannot hold what its slices lie in, as on a small node or one that does other work."""
    flags = ("--tp", 8, "--pp", 1)
    megabytes = max(64, size(source) // 10_000_000)
    title = f"The third load of a rank of TP8, the mount in a memory group of {megabytes} MB, runs of 512 B and 2 KiB"
    read = {"0": [], "1GiB": []}

    def measured(cache):
        with memory_group(megabytes * 1_000_000) as group, Mount(source, *flags, "--cache-size", cache) as path:
            group.add(status(path)["pid"])
            cool(source)
            home = path / "iter_0000100" / "mp_rank_03"
            for _ in range(3):
                before = storage_reads(path)
                sample = load(python, "read", home, path)
            read[cache].append((storage_reads(path) - before) / sample.bytes)
            return sample

    if memory_root() is None:
        print(f"\n### {title}\n\nNot measured: memory groups need root.")
        return
    table = Table(title)
    pairs = alternate(repeats, lambda: measured("0"), lambda: measured("1GiB"))
    table.pairs(pairs, None, "--cache-size 0", "--cache-size 1GiB")
    for cache, ratios in read.items():
        table.row(f"bytes read from storage / bytes served, --cache-size {cache}", ratios, "x")


def memory(python, source, flags, cache_mb, title):
    """Peak of the daemon after everything was loaded."""
    table = Table(title)
    with Mount(source, *flags, "--cache-size", f"{cache_mb}MB") as path:
        with PeakOwn(path) as own:
            load(python, "read", path)
            load(python, "read", path)
        kept = status(path)["cache"]
        # Files handed to the kernel are in nobody's resident memory.
        handed = kept["file_bytes"] / 1e6
    table.row(f"memory without pages of mapped files, --cache-size {cache_mb}MB", [own.mb + handed], "MB", cache_mb + 64)
