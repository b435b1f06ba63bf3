"""Runs jobs, each in as many processes as its layout has ranks.

Importing torch and megatron-core takes longer than most jobs, so it is done once and ranks are forked.
"""

import ranks

from . import build, checkpoint, environment_is_set, facts, fused, on_cpu, specs, whole


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
    ranks.run(layout.world, _work, job, name=job["name"])


def _work(job):
    on_cpu.install()
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
