"""A tensor of which only a part is read.

What is cut off at the front costs nothing: rows that follow each other are one read. Behind that the framework's own indexing is applied to what was
read, so a result is that of indexing the whole tensor.
"""

from __future__ import annotations

import operator
from typing import Any, Callable, List, Sequence, Tuple

from ._errors import UsageError

#: Reads elements ``[first, first + count)`` of the tensor in row-major order, in this shape.
Read = Callable[[int, Sequence[int]], Any]


class Slice:
    """A tensor that is read when it is indexed, as ``safetensors`` has it."""

    def __init__(self, shape: Sequence[int], dtype: str, read: Read) -> None:
        self._shape = list(shape)
        self._dtype = dtype
        self._read = read

    def get_shape(self) -> List[int]:
        """Sizes of its dimensions."""
        return list(self._shape)

    def get_dtype(self) -> str:
        """Its element type in safetensors' words, such as ``BF16``."""
        return self._dtype

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, index: Any) -> Any:
        first, shape, rest = narrow(self._shape, index if isinstance(index, tuple) else (index,))
        part = self._read(first, shape)
        if not rest:
            return part
        if isinstance(part, bytearray):
            raise UsageError("of bytes only rows that follow each other can be had; frameworks 'pt' and 'np' do the rest")
        return part[rest]


def narrow(shape: Sequence[int], index: Tuple[Any, ...]) -> Tuple[int, List[int], Tuple[Any, ...]]:
    """The stretch of elements that has what is asked for: its first element, its shape, and the index that is left to apply."""
    left = list(shape)
    if not all(_is_basic(one) for one in index):
        # Lists, masks and tensors select in ways of their own, also together with what stands before them.
        return 0, left, index
    first = 0
    rest = list(index)
    while rest and left:
        inner = 1
        for size in left[1:]:
            inner *= size
        size = left[0]
        if _is_integer(rest[0]):
            at = operator.index(rest[0])
            if not -size <= at < size:
                raise IndexError(f"index {at} is out of bounds for dimension {len(shape) - len(left)} with size {size}")
            first += (at % size) * inner
            del left[0], rest[0]
            continue
        if isinstance(rest[0], slice):
            start, stop, step = rest[0].indices(size)
            if step > 0:
                first += start * inner if start < size else 0
                left[0] = max(stop - start, 0)
                # What is left of it cuts off nothing more.
                rest[0] = slice(None, None, step)
                if step == 1 and len(rest) == 1:
                    del rest[0]
        break
    # Too many are refused by the framework, which counts them.
    return first, left, tuple(rest)


def _is_integer(one: Any) -> bool:
    return not isinstance(one, bool) and hasattr(one, "__index__") and not getattr(one, "shape", ())


def _is_basic(one: Any) -> bool:
    return one is None or one is Ellipsis or isinstance(one, slice) or _is_integer(one)
