"""Shows a view as a directory for as long as it is wanted."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Sequence, Type

from ._command import logger, run
from ._errors import CkptFsError, MountPointError
from ._options import MountOptions, Path, arguments, path

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Mount:
    """A mounted view. A context manager that gives its path and unmounts at the end; also a path by itself (``os.fspath``).

    It is taken away when Python ends, but not when Python is killed: ``ckpt-fs unmount`` does that then.
    """

    def __init__(self, where: pathlib.Path, is_temporary: bool) -> None:
        #: Where it is mounted.
        self.path = where
        self._end = weakref.finalize(self, _take_away, str(where), is_temporary, os.getpid())

    def __enter__(self) -> pathlib.Path:
        return self.path

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        try:
            self.unmount()
        except CkptFsError:
            # What went wrong first is what counts.
            if kind is None:
                raise

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"ckpt_fs.Mount({str(self.path)!r}{'' if self._end.alive else ', unmounted'})"

    def unmount(self) -> None:
        """Takes it away; once more does nothing. Files that are still open or mapped (tensors of safetensors are) go on to work until they are closed."""
        self._end()


def _take_away(point: str, is_temporary: bool, owner: int) -> None:
    # A forked worker that ends does not take away what belongs to its parent.
    if os.getpid() != owner:
        return
    try:
        run(["unmount", "--lazy", path(point)])
    except MountPointError as error:
        # Somebody else took it away, who was free to.
        if os.path.ismount(point):
            raise
        logger.debug("%s", error.message)
    if is_temporary:
        os.rmdir(point)


def mount(source: Path, mountpoint: Optional[Path] = None, *, options: Sequence[str] = (), **keywords: Unpack[MountOptions]) -> Mount:
    """Shows a checkpoint in another layout or format as a read-only directory::

        with ckpt_fs.mount("/ckpt/run", tp=8, pp=4) as path:
            subprocess.run(["torchrun", ..., "--load", path])

    Without a mount point an empty directory is made for it and removed afterwards. With neither layout nor format every layout is there, each as a
    directory of its name. Raises :class:`ckpt_fs.FuseError` where nothing can be mounted; :func:`ckpt_fs.open` works there too.
    """
    words = arguments(keywords, options)
    is_temporary = mountpoint is None
    point = tempfile.mkdtemp(prefix="ckpt-fs-") if mountpoint is None else path(mountpoint)
    try:
        run(["mount", path(source), point, *words])
    except BaseException:
        if is_temporary:
            with contextlib.suppress(OSError):
                os.rmdir(point)
        raise
    return Mount(pathlib.Path(os.path.abspath(point)), is_temporary)
