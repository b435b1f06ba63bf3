"""Runs the program to its end.

Its output goes through pipes and never to ``sys.stdout``: in a notebook that is no file. What it notes on a success goes to the logger ``ckpt_fs``.
"""

from __future__ import annotations

import json
import logging
import subprocess
from typing import Any, Dict, Sequence, cast

from ._binary import binary
from ._errors import error_of, split_messages

#: Notes of the program: what a view leaves out, what a training run must be told. Python shows warnings unless a program says otherwise.
logger = logging.getLogger("ckpt_fs")


def run(words: Sequence[str], accepted: Sequence[int] = (0,)) -> bytes:
    """What a command prints. Raises what its exit code says, unless that is accepted."""
    done = subprocess.run([binary(), *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finish(done.returncode, done.stderr.decode(errors="replace"), accepted)
    return done.stdout


def finish(exit_code: int, stderr: str, accepted: Sequence[int] = (0,)) -> None:
    """Hands on notes, or raises."""
    notes, message = split_messages(stderr)
    if exit_code not in accepted:
        raise error_of(exit_code, message or notes)
    if notes:
        logger.warning("%s", notes)
    # What went well, and what a training run may be told.
    if message:
        logger.info("%s", message)


def report(words: Sequence[str], accepted: Sequence[int] = (0,)) -> Dict[str, Any]:
    """What a command says as JSON."""
    return cast(Dict[str, Any], json.loads(run([*words, "--json"], accepted)))
