"""Trains, loads and compares checkpoints with the real megatron-core.

python -m megatron_core train dense_tp2pp2_plain OUT
python -m megatron_core load dense_tp2pp2_plain SOURCE OUT [--steps 1]
python -m megatron_core jobs FILE                            a JSON list, see jobs.py
python -m megatron_core set DIRECTORY [WORD ...]             every checkpoint of truth.py whose name has a word
python -m megatron_core compare A B
"""

import argparse
import json
import os
import sys
from pathlib import Path

from . import ENVIRONMENT, environment_is_set


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    train.add_argument("name")
    train.add_argument("out")
    load = commands.add_parser("load")
    load.add_argument("name")
    load.add_argument("load")
    load.add_argument("out")
    load.add_argument("--steps", type=int, default=0)
    commands.add_parser("jobs").add_argument("file", type=Path)
    everything = commands.add_parser("set")
    everything.add_argument("directory", type=Path)
    everything.add_argument("words", nargs="*")
    compare = commands.add_parser("compare")
    compare.add_argument("a", type=Path)
    compare.add_argument("b", type=Path)
    options = vars(parser.parse_args())
    command = options.pop("command")
    if command == "compare":
        from .compare import differences

        found = list(differences(options["a"], options["b"]))
        print("\n".join(found) or "the same")
        sys.exit(1 if found else 0)
    if not environment_is_set():
        os.execve(sys.executable, [sys.executable, "-m", "megatron_core", *sys.argv[1:]], {**os.environ, **ENVIRONMENT})
    from . import jobs

    if command == "jobs":
        jobs.run_all(json.loads(options["file"].read_text()))
    elif command == "set":
        from . import truth

        truth.make(options["directory"], options["words"])
    else:
        jobs.run_all([options])


if __name__ == "__main__":
    main()
