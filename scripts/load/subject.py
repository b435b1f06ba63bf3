"""A file of a mount beside its materialized copy, and the places in it where something could go wrong.

Not here: how it is read (`operations`).
"""

import json
import os
import zipfile

from . import system

MIB = 1 << 20


class Wrong(Exception):
    """A read that gave something else than the copy has."""


class Subject:
    def __init__(self, name, view, real):
        self.name, self.path = name, os.path.join(view, name)
        real = os.path.join(real, name)
        self.size = os.path.getsize(real)
        descriptor = os.open(real, os.O_RDONLY)
        self.copy = system.map_file(descriptor, 0, max(self.size, 1), system.SHARED)
        os.close(descriptor)
        self.anchors = self._anchors(real)

    def _anchors(self, real):
        """Start and end, pages, mebibytes, tensors."""
        at = {0, self.size, max(self.size - system.PAGE, 0)}
        at.update(range(0, self.size, max(MIB, self.size // 64 // MIB * MIB)))
        at.update(page * system.PAGE for page in (1, 2, self.size // system.PAGE))
        at.update(tensors(real))
        return sorted(at)

    def somewhere(self, random):
        """An offset: half of them at or around a boundary, a few past the end."""
        if random() < 0.5:
            return int(random() * self.size)
        at = self.anchors[int(random() * len(self.anchors))]
        return max(at + NEAR[int(random() * len(NEAR))], 0)

    def check(self, address, got, offset, length):
        """`got` bytes at `address` are what a read of `length` bytes from `offset` must give."""
        wanted = min(length, max(self.size - offset, 0))
        if got != wanted:
            raise Wrong(f"{self.name} at {offset}+{length}: {got} bytes instead of {wanted}")
        self.check_bytes(address, offset, got)

    def check_bytes(self, address, offset, length):
        if not system.same(address, self.copy + offset, length):
            first = system.first_difference(address, self.copy + offset, length)
            raise Wrong(f"{self.name} at {offset}+{length}: byte {offset + first} differs")


NEAR = (0, 0, 0, 1, -1, 7, -8, system.PAGE, -system.PAGE, system.PAGE - 1, 1 - system.PAGE, -511, 65536 - 3, -65536, -MIB, 5)
LENGTHS = (1, 2, 7, 8, 100, 511, 512, 1000, 4095, 4096, 4097, 8192, 12345, 65535, 65536, 65537, 131072, 300001)
LONG = (MIB - 1, MIB, MIB + 1, MIB + 4096, 2 * MIB, 2 * MIB + 777, 3 * MIB)


def some_length(random, most):
    """Mostly short ones: many of them a second, where long ones would only copy."""
    choices = LONG if random() < 0.02 else LENGTHS
    return min(choices[int(random() * len(choices))], most)


def tensors(path):
    """Offsets at which tensors begin and end, as far as the format says so in a word."""
    if path.endswith(".safetensors"):
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        spans = (value["data_offsets"] for name, value in header.items() if name != "__metadata__")
        return {8, 8 + length} | {8 + length + offset for span in spans for offset in span}
    if path.endswith(".pt"):
        with zipfile.ZipFile(path) as archive:
            return {entry.header_offset for entry in archive.infolist()} | {archive.start_dir}
    return set()


def subjects(view, real):
    """All files that both have; that they have the same is the first check."""
    names = [sorted(files(root)) for root in (view, real)]
    if names[0] != names[1]:
        raise Wrong(f"{view} and {real} have other files: {sorted(set(names[0]) ^ set(names[1]))}")
    # An empty file cannot be mapped, and there is nothing in it to be wrong.
    return [Subject(name, view, real) for name in names[0] if os.path.getsize(os.path.join(real, name))]


def files(root):
    for directory, _, names in os.walk(root):
        yield from (os.path.relpath(os.path.join(directory, name), root) for name in names)
