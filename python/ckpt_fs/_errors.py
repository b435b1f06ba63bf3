"""One exception for each exit code of the program, with what the program said.

The codes are part of the program's interface (README.md) and do not change their meaning.
"""

from __future__ import annotations

import json
import signal
from typing import Dict, List, Optional, Tuple, Type


class CkptFsError(Exception):
    """What ckpt-fs cannot do, and why. All exceptions of this package are of this class."""

    #: What the program ends with for this reason.
    exit_code: int = 9
    #: What it said, without ``ckpt-fs:`` in front of it.
    message: str
    #: Whether a running process answered with it, and will answer the next request.
    _is_answer = False

    def __init__(self, message: str, exit_code: Optional[int] = None) -> None:
        super().__init__(message)
        self.message = message
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> Tuple[Type[CkptFsError], Tuple[str, int]]:
        # Workers of multiprocessing hand exceptions to their parents.
        return type(self), (self.message, self.exit_code)


class DifferenceError(CkptFsError):
    """``verify`` found a difference. Nothing here raises it: :func:`ckpt_fs.verify` returns what it found."""

    exit_code = 1


class UsageError(CkptFsError):
    """An option or a combination of options that makes no sense."""

    exit_code = 2


class SourceError(CkptFsError):
    """The source cannot be read, is damaged or incomplete."""

    exit_code = 3


class UnsupportedError(CkptFsError):
    """The source is of a kind that this version does not reshard, or cannot be shown in that format."""

    exit_code = 4


class LayoutError(CkptFsError):
    """The model does not allow that layout; the message says which ones it does."""

    exit_code = 5


class DestinationError(CkptFsError):
    """The destination cannot be written."""

    exit_code = 6


class MountPointError(CkptFsError):
    """The mount point cannot be used."""

    exit_code = 7


class FuseError(CkptFsError):
    """FUSE is not available here. ``ckpt_fs.open`` and ``ckpt_fs.materialize`` do without."""

    exit_code = 8


class OtherError(CkptFsError):
    """Anything else that went wrong."""

    exit_code = 9


class StoppedError(CkptFsError):
    """The program was stopped by a signal."""

    exit_code = 130


class BinaryNotFoundError(CkptFsError, FileNotFoundError):
    """The program ``ckpt-fs`` is not where it is looked for."""

    exit_code = 127


class ProcessDiedError(CkptFsError):
    """The process that reads the checkpoint ended by itself or was killed. The next read starts another one."""

    exit_code = 9


class SourceChangedError(SourceError):
    """The checkpoint is no longer the one that was opened."""


class TensorNotFoundError(UsageError, KeyError):
    """There is no tensor of that name."""


_BY_CODE: Dict[int, Type[CkptFsError]] = {
    of.exit_code: of
    for of in (
        DifferenceError,
        UsageError,
        SourceError,
        UnsupportedError,
        LayoutError,
        DestinationError,
        MountPointError,
        FuseError,
        OtherError,
        StoppedError,
    )
}

_PREFIX = "ckpt-fs: "
_NOTE = "ckpt-fs: note: "
_JSON = '{"error":'


def error_of(exit_code: int, message: str) -> CkptFsError:
    """The exception for a program that ended with this code; a negative one is the signal that ended it, as `subprocess` has it."""
    if exit_code < 0:
        return ProcessDiedError(_died(exit_code, message), 128 - exit_code)
    return _BY_CODE.get(exit_code, CkptFsError)(message or f"ckpt-fs ended with code {exit_code}", exit_code)


def _died(exit_code: int, message: str) -> str:
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"ckpt-fs was ended by {name}" + (f": {message}" if message else "")


def split_messages(stderr: str) -> Tuple[str, str]:
    """What the program said on standard error: notes that go with a success, and the rest, which is why it failed."""
    notes: List[str] = []
    rest: List[str] = []
    current: Optional[List[str]] = None
    for line in stderr.splitlines():
        if line.startswith(_JSON):
            # With --json an error is one line of it.
            current, line = rest, json.loads(line)["error"]["message"]
        elif line.startswith(_NOTE):
            current = notes
            line = line[len(_NOTE) :]
        elif line.startswith(_PREFIX):
            current = rest
            line = line[len(_PREFIX) :]
        # Lines that begin otherwise go on with the message before.
        (rest if current is None else current).append(line)
    return "\n".join(notes), "\n".join(rest)
