"""One reader of a mount: a seeded stream of operations, and what it has open.

Not here: the operations (`operations`), who else reads (`crowd`).
"""

import os
import random
from collections import Counter

from . import operations, system, uring
from .subject import MIB, some_length


class Shared:
    """What the readers of one process share: a handle of some files, open all the time. A reader that is alone has none, so that files are
    closed by all and opened anew, maybe in another way."""

    def __init__(self, files, threads):
        self.files = files
        shared = [file for file in files if threads > 1 and random.Random(file.name).random() < 0.7]
        self.handles = {file: os.open(file.path, os.O_RDONLY) for file in shared}


class Reader:
    ROOM = 4 * MIB
    MOST_HANDLES = 4
    FAILURES = 3

    def __init__(self, shared, seed, only=(), drop_caches=False):
        self.shared, self.files = shared, shared.files
        self.random = random.Random(seed).random
        self.room = system.memory(self.ROOM + system.PAGE)
        self.zeros = system.memory(system.PAGE)
        self.handles, self.directs = {}, {}
        self.kept = self._ring = self._pipe = self._target = None
        table = operations.kinds()
        table["drop-caches"] = (table["drop-caches"][0], 0.05 if drop_caches else 0)
        chosen = [(name, *table[name]) for name in (only or table)]
        weights = [max(weight, 1) if only else weight for _, _, weight in chosen]
        # Drawn once: to weigh every time would take longer than a read.
        self.table = random.Random(seed).choices([entry[:2] for entry in chosen], weights, k=16384)
        self.counts, self.refused = Counter(), Counter()

    def run(self, count, progress, say):
        """Does `count` operations; `progress(number)` is told before each, `say(number, name, error)` of each that was wrong."""
        failures = 0
        for number in range(count):
            name, operation = self.table[int(self.random() * len(self.table))]
            progress(number)
            try:
                operation(self, self.file())
                self.counts[name] += 1
            except operations.Refused:
                self.refused[name] += 1
            except (operations.Wrong, OSError) as error:
                say(number, name, error)
                failures += 1
                if failures == self.FAILURES:
                    break
        self.close()
        return failures

    def file(self):
        return self.files[int(self.random() * len(self.files))]

    def place(self, file):
        return file.somewhere(self.random), some_length(self.random, self.ROOM - 4096)

    def handle(self, file):
        """The one that all threads share, or our own."""
        shared = self.shared.handles.get(file)
        return self.own(file) if shared is None or self.random() < 0.5 else shared

    def own(self, file):
        return self._open(self.handles, file, os.O_RDONLY)

    def direct(self, file):
        return self._open(self.directs, file, os.O_RDONLY | os.O_DIRECT)

    def _open(self, table, file, flags):
        """The last used stay open, so that an operation can have as many at a time as there is room for."""
        if file in table:
            table[file] = table.pop(file)
        else:
            if len(table) == self.MOST_HANDLES:
                os.close(table.pop(next(iter(table))))
            table[file] = os.open(file.path, flags)
        return table[file]

    def forget(self, file):
        for table in (self.handles, self.directs):
            if file in table:
                os.close(table.pop(file))
        if self.kept and self.kept[0] is file:
            self.unmap_kept()

    def mapped(self, file, descriptor, flags, protection=system.PROT_READ):
        """Start, length and address of a part that begins with a page; often it is all of the file."""
        start = 0
        if self.random() < 0.7:
            start = min(file.somewhere(self.random), file.size - 1) // system.PAGE * system.PAGE
        length = file.size - start
        if start and self.random() < 0.5:
            length = min(length, some_length(self.random, 4 * MIB))
        length = min(length, 8 * MIB) if flags & system.POPULATE else length
        return start, length, system.map_file(descriptor, start, length, flags, protection)

    def kept_mapping(self, file):
        if self.kept is None or self.random() < 0.02:
            self.unmap_kept()
            self.kept = (file, *self.mapped(file, self.handle(file), system.SHARED if self.random() < 0.7 else system.PRIVATE))
        return self.kept

    def unmap_kept(self):
        if self.kept:
            system.munmap(self.kept[3], self.kept[2])
        self.kept = None

    def ring(self):
        if self._ring is None:
            try:
                self._ring = uring.Ring()
            except OSError:
                raise operations.Refused from None
        return self._ring

    def pipe(self):
        self._pipe = self._pipe or os.pipe()
        return self._pipe

    def target(self):
        if self._target is None:
            self._target = os.memfd_create("copy")
        return self._target

    def close(self):
        self.unmap_kept()
        for handle in (*self.handles.values(), *self.directs.values(), *(self._pipe or ())):
            os.close(handle)
        if self._target is not None:
            os.close(self._target)
        if self._ring:
            self._ring.close()
        system.munmap(self.room, self.ROOM + system.PAGE)
        system.munmap(self.zeros, system.PAGE)
