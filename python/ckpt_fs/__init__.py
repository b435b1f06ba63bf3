"""Model checkpoints in any parallel layout and format, without rewriting them.

A checkpoint that training left cut for one tensor-, pipeline- and expert-parallel layout is read here as if it had been written in another one, or in
another format::

    import ckpt_fs

    with ckpt_fs.open("/ckpt/run", as_="hf") as model:              # like safetensors.safe_open; needs no FUSE
        weight = model.get_tensor("model.embed_tokens.weight")

    with ckpt_fs.mount("/ckpt/run", tp=8, as_="megatron") as path:  # a directory, for anything that reads files
        ...

    ckpt_fs.materialize("/ckpt/run", "/ckpt/hf", as_="hf")          # files on disk
    ckpt_fs.verify("/ckpt/run", "/ckpt/hf")["identical"]

All of it is done by the program ``ckpt-fs``, which every function here starts; nothing here knows what a checkpoint is. Importing this needs neither
torch nor numpy nor fsspec. docs/python.md has the whole story.
"""

from ._binary import binary
from ._errors import (
    BinaryNotFoundError,
    CkptFsError,
    DestinationError,
    DifferenceError,
    FuseError,
    LayoutError,
    MountPointError,
    OtherError,
    ProcessDiedError,
    SourceChangedError,
    SourceError,
    StoppedError,
    TensorNotFoundError,
    UnsupportedError,
    UsageError,
)
from ._materialize import Progress, materialize
from ._mount import Mount, mount
from ._reports import cat, digest, doctor, inspect, ls, verify
from ._reports import map as map  # As open: not in __all__.
from ._slices import Slice
from ._tensors import Tensors
from ._tensors import open as open  # Not in __all__: a star import must not take the place of the builtin.
from ._version import __version__

__all__ = [
    "BinaryNotFoundError",
    "CkptFsError",
    "DestinationError",
    "DifferenceError",
    "FuseError",
    "LayoutError",
    "Mount",
    "MountPointError",
    "OtherError",
    "ProcessDiedError",
    "Progress",
    "Slice",
    "SourceChangedError",
    "SourceError",
    "StoppedError",
    "TensorNotFoundError",
    "Tensors",
    "UnsupportedError",
    "UsageError",
    "__version__",
    "binary",
    "cat",
    "digest",
    "doctor",
    "inspect",
    "ls",
    "materialize",
    "mount",
    "verify",
]
