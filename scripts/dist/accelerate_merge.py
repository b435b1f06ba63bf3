#!/usr/bin/env python3
"""Make one file of the weights in an accelerate directory as `accelerate merge-weights` does, and write what is in it as model.<name>."""

import common

common.begin()
import argparse  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

import compare  # noqa: E402
from accelerate import PartialState  # noqa: E402
from accelerate.utils import merge_fsdp_weights  # noqa: E402


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="with pytorch_model_fsdp_0")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    PartialState(cpu=True)  # its log asks for it
    with tempfile.TemporaryDirectory() as scratch:
        merge_fsdp_weights(options.directory / "pytorch_model_fsdp_0", scratch, safe_serialization=True)
        tensors = {f"model.{name}": tensor for name, tensor in compare.read(Path(scratch)).items()}
    common.write(options.out, tensors, common.versions())


if __name__ == "__main__":
    main()
