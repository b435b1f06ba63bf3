"""ckpt-fs from Python: the wheel that this is part of also has the program itself."""

from importlib.metadata import version

__version__ = version("ckpt-fs")
