"""Runs jobs, each in as many processes as its layout has ranks.

Importing torch and megatron-core takes longer than most jobs, so it is done once and ranks are forked.
"""

import multiprocessing
import multiprocessing.connection
import os
import tempfile
import time
import traceback

import torch

from . import build, checkpoint, environment_is_set, facts, fused, on_cpu, specs, whole

TIMEOUT = 120


def run_all(jobs):
    """Run a list of jobs, one after the other; raises at the first that fails.

    A job is a dictionary: `name` (such as dense_tp2pp2_plain), `out` (the directory to write), and optionally `load`
    (a directory to start from instead of training 2 steps), `steps` (how many optimizer steps to take; 2, or 0 after
    loading), `next` (a directory for what one more step makes of it), `facts` (one for a text file per rank about what
    its buffers hold) and `whole` (one for whole.py).
    """
    assert environment_is_set(), "run it as python -m megatron_core"
    for job in jobs:
        _run(job)


def _run(job):
    _, layout, _ = specs.parse(job["name"])
    fork = multiprocessing.get_context("fork")
    errors = fork.SimpleQueue()
    with tempfile.TemporaryDirectory() as rendezvous:
        ranks = [
            fork.Process(target=_rank, args=(job, rank, layout.world, f"{rendezvous}/store", errors))
            for rank in range(layout.world)
        ]
        for rank in ranks:
            rank.start()
        # One that failed leaves the others waiting for it.
        deadline = time.monotonic() + TIMEOUT
        while any(rank.is_alive() for rank in ranks) and errors.empty() and time.monotonic() < deadline:
            multiprocessing.connection.wait([rank.sentinel for rank in ranks if rank.is_alive()], 1)
        for rank in ranks:
            if rank.is_alive():
                rank.kill()
            rank.join()
    failed = not errors.empty() or any(rank.exitcode != 0 for rank in ranks)
    if failed:
        raise RuntimeError(f"{job['name']} failed\n" + ("" if errors.empty() else errors.get()))


def _rank(job, rank, world, rendezvous, errors):
    try:
        torch.set_num_threads(1)
        on_cpu.install()
        torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=world)
        _work(job)
        torch.distributed.destroy_process_group()
    except BaseException:
        errors.put(f"rank {rank}: {traceback.format_exc()}")
        os._exit(1)
    os._exit(0)


def _work(job):
    model, layout, optimizer = specs.parse(job["name"])
    if optimizer.fused:
        fused.install()
    build.initialize(layout)
    run = build.Run(model, layout, optimizer)
    loaded = checkpoint.load(run, job["load"]) if job.get("load") else None
    steps = job.get("steps", 0 if loaded is not None or optimizer.kind == "none" else 2)
    done = loaded or 0
    for step in range(done, done + steps):
        run.step(step)
    checkpoint.save(run, job["out"], done + steps)
    if job.get("facts"):
        facts.write(run, job["facts"])
    if job.get("whole"):
        whole.write(run, job["whole"])
    if job.get("next"):
        run.step(done + steps)
        checkpoint.save(run, job["next"], done + steps + 1)
