#!/usr/bin/env python3
"""Train a tiny model with the real megatron-core for two steps and save it as torch_dist; write what it held, and holds after one step more.

usage: make_megatron.py NAME --out OUT [--sharding KIND] [--spec te-names] [--rank-files]
NAME is a model, a layout and an optimizer in the words of tests/python/megatron_core/specs.py, such as moe_tp2pp2ep2etp1_distfused.
In OUT: `torch_dist/`, and `rank_files/` where asked for; `whole.safetensors`, and `next.safetensors` of the step after.
"""

import common

common.begin()
import argparse  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

import megatron_run  # noqa: E402
import ranks  # noqa: E402
from megatron_core import build, checkpoint, fused, on_cpu, specs, torch_dist, whole  # noqa: E402

STEPS = 2


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sharding", default="fully_reshardable", help="how the state of a distributed optimizer is saved")
    parser.add_argument("--spec", choices=("local", "te-names"), default="local", help="whose names torch_dist has")
    parser.add_argument("--rank-files", action="store_true", help="save them as well, for --ckpt-format torch")
    options = parser.parse_args(arguments)
    _, layout, _ = specs.parse(options.name)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as parts:
        ranks.run(layout.world, train, options, Path(parts), name=options.name, timeout=megatron_run.TIMEOUT)
        for written in sorted(Path(parts).iterdir()):
            said = common.versions() | {"step": STEPS + (written.name == "next")}
            common.write(options.out / f"{written.name}.safetensors", megatron_run.wholes(written), said)


def train(options, parts):
    """What each rank does."""
    on_cpu.install()
    model, layout, optimizer = specs.parse(options.name)
    if optimizer.fused:
        fused.install()
    build.initialize(layout)
    run = build.Run(model, layout, optimizer)
    run.te_names = options.spec == "te-names"
    steps = STEPS if run.optimizer else 0
    for step in range(steps):
        run.step(step)
    torch_dist.save(run, options.out / "torch_dist", steps, options.sharding)
    if options.rank_files:
        checkpoint.save(run, options.out / "rank_files", steps)
    whole.write(run, parts / "whole")
    if run.optimizer:
        run.step(steps)
        whole.write(run, parts / "next")


if __name__ == "__main__":
    main()
