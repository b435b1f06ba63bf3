"""A checkpoint as Megatron saves it by default (torch_dist), sparse: what a mount of it costs, and a conversion beside the same with torch."""

import json
import shutil
import time

from hugging_face import dense

from .common import Mount, Table, alternate, binary, load, manifest, peak_memory, run, size, timed, warm
from .metadata import read_first

TORCH = """
import json, resource, sys, time
import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
source, target = sys.argv[1:]
begin = time.perf_counter()
entries = FileSystemReader(source).read_metadata().state_dict_metadata
wanted = {key: torch.empty(of.size, dtype=of.properties.dtype) for key, of in entries.items() if isinstance(of, TensorStorageMetadata)}
dcp.load(wanted, checkpoint_id=source, no_dist=True)
# What a converter does at the least: one tensor for each layer. Names and the fused tensors would come on top.
apart = {}
for key, tensor in wanted.items():
    if ".layers." in key:
        apart.update({f"{key}.{layer}": part for layer, part in enumerate(tensor)})
    else:
        apart[key] = tensor
save_file({key: tensor.contiguous().clone() for key, tensor in apart.items()}, target)
print(json.dumps([time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000]))
"""


def sparse(model, root):
    """The model as torch_dist, in which what are zeros in the model are holes: read through a mount, so that nothing is written."""
    with Mount(model, "--as", "torch_dist") as path:
        run("cp", "-r", "--sparse=always", path, root)
    return root


def mounts(work, repeats, is_quick):
    """A source of 100 GB: nothing but metadata can be read fast."""
    dense.make(work / "large", 8 if is_quick else 56)
    source = sparse(work / "large", work / "large_dist")
    table = Table(f"torch_dist of {size(source) / 1e9:.0f} GB, sparse")
    table.row("`inspect`", [timed(binary(), "inspect", source) for _ in range(repeats)])
    for name, flags in (("hf", ("--as", "hf")), ("tp8pp4", ("--tp", 8, "--pp", 4)), ("dcp", ("--as", "dcp"))):
        live, first, memory = [], [], []
        for _ in range(repeats):
            begin = time.perf_counter()
            with Mount(source, *flags, name=name) as path:
                live.append(time.perf_counter() - begin)
                files = {"hf": lambda: sorted(path.glob("*.safetensors")), "dcp": lambda: sorted(path.glob("*.distcp"))}
                read_first(files[name]()[0] if name in files else path / manifest.rank_files(path)[-1])
                first.append(time.perf_counter() - begin)
                memory.append(peak_memory(path))
        table.row(f"`mount` as {name} until it returns", live)
        table.row(f"{name}: start of `mount` to first tensor read", first)
        table.row(f"{name}: daemon's peak RSS", memory, "MB")


OWN = """
import json, resource, subprocess, sys, time
begin = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(json.dumps([time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000]))
"""


def against_torch(python, work, repeats):
    """A conversion to safetensors, beside loading and saving with torch."""
    dense.make(work / "small", 4, hidden=4096, ffn=14336)
    source = sparse(work / "small", work / "small_dist")
    iteration = next(path for path in source.iterdir() if path.is_dir())
    own, theirs = [], []
    for _ in range(repeats):
        target, file = work / "converted", work / "converted.safetensors"
        own.append(json.loads(run(python, "-c", OWN, binary(), "materialize", source, target, "--as", "hf", "--quiet")))
        shutil.rmtree(target)
        theirs.append(json.loads(run(python, "-c", TORCH, iteration, file)))
        file.unlink()
    table = Table(f"torch_dist of {size(source) / 1e9:.1f} GB to safetensors on disk")
    for what, measured in (("`ckpt-fs materialize --as hf`", own), ("`torch.distributed.checkpoint` and `save_file`, with keys as they are", theirs)):
        table.row(what, [seconds for seconds, _ in measured])
        table.row(f"{what}: peak memory", [memory for _, memory in measured], "MB")


    return source


def loads(python, work, repeats, source):
    """torch.load of every rank file of a view, beside the same files on disk; and these beside themselves, which shows the machine's noise."""
    flags = ("--tp", 8, "--pp", 4)
    real = work / "ranks"
    run(binary(), "materialize", source, real, *flags)
    warm(real, source)

    def native():
        return load(python, "torch", real)

    def ours():
        with Mount(source, *flags) as path:
            return load(python, "torch", path, path)

    native()
    title = f"torch.load of every rank of TP8 PP4, {size(source) / 1e9:.1f} GB of torch_dist"
    Table(title).pairs(alternate(repeats, native, ours), None)
    Table(f"{title}: files beside themselves").pairs(alternate(repeats, native, lambda: native()), None, "files", "the same files")


def rows(python, work, repeats, is_quick):
    mounts(work, repeats, is_quick)
    source = against_torch(python, work, repeats)
    loads(python, work, repeats, source)
