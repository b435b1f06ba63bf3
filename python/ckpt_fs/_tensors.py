"""Tensors of a view by name, as ``safetensors.safe_open`` has those of a file. No mount, no copy on disk."""

from __future__ import annotations

import json
from types import TracebackType
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Type, Union

from ._client import Client
from ._errors import SourceError, TensorNotFoundError, UnsupportedError, UsageError
from ._frameworks import DTYPES, framework as framework_of
from ._options import Path, ViewOptions, arguments, path
from ._slices import Slice

if TYPE_CHECKING:
    from typing_extensions import Unpack

Rank = Union[None, int, Mapping[str, int]]

#: Formats whose files hold tensors in pieces.
_IN_PIECES = ("torch_dist", "dcp")


class _Tensor(NamedTuple):
    file: str
    dtype: str
    shape: Tuple[int, ...]
    offset: int
    size: int


class Tensors:
    """The tensors of a view, or of one rank of it. Threads may share it; forked and spawned workers open the checkpoint for themselves."""

    def __init__(self, words: Sequence[str], rank: Rank, framework: str, device: object) -> None:
        self._made_of = (list(words), rank, framework, device)
        self._framework = framework_of(framework, device)
        self._client = Client(words)
        self._found: Optional[Dict[str, _Tensor]] = None
        try:
            self._files = _files(self._client.greeting, rank)
        except BaseException:
            self._client.close()
            raise

    def __reduce__(self) -> Tuple[Type[Tensors], Tuple[List[str], Rank, str, object]]:
        return Tensors, self._made_of

    def __enter__(self) -> Tensors:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ckpt_fs.open({' '.join(self._made_of[0])!r}, rank={self._made_of[1]!r})"

    def close(self) -> None:
        """Lets go of the source. Tensors that were read stay."""
        self._client.close()

    def keys(self) -> List[str]:
        """Names of the tensors, sorted."""
        return sorted(self._tensors())

    def offset_keys(self) -> List[str]:
        """Names of the tensors as they lie in files: the order in which reading them all is fastest."""
        return list(self._tensors())

    def metadata(self) -> Optional[Dict[str, str]]:
        """What the header of the first safetensors file says beside tensors, if there is any of both."""
        for file in self._files:
            if file.endswith(".safetensors"):
                length = int.from_bytes(self._read(file, 0, 8), "little")
                found: Optional[Dict[str, str]] = json.loads(self._read(file, 8, length)).get("__metadata__")
                return found
        return None

    def get_tensor(self, name: str) -> Any:
        """A tensor of the framework that was asked for when this was opened."""
        tensor = self._tensor(name)
        return self._part(tensor, 0, tensor.shape)

    def get_tensors(self, names: Sequence[str]) -> Dict[str, Any]:
        """Several of them by name."""
        return {name: self.get_tensor(name) for name in names}

    def get_slice(self, name: str) -> Slice:
        """A tensor of which only what is indexed is read."""
        tensor = self._tensor(name)
        return Slice(tensor.shape, DTYPES[tensor.dtype][1], lambda first, shape: self._part(tensor, first, shape))

    def get_bytes(self, name: str) -> bytearray:
        """The bytes of a tensor in row-major order, whatever the framework."""
        tensor = self._tensor(name)
        return self._read(tensor.file, tensor.offset, tensor.size)

    def read_into(self, name: str, buffer: Any) -> None:
        """Fills a writable buffer with the bytes of a tensor: pinned or shared memory, or a numpy array."""
        tensor = self._tensor(name)
        view = memoryview(buffer).cast("B")
        if len(view) != tensor.size:
            raise UsageError(f"{name} has {tensor.size} bytes, and the buffer {len(view)}")
        self._fill(tensor.file, tensor.offset, view)

    def _part(self, tensor: _Tensor, first: int, shape: Sequence[int]) -> Any:
        each = DTYPES[tensor.dtype][0]
        count = each
        for size in shape:
            count *= size
        memory, view = self._framework.empty(count)
        self._fill(tensor.file, tensor.offset + first * each, view)
        return self._framework.typed(memory, tensor.dtype, shape)

    def _read(self, file: str, offset: int, count: int) -> bytearray:
        memory = bytearray(count)
        self._fill(file, offset, memoryview(memory))
        return memory

    def _fill(self, file: str, offset: int, view: memoryview) -> None:
        if self._client.read_into(file, offset, view) != len(view):
            raise SourceError(f"{file} ends before byte {offset + len(view)}")

    def _tensor(self, name: str) -> _Tensor:
        try:
            return self._tensors()[name]
        except KeyError:
            raise TensorNotFoundError(f"there is no tensor {name} in {', '.join(self._files)}") from None

    def _tensors(self) -> Dict[str, _Tensor]:
        # No lock, which a fork might find taken: two threads at worst find the same twice.
        found = self._found
        if found is None:
            found = self._found = self._listed()
        return found

    def _listed(self) -> Dict[str, _Tensor]:
        found: Dict[str, _Tensor] = {}
        for file in self._files:
            for one in self._client.file(file)["tensors"]:
                tensor = _Tensor(file, one["dtype"], tuple(one["shape"]), one["offset"], one["bytes"])
                if found.setdefault(one["name"], tensor) is not tensor:
                    raise UnsupportedError(f"{one['name']} is in {found[one['name']].file} and in {file}")
        return found


