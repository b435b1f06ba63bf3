"""Memory for tensors of torch, of numpy, or plain bytes: filled first, then given type and shape. Nothing is copied."""

from __future__ import annotations

import ctypes
import importlib
from typing import Any, Callable, Dict, NamedTuple, Sequence, Tuple

from ._errors import UsageError

#: The program's name of an element type, which is torch's, with its bytes and what safetensors calls it.
DTYPES: Dict[str, Tuple[int, str]] = {
    "bool": (1, "BOOL"),
    "uint8": (1, "U8"),
    "int8": (1, "I8"),
    "int16": (2, "I16"),
    "uint16": (2, "U16"),
    "int32": (4, "I32"),
    "uint32": (4, "U32"),
    "int64": (8, "I64"),
    "uint64": (8, "U64"),
    "float16": (2, "F16"),
    "bfloat16": (2, "BF16"),
    "float32": (4, "F32"),
    "float64": (8, "F64"),
    "complex32": (4, "C32"),
    "complex64": (8, "C64"),
    "complex128": (16, "C128"),
    "float8_e4m3fn": (1, "F8_E4M3"),
    "float8_e5m2": (1, "F8_E5M2"),
    "float8_e4m3fnuz": (1, "F8_E4M3FNUZ"),
    "float8_e5m2fnuz": (1, "F8_E5M2FNUZ"),
    "float8_e8m0fnu": (1, "F8_E8M0"),
    "float4_e2m1fn_x2": (1, "F4"),
}


class Framework(NamedTuple):
    """How a tensor is made."""

    #: Memory of so many bytes, and a view of it to fill.
    empty: Callable[[int], Tuple[Any, memoryview]]
    #: That memory as a tensor of this type and shape.
    typed: Callable[[Any, str, Sequence[int]], Any]


def framework(name: str, device: object = "cpu") -> Framework:
    """``pt`` (also ``torch``, ``pytorch``), ``np`` (``numpy``) or ``bytes``."""
    if name in ("pt", "torch", "pytorch"):
        return _torch(device)
    if str(device) != "cpu":
        raise UsageError(f"framework {name!r} has no device {device}; framework 'pt' has")
    if name in ("np", "numpy"):
        return _numpy()
    if name == "bytes":
        return Framework(_bytes, lambda memory, dtype, shape: memory)
    raise UsageError(f"framework {name!r} is none of 'pt', 'np' and 'bytes'")


def _bytes(count: int) -> Tuple[bytearray, memoryview]:
    memory = bytearray(count)
    return memory, memoryview(memory)


def _torch(device: object) -> Framework:
    torch: Any = importlib.import_module("torch")

    def empty(count: int) -> Tuple[Any, memoryview]:
        # From Python, so that torch need not have been built with numpy. Both views are gone when the tensor is handed out.
        memory = torch.empty(count, dtype=torch.uint8)
        view = memoryview((ctypes.c_char * count).from_address(memory.data_ptr())) if count else memoryview(bytearray())
        return memory, view.cast("B")

    def typed(memory: Any, dtype: str, shape: Sequence[int]) -> Any:
        of = getattr(torch, dtype, None)
        if of is None:
            raise UsageError(f"torch {torch.__version__} has no {dtype}; a newer one has")
        tensor = memory.view(of).reshape(tuple(shape))
        return tensor if str(device) == "cpu" else tensor.to(device)

    return Framework(empty, typed)


def _numpy() -> Framework:
    numpy: Any = importlib.import_module("numpy")

    def empty(count: int) -> Tuple[Any, memoryview]:
        memory = numpy.empty(count, numpy.uint8)
        return memory, memoryview(memory)

    def typed(memory: Any, dtype: str, shape: Sequence[int]) -> Any:
        return memory.view(_numpy_dtype(numpy, dtype)).reshape(tuple(shape))

    return Framework(empty, typed)


def _numpy_dtype(numpy: Any, dtype: str) -> Any:
    try:
        return numpy.dtype(dtype)
    except TypeError:
        pass
    try:
        return numpy.dtype(getattr(importlib.import_module("ml_dtypes"), dtype))
    except (ImportError, AttributeError):
        raise UsageError(f"numpy has no {dtype} (ml_dtypes, once installed, may have); framework 'pt' has, and 'bytes' takes it as it is") from None
