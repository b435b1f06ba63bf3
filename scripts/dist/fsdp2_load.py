#!/usr/bin/env python3
"""Load a torch DCP or accelerate directory into a transformers model under FSDP2, and write what model and optimizer then hold.

The model is built from a config.json. --train-step takes one step of AdamW on made tokens after loading. Whole tensors are written as
model.<name> and optim.state.<name>.<state>, whatever the checkpoint's parts are called.
"""

import common

common.begin()
import argparse  # noqa: E402
from pathlib import Path  # noqa: E402

import fsdp2_run  # noqa: E402
import torch  # noqa: E402


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="with .metadata, or accelerate's with pytorch_model_fsdp_0 and optimizer_0")
    parser.add_argument("--model", type=Path, required=True, help="a directory with config.json")
    parser.add_argument("--nproc", type=int, default=2, help="ranks (default 2)")
    parser.add_argument("--keys", default="model,optim", help="what the two parts are called (default model,optim); nothing for the root")
    parser.add_argument("--weights", action="store_true", help="leave the optimizer out")
    parser.add_argument("--of-megatron", action="store_true", help="in 32 bits, with weights from the optimizer's masters and without its settings")
    parser.add_argument("--train-step", type=int, metavar="NUMBER", help="take the step of this number after loading")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    kept = fsdp2_run.on_ranks(options.nproc, load, options, name=str(options.directory))
    fsdp2_run.write(options.out, kept["whole"])


def load(results, options):
    run = fsdp2_run.Run(options.model, dtype=torch.float32 if options.of_megatron else None)
    has_optimizer = not options.weights
    if options.of_megatron:
        fsdp2_run.load_of_megatron(run, options.directory)
    elif fsdp2_run.is_accelerate(options.directory):
        fsdp2_run.load_accelerate(run, options.directory, has_optimizer)
    else:
        fsdp2_run.load_dcp(run, options.directory, options.keys.split(","), has_optimizer)
    if options.train_step is not None:
        run.step(options.train_step)
    fsdp2_run.keep(results, whole=run.whole(has_optimizer))


if __name__ == "__main__":
    main()
