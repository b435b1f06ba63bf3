"""Keyword arguments as options of the program.

Names are those of the long options: ``as_`` is ``--as``, ``pp_layers=[10, 32]`` is ``--pp-layers 10,32``. Nothing is checked here: the program
knows its options, and says what is wrong with them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Iterable, List, Mapping, Sequence, TypedDict, Union

if TYPE_CHECKING:
    Path = Union[str, os.PathLike[str]]
else:
    Path = Union[str, os.PathLike]


class SourceOptions(TypedDict, total=False):
    """Which checkpoint, of what there is at the path."""

    iteration: Union[int, str]
    family: Union[Path, Sequence[Path]]
    vocab_size: int
    tied_head: str
    optimizer: str
    template: Path
    root: str


class ViewOptions(SourceOptions, total=False):
    """Which checkpoint, and what it is to look like. What is left out stays as in the source."""

    as_: str
    tp: int
    pp: int
    vpp: int
    ep: int
    etp: int
    pp_layers: Union[str, Sequence[int]]
    pp_layout: str
    vocab_fill: str
    rng: str
    hf_model_type: str
    shard_size: Union[int, str]
    megatron_spec: str
    make_vocab_size_divisible_by: int
    dcp_layout: str
    dcp_names: str
    engine_version: str


class MountOptions(ViewOptions, total=False):
    """The same, and how it is mounted."""

    allow_other: bool
    allow_root: bool
    uid: int
    gid: int
    auto_unmount: bool
    settle: int
    crc: str
    io: str
    cache_size: Union[int, str]
    threads: int
    log_file: Path
    log_level: str
    log_format: str
    metrics_addr: str


class MaterializeOptions(ViewOptions, total=False):
    """The same, and how it is written."""

    overwrite: bool
    resume: bool
    tp_ranks: Union[str, Sequence[int]]
    pp_ranks: Union[str, Sequence[int]]
    jobs: int


class InspectOptions(ViewOptions, total=False):
    """The same, and how much is said."""

    tensors: bool
    globals: bool


#: Options that are given once for each value; other lists are one value with commas.
_REPEATED = ("family",)


def arguments(given: Mapping[str, object], options: Iterable[str] = ()) -> List[str]:
    """The options of a command line. ``options`` are words of one already, and go last."""
    words: List[str] = []
    for name, value in given.items():
        flag = "--" + name.rstrip("_").replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            words.append(flag)
        elif isinstance(value, (list, tuple)) and name in _REPEATED:
            words.extend(f"{flag}={_text(one)}" for one in value)
        elif isinstance(value, (list, tuple)):
            words.append(f"{flag}={','.join(_text(one) for one in value)}")
        else:
            words.append(f"{flag}={_text(value)}")
    return words + [os.fspath(word) for word in options]


def _text(value: object) -> str:
    if isinstance(value, os.PathLike):
        return _path_text(os.fspath(value))
    return str(value)


def _path_text(path: Union[str, bytes]) -> str:
    return os.fsdecode(path)


def path(of: Path) -> str:
    """A path as a word of a command line: one that begins with a dash is no option."""
    text = os.fsdecode(os.fspath(of))
    return os.path.join(".", text) if text.startswith("-") else text
