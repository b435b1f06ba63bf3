"""What a mount costs before the first byte of a tensor: sparse sources, so that nothing but metadata can be read fast."""

import os
import time

from hugging_face import large as large_model

from .common import Mount, Table, binary, manifest, peak_memory, size, timed


def read_first(path, count=8 << 20):
    """The file's first MBs: the pickle and, in all files of this shape, all or part of the first tensor."""
    with open(path, "rb", buffering=0) as file:
        while count > 0 and (got := file.read(count)):
            count -= len(got)


def metadata(source, optimizer, repeats):
    """`optimizer`: how the source keeps its optimizer's state. Such a source is mounted in its own encoding and in the other one."""
    beside = "" if optimizer == "none" else f", {optimizer} optimizer"
    sizes = f"{size(source) / 1e9:.0f} GB{beside}, sparse"
    table = Table(f"Metadata, 102B-shaped source (84 layers, hidden 8192, TP1 PP32, {sizes})")
    table.row("`inspect`", [timed(binary(), "inspect", source) for _ in range(repeats)], limit=1)
    views = [("tp8pp1", ()), ("tp1pp1", ()), ("tp8pp4", ())]
    if optimizer != "none":
        other = "mixed" if optimizer == "distributed" else "distributed"
        views = [("tp8pp1", ()), ("tp8pp4", ("--optimizer", other))]
    for layout, flags in views:
        name = " ".join((layout, *flags))
        live, first, memory = [], [], []
        for _ in range(repeats):
            begin = time.perf_counter()
            with Mount(source, *flags, name=layout) as path:
                live.append(time.perf_counter() - begin)
                read_first(path / manifest.rank_files(path)[-1])
                first.append(time.perf_counter() - begin)
                walk(path)
                memory.append(peak_memory(path))
        table.row(f"`mount` as {name} until it returns", live, limit=1)
        table.row(f"{name}: start of `mount` to first tensor read", first, limit=2)
        table.row(f"{name}: daemon's peak RSS after reading from every file", memory, "MB", limit=150)


def model(source, repeats):
    """A published model of many tensors: what counts is how their headers are read."""
    files, tensors = large_model.make(source)
    table = Table(f"Metadata, Hugging Face model ({tensors:,} tensors in {files:,} files, {size(source) / 1e9:.0f} GB, sparse)")
    table.row("`inspect`", [timed(binary(), "inspect", source) for _ in range(repeats)], limit=2)
    for flags, limits in (((), (2, 200)), (("--as", "hf"), (2, 200)), (("--as", "vllm", "--tp", 4), (2, 200)), (("--as", "megatron", "--tp", 4), (None, None)), (("--as", "torch_dist"), (None, None))):
        name = " ".join(map(str, flags)) or "of all formats"
        live, memory = [], []
        for _ in range(repeats):
            begin = time.perf_counter()
            with Mount(source, *flags) as path:
                live.append(time.perf_counter() - begin)
                memory.append(peak_memory(path))
        table.row(f"`mount` {name} until it returns", live, limit=limits[0])
        table.row(f"{name}: daemon's peak RSS", memory, "MB", limit=limits[1])


def walk(path):
    """Touch every file: stat it, read its head and its end."""
    for item in sorted(path.rglob("*.pt")):
        with open(item, "rb", buffering=0) as file:
            file.read(1 << 20)
            file.seek(-min(1 << 20, item.stat().st_size), os.SEEK_END)
            file.read()
