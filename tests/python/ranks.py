"""Runs a function in as many processes as there are ranks, joined by gloo.

Importing torch and what is built on it takes longer than most of what is run, so ranks are forked from the process that
imported it. Nothing here knows what they do.
"""

import contextlib
import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

TIMEOUT = 120


def run(world, function, *arguments, name="", timeout=TIMEOUT):
    """Call `function(*arguments)` on each of `world` ranks, inside a process group; raises when one of them fails."""
    fork = multiprocessing.get_context("fork")
    errors = fork.SimpleQueue()
    with tempfile.TemporaryDirectory() as rendezvous:
        ranks = [
            fork.Process(target=_rank, args=(function, arguments, rank, world, f"{rendezvous}/store", errors))
            for rank in range(world)
        ]
        for rank in ranks:
            rank.start()
        # One that failed leaves the others waiting for it.
        deadline = time.monotonic() + timeout
        try:
            while any(rank.is_alive() for rank in ranks) and errors.empty() and time.monotonic() < deadline:
                multiprocessing.connection.wait([rank.sentinel for rank in ranks if rank.is_alive()], 1)
            late = any(rank.is_alive() for rank in ranks) and errors.empty()
            if late:
                _say_where(ranks)
        finally:
            for rank in ranks:
                _end(rank)
    if not errors.empty():
        raise RuntimeError(f"{name or function.__name__} failed\n{errors.get()}")
    if late:
        raise RuntimeError(f"{name or function.__name__}: not done after {timeout} s")
    if any(rank.exitcode != 0 for rank in ranks):
        raise RuntimeError(f"{name or function.__name__} failed: exit codes {[rank.exitcode for rank in ranks]}")


def _say_where(ranks):
    """Have those that are still there write to stderr where they are; nobody can ask them later."""
    for rank in ranks:
        if rank.is_alive():
            print(f"rank of process {rank.pid} is not done:", file=sys.stderr, flush=True)
            os.kill(rank.pid, signal.SIGUSR1)
            rank.join(0.5)


def _end(rank):
    """A rank, if it is still there, and the processes that it started: megatron-core has some for writing."""
    started = _started_by(rank.pid)
    rank.kill()
    rank.join()
    for pid in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _started_by(pid):
    """Processes below one; none when it has ended, as it ends them itself then."""
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(below for child in children for below in _started_by(child))]


def _rank(function, arguments, rank, world, rendezvous, errors):
    import torch

    faulthandler.register(signal.SIGUSR1, file=2, all_threads=False)
    try:
        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=world)
        function(*arguments)
        torch.distributed.destroy_process_group()
    except BaseException:
        errors.put(f"rank {rank}: {traceback.format_exc()}")
        sys.exit(1)
