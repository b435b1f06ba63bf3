"""Writes a view to disk, and says how far it is."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Callable, List, NamedTuple, Optional, Sequence

from ._binary import binary
from ._command import finish
from ._options import MaterializeOptions, Path, arguments, path

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Progress(NamedTuple):
    """How far a copy is."""

    #: Bytes written.
    written: int
    #: Bytes that there will be.
    total: int
    #: Since the start.
    seconds: float


def materialize(
    source: Path,
    destination: Path,
    *,
    progress: Optional[Callable[[Progress], object]] = None,
    options: Sequence[str] = (),
    **keywords: Unpack[MaterializeOptions],
) -> None:
    """Writes a checkpoint to disk in another layout or format: whole or not at all.

    ``progress`` is called about ten times a second, the last time when all is written. An exception in it, or an interrupt, stops the copy and leaves
    the destination as it was.
    """
    words = ["materialize", path(source), path(destination), "--progress=json" if progress else "--quiet"]
    command = [binary(), *words, *arguments(keywords, options)]
    # A session of its own: an interrupt from the keyboard reaches Python, which stops the program and waits until it has cleaned up.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    said: List[str] = []
    with process:
        try:
            assert process.stderr is not None
            for raw in process.stderr:
                line = raw.decode(errors="replace")
                if progress is not None and line.startswith("{"):
                    now = json.loads(line)
                    progress(Progress(now["written"], now["total"], now["seconds"]))
                else:
                    said.append(line)
        except BaseException:
            process.terminate()
            raise
    finish(process.returncode, "".join(said))
