"""Sources that people change while they are read: what needs them fails, nothing is wrong, all else goes on.

Storage that fails is in tests/it/faults.rs; what a mount cannot see is in docs/semantics.md.
"""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import unittest

from support import FIXTURES, Case, Mount, ckpt_fs, is_mounted, until

YUAN = FIXTURES / "yuan-tiny" / "pp2b24_tp2_none"
# The stages stay as they are, so that half of the files need the one that changes and half do not.
FLAGS = ("--tp", 4, "--pp", 2, "--pp-layers", "2,4", "--crc", "exact")
VICTIM = "iter_0000100/mp_rank_00_001/model_optim_rng.pt"
READERS = 16
BAD = (errno.ESTALE, errno.EIO)


def truncated(path):
    os.truncate(path, path.stat().st_size // 2)


def emptied(path):
    os.truncate(path, 0)


def grown(path):
    with open(path, "ab") as file:
        file.write(b"x")


def overwritten(path):
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))


def replaced(path):
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    os.rename(other, path)


def removed(path):
    path.unlink()


CHANGES = (truncated, emptied, grown, overwritten, replaced, removed)

# Reads a mapped file in circles and compares with what it should be: exit 0 when told to end, 3 where a byte is wrong, or SIGBUS.
MAPPED = """
import mmap, sys
wanted, file = open(sys.argv[1], "rb").read(), open(sys.argv[2], "rb")
mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=getattr(mmap, sys.argv[3]))
print("ready", flush=True)
for line in sys.stdin:
    mapping.madvise(mmap.MADV_DONTNEED)
    if mapping[:] != wanted:
        sys.exit(3)
    print("right", flush=True)
"""


class Readers:
    """Threads that read random parts of all files and compare them; what went wrong is counted by file."""

    def __init__(self, root, wanted):
        self.files = {name: (os.open(root / name, os.O_RDONLY), data) for name, data in wanted.items()}
        self.good, self.failed, self.wrong = dict.fromkeys(wanted, 0), {name: set() for name in wanted}, []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.read, args=(seed,)) for seed in range(READERS)]

    def read(self, seed):
        rng = random.Random(seed)
        while not self.over.is_set():
            name = rng.choice(list(self.files))
            handle, data = self.files[name]
            at = rng.randrange(len(data))
            count = rng.choice((1, 4096, 50_000, len(data)))
            try:
                found = os.pread(handle, count, at)
            except OSError as error:
                self.failed[name].add(error.errno)
                continue
            if found != data[at : at + count]:
                self.wrong.append((name, at, count))
            self.good[name] += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(60)
        for handle, _ in self.files.values():
            os.close(handle)


class SourceChanges(Case):
    def setUp(self):
        super().setUp()
        copy = self.materialize(YUAN, *FLAGS[:6])
        self.wanted = {str(p.relative_to(copy)): p.read_bytes() for p in copy.rglob("*") if p.is_file()}
        listed = json.loads(ckpt_fs("ls", YUAN, *FLAGS[:6], "--json", "--tensors").stdout)
        self.needing = {
            file["path"]
            for file in listed["files"]
            if any(part["file"].endswith(VICTIM) for tensor in file.get("tensors", ()) for part in tensor["from"])
        }
        # The ranks of the second stage: what is replicated comes from TP rank 0 for all of them.
        self.assertEqual(len(self.needing), 4)

    def source(self, name):
        return shutil.copytree(YUAN, self.scratch / name)

    def test_sixteen_readers_while_a_source_file_changes(self):
        for mode in ("direct", "cached"):
            for change in CHANGES:
                source = self.source(f"{mode}-{change.__name__}")
                with self.subTest(mode=mode, change=change.__name__), Mount(source, *FLAGS, "--io", mode) as path:
                    self.change_under_readers(path, lambda: change(source / VICTIM), mode)

    def change_under_readers(self, path, change, mode):
        with Readers(path, self.wanted) as readers:
            until(lambda: all(count > 5 for count in readers.good.values()), "reads of every file")
            change()
            others = [name for name in self.wanted if name not in self.needing]
            before = {name: readers.good[name] for name in others}
            if mode == "direct":
                until(lambda: all(readers.failed[name] for name in self.needing), "errors")
            until(lambda: all(readers.good[name] > before[name] + 5 for name in others), "reads of the other files")
        self.assertEqual(readers.wrong, [])
        for name, errors in readers.failed.items():
            self.assertLessEqual(errors, set(BAD) if name in self.needing else set(), name)
        # Who comes later is told, too, if nothing was kept; and all else is as it was.
        for name, data in self.wanted.items():
            with open(path / name, "rb") as file:
                if name in self.needing and mode == "direct":
                    with self.assertRaises(OSError) as caught:
                        file.read()
                    self.assertIn(caught.exception.errno, BAD)
                elif name not in self.needing:
                    self.assertEqual(file.read(), data)

    def test_mapped_files_give_what_was_there_or_a_fault(self):
        name = sorted(self.needing)[0]
        wanted = self.scratch / "out" / name
        for mode in ("direct", "cached"):
            for kind in ("MAP_SHARED", "MAP_PRIVATE"):
                for change in CHANGES:
                    source = self.source(f"{mode}-{kind}-{change.__name__}")
                    with self.subTest(mode=mode, kind=kind, change=change.__name__):
                        with Mount(source, *FLAGS, "--io", mode) as path:
                            code = self.map_and_change(wanted, path / name, kind, lambda: change(source / VICTIM))
                            self.assertIn(code, (0, -7), "0: the right bytes; SIGBUS: none")
                            self.assertTrue(is_mounted(path))
                            self.assertEqual((path / "latest_checkpointed_iteration.txt").read_text(), "100")

    def map_and_change(self, wanted, path, kind, change):
        command = [sys.executable, "-c", MAPPED, str(wanted), str(path), kind]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
            self.assertEqual(reader.stdout.readline(), "ready\n")
            reader.stdin.write("go\n")
            reader.stdin.flush()
            self.assertEqual(reader.stdout.readline(), "right\n")
            change()
            try:
                reader.communicate("go\ngo\n", timeout=60)
            except BrokenPipeError:
                pass
            return reader.wait(60)

    def test_a_source_put_back_stays_an_error(self):
        """It may be the same again or not; only mounting again looks at all of it."""
        source = self.source("source")
        with Mount(source, *FLAGS) as path:
            data, stat = (source / VICTIM).read_bytes(), (source / VICTIM).stat()
            replaced(source / VICTIM)
            (source / VICTIM).write_bytes(data)
            os.utime(source / VICTIM, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            with self.assertRaises(OSError) as caught:
                (path / sorted(self.needing)[0]).read_bytes()
            self.assertEqual(caught.exception.errno, errno.ESTALE)
        with Mount(source, *FLAGS) as path:
            self.assertEqual((path / VICTIM).read_bytes(), self.wanted[VICTIM])

    def test_a_source_that_is_moved_away_and_back_is_the_same(self):
        source = self.source("source")
        with Mount(source, *FLAGS) as path:
            os.rename(source, self.scratch / "elsewhere")
            with self.assertRaises(OSError) as caught:
                (path / VICTIM).read_bytes()
            self.assertEqual(caught.exception.errno, errno.ESTALE)
            os.rename(self.scratch / "elsewhere", source)
            self.assertEqual((path / VICTIM).read_bytes(), self.wanted[VICTIM])


if __name__ == "__main__":
    unittest.main()
