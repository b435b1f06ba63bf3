"""What every script here starts with: where the project's own Python is, one way of rounding, and how a result is written.

A result is a safetensors file with whole tensors, and beside it a JSON file with what is no tensor.
"""

import json
import os
import sys
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))
from megatron_core import ENVIRONMENT, environment_is_set  # noqa: E402


def begin():
    """Start again where the same sums come out in every layout; torch looks at this when it starts."""
    if not environment_is_set():
        quiet = {"PYTHONWARNINGS": "ignore", "TRANSFORMERS_VERBOSITY": "error"}
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT, **quiet})


def write(path, tensors, said):
    """`tensors` under their names, and `said`, anything else, in the JSON file beside."""
    from safetensors.torch import save_file

    save_file({name: tensor.detach().clone().contiguous() for name, tensor in sorted(tensors.items())}, path)
    path.with_suffix(".json").write_text(json.dumps(said, indent=1, sort_keys=True, default=str) + "\n")
    print(f"{path}: {len(tensors)} tensors; {json.dumps(said, sort_keys=True, default=str)[:400]}")


def versions():
    """Of the packages that had a part in it."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    if "megatron.core" in sys.modules:
        found["megatron-core"] = sys.modules["megatron.core"].__version__
    for name in ("torch", "transformers", "accelerate"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found
