"""Where the program is."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from typing import Iterator, Optional

from ._errors import BinaryNotFoundError

NAME = "ckpt-fs"
VARIABLE = "CKPT_FS_BIN"


def binary() -> str:
    """The path of the program: ``$CKPT_FS_BIN``; or beside Python, where the wheel puts it; or on ``$PATH``.

    The wheel's own comes before others on the path, because it is of the version that this package is of.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        # Not a guess: whoever sets it means that one.
        path = shutil.which(chosen)
        if path is None:
            raise BinaryNotFoundError(f"{VARIABLE} is {chosen}, which is not a program")
        return os.path.abspath(path)
    looked_at = []
    for directory in _directories():
        path = os.path.join(directory, NAME)
        looked_at.append(directory)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    found = shutil.which(NAME)
    if found is None:
        raise BinaryNotFoundError(
            f"the program {NAME} is neither in {', '.join(looked_at)} nor on the path; "
            f"install it (pip install ckpt-fs, or cargo install --locked --path . in a clone), or set {VARIABLE} to where it is"
        )
    return os.path.abspath(found)


def _directories() -> Iterator[str]:
    """Where wheels put programs: of this environment, then of the user."""
    seen = set()
    user = "posix_user" if os.name == "posix" else None
    for directory in (_of_python(), sysconfig.get_path("scripts"), sysconfig.get_path("scripts", user) if user else None):
        if directory and directory not in seen:
            seen.add(directory)
            yield directory


def _of_python() -> Optional[str]:
    # Not resolved: in a virtual environment Python is a link, and programs are beside the link.
    return os.path.dirname(sys.executable) if sys.executable else None
