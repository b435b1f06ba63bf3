"""Classes that real checkpoints pickle and plain torch does not have.

`args` of a Megatron run holds enums of `megatron.core`. A user of these files has that package; a test does not, so
modules of the same names are put into sys.modules, with enums that accept the values seen in real files.
"""

import argparse
import enum
import signal
import sys
import types

ENUMS = {
    "megatron.core.enums": ("ModelType",),
    "megatron.core.transformer.enums": ("AttnBackend", "InferenceCudaGraphScope"),
}


def _module(name):
    """Make a module and its parents importable."""
    if name not in sys.modules:
        sys.modules[name] = types.ModuleType(name)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(_module(parent), child, sys.modules[name])
    return sys.modules[name]


def install():
    """Put the stand-in modules in place; returns their classes."""
    found = []
    for module, names in ENUMS.items():
        for name in names:
            home = _module(module)
            if not hasattr(home, name):
                members = {f"value_{i}": i for i in range(1, 17)}
                setattr(home, name, enum.Enum(name, members, module=module))
            found.append(getattr(home, name))
    return found


def safe_globals():
    """What torch.load(weights_only=True) must be told to accept: classes that only hold data."""
    import numpy

    allowed = [*install(), argparse.Namespace, signal.Signals, numpy.ndarray, numpy.dtype]
    allowed += [getattr(numpy.dtypes, name) for name in dir(numpy.dtypes) if name.endswith("DType")]
    allowed.append(numpy._core.multiarray._reconstruct)
    return allowed