def _files(greeting: Dict[str, Any], rank: Rank) -> List[str]:
    """The files that hold the tensors of a rank, or of all where files are of none."""
    format, layout = greeting["format"], greeting["layout"]
    if format in _IN_PIECES:
        raise UnsupportedError(
            f"a {format} view holds tensors in pieces, which its loaders put together: mount or materialize it, or give loaders "
            f"ckpt://as={format}/PATH! (fsspec). For tensors by name open it as_='hf', 'megatron' or 'safetensors'"
        )
    ranks = {file["path"]: file["rank"] for file in greeting["files"] if "rank" in file}
    if not ranks:
        if rank not in (None, 0):
            raise UsageError(f"files of a {format} view belong to no rank; leave rank out")
        return [file["path"] for file in greeting["files"] if file["path"].endswith(".safetensors")]
    wanted = _rank(ranks, rank, f"{format} {layout}")
    return [file for file, of in ranks.items() if of == wanted]


def _rank(ranks: Dict[str, Dict[str, int]], rank: Rank, view: str) -> Dict[str, int]:
    """The rank that is meant. A number is enough where ranks differ in nothing but that."""
    axes = [axis for axis in ("tp", "pp", "ep") if any(of[axis] for of in ranks.values())]
    sizes = ", ".join(f"{axis} 0 to {max(of[axis] for of in ranks.values())}" for axis in axes)
    if rank is None and not axes:
        rank = {}
    if isinstance(rank, int) and len(axes) <= 1:
        rank = {(axes or ["tp"])[0]: rank}
    if rank is None or isinstance(rank, int):
        raise UsageError(f"which rank? The view is {view}, with {sizes}; write rank={{{', '.join(repr(axis) + ': 0' for axis in axes)}}}")
    wanted = {axis: rank.get(axis, 0) for axis in ("tp", "pp", "ep")}
    if wanted not in ranks.values() or not set(rank) <= set(wanted):
        raise UsageError(f"the view is {view}, with {sizes or 'one rank, 0'}; there is no rank {dict(rank)}")
    return wanted


def open(
    source: Path, *, rank: Rank = None, framework: str = "pt", device: object = "cpu", options: Sequence[str] = (), **keywords: Unpack[ViewOptions]
) -> Tensors:
    """Opens a checkpoint in another layout or format, to read its tensors by name::

        with ckpt_fs.open("/ckpt/run", as_="hf") as model:
            norm = model.get_tensor("model.norm.weight")
            rows = model.get_slice("lm_head.weight")[1000:2000]

        with ckpt_fs.open("/ckpt/run", as_="vllm", tp=8, rank=3) as shard:
            ...

    ``rank`` says whose tensors of a view with a file for each rank: a number where ranks differ in one thing (its tensor-parallel rank, mostly), otherwise
    ``{"tp": 3, "pp": 1}``. ``framework`` is ``"pt"`` for torch, ``"np"`` for numpy or ``"bytes"``. Needs no FUSE; works in threads and DataLoader workers.
    """
    return Tensors([path(source), *arguments(keywords, options)], rank, framework, device)
