"""A run of the real megatron-core that is started from a checkpoint, for scripts that load one.

The model is what the checkpoint's args describe; what it holds before loading is NaN, so that what was not loaded shows.
"""

import argparse
import json
import tempfile
from pathlib import Path

import common

import ranks
import torch
from megatron_core import build, checkpoint, compare, described, fused, on_cpu, torch_dist, whole

# What whole tensors are called, by what `whole` calls them.
STATES = {"param": "optimizer.state.fp32_param.", "exp_avg": "optimizer.state.exp_avg.", "exp_avg_sq": "optimizer.state.exp_avg_sq."}
TIMEOUT = 300


def parser(description):
    """Options that name a checkpoint, a layout and how to load."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="the directory that --load would be given, or an iteration's")
    for name in ("tp", "pp", "vpp", "ep"):
        parser.add_argument(f"--{name}", type=int, default=1)
    parser.add_argument("--etp", type=int, default=0, help="that of the dense part unless said")
    parser.add_argument("--dp", type=int, default=0, help="the smallest possible unless said")
    parser.add_argument("--spec", choices=("local", "te-names"), default="local", help="whose names the model asks for")
    parser.add_argument("--args", type=Path, help="a JSON file, in place of the checkpoint's args")
    parser.add_argument("--optimizer", nargs="?", const="saved", default="none", choices=("none", "saved", "plain", "dist"),
                        help="load it as well: as args say, or as one of the two kinds")
    parser.add_argument("--adam", choices=("torch", "fused"),
                        help="torch's, or that of GPUs; with torch's a fresh distributed optimizer cannot be asked what it would load")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=JSON", help="a field of args to have otherwise")
    parser.add_argument("--random-states", action="store_true", help="load them as well, as Megatron does in the same layout")
    parser.add_argument("--fully-parallel", action="store_true", help="--ckpt-fully-parallel-load")
    parser.add_argument("--out", type=Path, required=True, help="a safetensors file for the whole tensors")
    return parser


def is_rank_files(directory):
    return any(directory.glob("**/mp_rank_*"))


def args_of(options):
    """The checkpoint's args, as a dictionary."""
    changes = {name: json.loads(value) for name, value in (change.split("=", 1) for change in options.set)}
    if options.args:
        found = json.loads(options.args.read_text())
        found["params_dtype"] = getattr(torch, found["params_dtype"].removeprefix("torch."))
    elif is_rank_files(options.directory):
        file = sorted(options.directory.glob("**/model_optim_rng.pt"))[0]
        found = vars(torch.load(file, map_location="cpu", weights_only=False)["args"])
    else:
        found = vars(torch_dist.common(options.directory)["args"])
    return {**found, **changes}


def start(options, args):
    """The run on this rank, with the checkpoint loaded, and what was said about it."""
    on_cpu.install()
    kind = {"saved": "dist" if args["use_distributed_optimizer"] else "plain"}.get(options.optimizer, options.optimizer)
    is_fused = options.adam == "fused" if options.adam else kind == "dist"
    if is_fused:
        fused.install()
    layout = described.layout(options.tp, options.pp, options.vpp, options.ep, options.etp, options.dp)
    build.initialize(layout)
    run = build.Run(
        described.model(args), layout, described.optimizer(args, kind, is_fused), described.rates(args)
    )
    run.te_names = options.spec == "te-names"
    for parameter in (parameter for chunk in run.bare for parameter in chunk.parameters()):
        parameter.data.fill_(torch.nan)
    if is_rank_files(options.directory):
        return run, {"iteration": checkpoint.load(run, options.directory)}
    return run, torch_dist.load(run, options.directory, options.random_states, options.fully_parallel)


def run_all(options, function):
    """`function(run, said)` on every rank; then the whole tensors of the run, and what rank 0 said of the load."""
    args = args_of(options)
    layout = described.layout(options.tp, options.pp, options.vpp, options.ep, options.etp, options.dp)
    with tempfile.TemporaryDirectory() as parts:
        ranks.run(layout.world, _work, options, args, function, parts, name=str(options.directory), timeout=TIMEOUT)
        said = torch.load(f"{parts}/said.pt", weights_only=False)
        return wholes(Path(parts) / "parts"), said | common.versions()


def wholes(parts):
    """What the ranks wrote, put together, under the names of torch_dist."""
    return {STATES.get(kind, "") + name: tensor for (name, kind), tensor in compare.wholes(parts).items()}


def _work(options, args, function, parts):
    run, said = start(options, args)
    function(run, said)
    whole.write(run, Path(parts) / "parts")
    if torch.distributed.get_rank() == 0:
        torch.save(said, f"{parts}/said.pt")
