"""What the program says of checkpoints: the JSON of its commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence

from ._command import report, run
from ._options import InspectOptions, Path, SourceOptions, ViewOptions, arguments, path

if TYPE_CHECKING:
    from typing_extensions import Unpack


def inspect(source: Path, *, options: Sequence[str] = (), **keywords: Unpack[InspectOptions]) -> Dict[str, Any]:
    """What a checkpoint is, which layouts and formats it can take, and which flags training needs with them.

    ``tensors=True`` lists every parameter, ``globals=True`` the classes and functions that its pickles name.
    """
    return report(["inspect", path(source), *arguments(keywords, options)])


def ls(source: Path, *, tensors: bool = False, options: Sequence[str] = (), **keywords: Unpack[ViewOptions]) -> Dict[str, Any]:
    """The files that a view of a checkpoint has; with ``tensors=True`` also where the bytes of each tensor come from."""
    more = ["--tensors"] if tensors else []
    return report(["ls", path(source), *more, *arguments(keywords, options)])


def map(source: Path, *, format: str = "text", options: Sequence[str] = (), **keywords: Unpack[ViewOptions]) -> str:
    """Which source file makes which part of which rank of a view, drawn as ``"text"``, ``"svg"`` or ``"html"``."""
    return run(["map", path(source), f"--format={format}", *arguments(keywords, options)]).decode()


def cat(source: Path, file: str, start: int = 0, stop: Optional[int] = None, *, options: Sequence[str] = (), **keywords: Unpack[ViewOptions]) -> bytes:
    """The bytes ``[start, stop)`` of a file of a view, such as ``config.json``. For many reads use :func:`ckpt_fs.open`, which opens the source once."""
    part = f"--range={start}:{'' if stop is None else stop}"
    return run(["cat", path(source), part, *arguments(keywords, options), "--", file])


def doctor(source: Optional[Path] = None, *, options: Sequence[str] = ()) -> Dict[str, Any]:
    """Whether this machine can mount (``["mount_possible"]``), and what was found (``["findings"]``); that it cannot is no exception."""
    return report(["doctor", *([] if source is None else [path(source)]), *options], accepted=(0, 8))


def verify(first: Path, second: Optional[Path] = None, *, options: Sequence[str] = (), **keywords: Unpack[SourceOptions]) -> Dict[str, Any]:
    """Compares two checkpoints in any two layouts and formats bit for bit, or checks one in itself.

    A difference is no exception: look at ``["identical"]`` and ``["differences"]``.
    """
    both = [path(first)] if second is None else [path(first), path(second)]
    return report(["verify", *both, *arguments(keywords, options)], accepted=(0, 1))


def digest(source: Path, *, tensors: bool = False, options: Sequence[str] = (), **keywords: Unpack[SourceOptions]) -> Dict[str, Any]:
    """Fingerprints of the weights (``["digest"]``) and of the optimizer that do not depend on layout and format; with ``tensors=True`` of every parameter."""
    more = ["--tensors"] if tensors else []
    return report(["digest", path(source), *more, *arguments(keywords, options)])
