"""Loads checkpoint files one way in a new process, and tells seconds, CPU seconds and bytes.

Takes lines of JSON, [HOW, DIRECTORY, FIFO], and answers each through its FIFO. Torch is imported once, which takes seconds; every load has
a process of its own, forked, so that none loads into memory that another one made ready.

  read        preads of 16 MiB, each into memory that was not touched before
  stream      preads of 1 MiB into the same memory
  torch       torch.load
  torchmap    torch.load(mmap=True), then a clone of every tensor
  safetensors safetensors.torch.load_file, then a clone of every tensor
"""

import json
import mmap
import os
import signal
import sys
import time
from pathlib import Path

BLOCK = 16 << 20


def read(path):
    handle = os.open(path, os.O_RDONLY)
    size, at = os.fstat(handle).st_size, 0
    while at < size:
        block = mmap.mmap(-1, BLOCK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with memoryview(block)[: min(BLOCK, size - at)] as view:
            got = 0
            while got < len(view):
                got += os.preadv(handle, [view[got:]], at + got)
        at += got
        block.close()
    os.close(handle)


def stream(path):
    block = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(block):
            pass


def tensors(value):
    if hasattr(value, "untyped_storage"):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


def loaders():
    """How every HOW loads one file."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "python"))
    import standins
    import torch
    from safetensors.torch import load_file

    standins.install()
    return {
        "read": read,
        "stream": stream,
        "torch": lambda path: torch.load(path, weights_only=False),
        "torchmap": lambda path: [t.clone() for t in tensors(torch.load(path, weights_only=False, mmap=True))],
        "safetensors": lambda path: [t.clone() for t in tensors(load_file(path))],
    }


def measured(load, root):
    files = sorted(path for path in root.rglob("*") if path.suffix in (".pt", ".safetensors"))
    count = sum(path.stat().st_size for path in files)
    cpu, begin = sum(os.times()[:2]), time.perf_counter()
    # Nothing is freed meanwhile: a process of a real run loads once, into memory that is fresh from the kernel.
    kept = [load(path) for path in files]
    result = [time.perf_counter() - begin, sum(os.times()[:2]) - cpu, count]
    del kept
    return result


def main():
    known = loaders()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        how, root, fifo = json.loads(line)
        if os.fork() == 0:
            with open(fifo, "w") as answer:
                json.dump(measured(known[how], Path(root)), answer)
            os._exit(0)


if __name__ == "__main__":
    main()
