"""Megatron-core itself as the judge: it trains in many layouts, and it must take views for what it would have written.

Checkpoints come from megatron_core/, where the same whole numbers are in every layout, so the one trained in a view's
layout is the exact answer for the view.
"""

import importlib.metadata
import json
import os
import sys
import tempfile
import unittest
from pathlib import Path

from megatron_core import specs
from support import Case, Mount, ckpt_fs, need, need_torch, run

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}

# Source and target. No layout has more than 4 ranks.
CASES = [
    # Virtual stages, uneven ones, and a layout that gives a stage to the loss alone.
    ("dense_tp2pp2_plain", "dense_tp1pp2vpp2_plain"),
    ("dense_tp1pp2vpp2_dist", "dense_tp2pp2_dist"),
    ("dense_tp2pp2_dist", "dense_tp1pp2-Et.ttt.tttt.L_dist"),
    ("dense_tp1pp2-Et.ttt.tttt.L_dist", "dense_tp1pp4first1last1_dist"),
    # More tensor-parallel ranks than query groups: some have no query, some no key.
    ("dense_tp2pp2_plain", "dense_tp4pp1_plain"),
    ("dense_tp4pp1_plain", "dense_tp1pp2vpp2_plain"),
    # From one kind of optimizer to the other, with the Adam of GPUs, and with other element types.
    ("dense_tp2pp2_plainfused", "dense_tp1pp2vpp2_distfused"),
    ("dense_tp1pp2vpp2_distfused", "dense_tp2pp2_plainfused"),
    ("dense_tp1pp1_distfp16", "dense_tp2pp1_plainfp16"),
    ("dense_tp2pp1_plainfp32", "dense_tp1pp2_plainfp32"),
    # Two copies of one embedding, and gradients in several buckets.
    ("tied_tp1pp1_plainfused", "tied_tp2pp2_plainfused"),
    ("tied_tp1pp1_distb1000", "tied_tp2pp2_distb1000"),
    ("tied_tp2pp2_distb1000", "tied_tp1pp1_distb1000"),
    # Experts, which have an optimizer of their own as soon as ranks share them out.
    ("moe_tp1pp1_plain", "moe_tp1pp2vpp2ep2_plain"),
    ("moe_tp1pp2vpp2ep2_plain", "moe_tp1pp1_plain"),
    ("moe_tp1pp1_distb1000", "moe_tp2pp2ep2etp1_distb1000"),
    ("moe_tp2pp2ep2etp1_distb1000", "moe_tp1pp2ep2_distb1000"),
    # A stage without any.
    ("moe8_tp2pp2ep2etp1_distfused", "moe8_tp1pp2ep2first1_distfused"),
    ("moe8_tp1pp2ep2first1_plainfused", "moe8_tp2pp2ep2etp1_plainfused"),
]
MOUNTED = CASES[11]

# Layouts whose numbers must be the same, checkpoints that must survive a load, and one run that goes on after it.
SAME = [("dense_tp2pp2_dist", "dense_tp1pp2vpp2_plain"), ("moe_tp2pp2ep2etp1_distb1000", "moe_tp1pp1_plain")]
AGAIN = ["dense_tp1pp2vpp2_dist", "tied_tp2pp2_plainfused", "moe_tp2pp2ep2etp1_distb1000", "mla_tp2pp1_plainfp16"]

# Random numbers belong to one rank of one layout, the number of replicas to a run.
REPLICAS = ("data_parallel_size", "world_size", "rank")
# What a distributed optimizer does not save of masters; loading does not look at it.
ATTRIBUTES = ("expert_tp", "is_qkv", "tensor_model_parallel", "partition_dim", "partition_stride", "shared")


def setUpModule():
    global ROOT
    need_torch()
    try:
        importlib.metadata.version("megatron-core")
    except importlib.metadata.PackageNotFoundError:
        need(False, "the Python package megatron-core")
    scratch = tempfile.TemporaryDirectory(prefix="ckpt-fs-test-")
    unittest.addModuleCleanup(scratch.cleanup)
    ROOT = Path(scratch.name)
    jobs = [
        {"name": name, "out": ROOT / name, "next": ROOT / "next" / name}
        | ({"whole": ROOT / "whole" / name} if any(name in pair for pair in SAME) else {})
        for name in sorted({*AGAIN, *(name for pair in CASES + SAME for name in pair)})
    ]
    jobs += [loading(name, ROOT / name, ROOT / "loaded" / name) for name in AGAIN]
    megatron(jobs)


