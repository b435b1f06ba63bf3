"""The version of the wheel that this was installed from."""

from importlib import metadata


def _version() -> str:
    try:
        return metadata.version("ckpt-fs")
    except metadata.PackageNotFoundError:
        # A clone of the repository on PYTHONPATH.
        return "0+unknown"


__version__ = _version()