def loading(name, source, out):
    """The job of loading a checkpoint, saving it again, and going on for one step."""
    return {"name": name, "load": source, "out": out / "again", "next": out / "next"}


def megatron(jobs):
    """Run jobs (see megatron_core/jobs.py) with the real megatron-core, all in one process because it starts slowly."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(jobs, file, default=str)
        file.flush()
        run(sys.executable, "-m", "megatron_core", "jobs", file.name, cwd=HERE, env=ENVIRONMENT, timeout=600)


def differences(left, right, ignore=(), view=None):
    """`view` is the one of the two that may have files of ranks that no process has."""
    from megatron_core import compare

    found = compare.differences(left, right, ignore)
    return [line for line in found if view is None or not line.endswith(f".pt: only in {view}")]


class MegatronCore(Case):
    """The yardstick itself, then views. One class: each would train everything again, where classes run in processes of their own."""

    def test_every_layout_holds_the_same_numbers(self):
        import torch

        from megatron_core.compare import wholes

        for pair in SAME:
            with self.subTest(pair=pair):
                a, b = (wholes(ROOT / "whole" / name) for name in pair)
                self.assertEqual(a.keys(), b.keys())
                self.assertEqual([name for name in a if not torch.equal(a[name], b[name])], [])

    def test_megatron_saves_what_it_loads(self):
        for name in AGAIN:
            with self.subTest(name=name):
                self.assertEqual(differences(ROOT / name, ROOT / "loaded" / name / "again"), [])

    def test_training_goes_on_as_if_it_had_never_stopped(self):
        for name in AGAIN:
            with self.subTest(name=name):
                self.assertEqual(differences(ROOT / "next" / name, ROOT / "loaded" / name / "next"), [])
                self.assertTrue(differences(ROOT / name, ROOT / "loaded" / name / "next"))

    # matrix: training: megatron-core megatron-core/experts: megatron -> megatron+optimizer
    def test_views_are_what_training_wrote(self):
        """After two steps, and after one more."""
        for source, target in CASES:
            for root in (ROOT, ROOT / "next"):
                with self.subTest(source=source, target=target, root=root.name):
                    view = self.materialize(root / source, *flags(target))
                    self.assertEqual(differences(root / target, view, own(source, target), view), [])

    # matrix: loads: megatron-core megatron-core/experts: megatron -> megatron+optimizer
    def test_megatron_loads_views_and_goes_on(self):
        """It saves again what it loaded, and the next step is that of a run which was always in this layout."""
        source, target = MOUNTED
        with Mount(ROOT / source, *flags(target)) as mounted:
            views = {case: mounted if case == MOUNTED else self.view(*case) for case in CASES}
            out = {case: self.scratch / "out" / "_from_".join(case) for case in CASES}
            megatron([loading(case[1], views[case], out[case]) for case in CASES])
            for case in CASES:
                source, target = case
                with self.subTest(source=source, target=target):
                    ignore = own(source, target)
                    self.assertEqual(differences(views[case], out[case] / "again", ignore[1:], views[case]), [])
                    self.assertEqual(differences(ROOT / "next" / target, out[case] / "next", ignore), [])

    def view(self, source, target):
        return self.materialize(ROOT / source, *flags(target), name=f"{target}_from_{source}")


def flags(name):
    """Command-line flags for a layout and the kind of optimizer."""
    model, layout, optimizer = specs.parse(name)
    options = ["--tp", layout.tp, "--pp", layout.pp]
    if layout.stages:
        options += ["--pp-layout", layout.stages]
    else:
        options += ["--vpp", layout.vpp, "--pp-layers", ",".join(map(str, layers(model, layout)))]
    if "num_moe_experts" in model:
        options += ["--ep", layout.ep, "--etp", layout.etp]
    return [*options, "--optimizer", "distributed" if optimizer.distributed else "mixed"]


def layers(model, layout):
    """Layers of each stage."""
    ends = [size for size in (layout.first, layout.last) if size]
    others = layout.pp * layout.vpp - len(ends)
    middle = [(model["num_layers"] - sum(ends)) // others] * others
    return ([layout.first] if layout.first else []) + middle + ([layout.last] if layout.last else [])


def own(source, target):
    """What a view cannot have from its source, and training in the view's layout has otherwise: random states first."""
    (_, one, from_optimizer), (_, other, to_optimizer) = specs.parse(source), specs.parse(target)
    replicas = REPLICAS if one.data_parallel != other.data_parallel else ()
    attributes = ATTRIBUTES if from_optimizer.distributed and not to_optimizer.distributed else ()
    return ("rng_state", *replicas, *attributes)


if __name__ == "__main__":
    unittest.main()
