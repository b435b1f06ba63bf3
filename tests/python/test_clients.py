"""Ordinary programs on a mounted view: all of them must see the materialized bytes."""

import hashlib
import mmap
import os
import random
import tarfile
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support import FIXTURES, Mount, ckpt_fs, need_program, run, same_files

SOURCE = FIXTURES / "megatron-tiny" / "untied" / "dist_tp1pp2_first3"
FLAGS = ("--tp", 4, "--pp", 3, "--pp-layers", "3,3,2")


class Clients(unittest.TestCase):
    """One mount and one materialized copy for the class; no test changes either."""

    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory(prefix="ckpt-fs-test-")
        cls.addClassCleanup(scratch.cleanup)
        cls.scratch = Path(scratch.name)
        cls.real = cls.scratch / "real"
        ckpt_fs("materialize", SOURCE, cls.real, *FLAGS)
        cls.view = cls.enterClassContext(Mount(SOURCE, *FLAGS, "--crc", "exact"))
        cls.files = sorted(str(p.relative_to(cls.real)) for p in cls.real.rglob("*.pt"))

    def test_cp(self):
        run("cp", "-r", self.view, self.scratch / "cp")
        self.assertEqual(same_files(self.real, self.scratch / "cp"), [])

    def test_cmp(self):
        for name in self.files:
            run("cmp", self.real / name, self.view / name)

    def test_sha256sum(self):
        for name in self.files:
            found = run("sha256sum", self.view / name).stdout.split()[0]
            self.assertEqual(found, hashlib.sha256((self.real / name).read_bytes()).hexdigest())

    def test_tar(self):
        archive = self.scratch / "view.tar"
        run("tar", "-C", self.view, "-cf", archive, ".")
        with tarfile.open(archive) as tar:
            members = {m.name.removeprefix("./"): tar.extractfile(m).read() for m in tar if m.isfile()}
        wanted = {str(p.relative_to(self.real)): p.read_bytes() for p in self.real.rglob("*") if p.is_file()}
        self.assertEqual(members, wanted)

    def test_dd_with_odd_blocks(self):
        out = self.scratch / "dd"
        for size in (511, 4097, 65537, 1000003):
            with self.subTest(block=size):
                run("dd", f"if={self.view / self.files[-1]}", f"of={out}", f"bs={size}", "status=none")
                self.assertEqual(out.read_bytes(), (self.real / self.files[-1]).read_bytes())

    def test_dd_past_the_end_gives_nothing(self):
        path = self.view / self.files[0]
        with open(path, "rb") as file:
            file.seek(path.stat().st_size + 4096)
            self.assertEqual(file.read(10), b"")

    def test_mmap(self):
        for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
            for name in self.files:
                with open(self.view / name, "rb") as file, mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ) as mapped:
                    self.assertEqual(mapped[:], (self.real / name).read_bytes())

    def test_mapped_while_read(self):
        """A reader and a mapping of one inode at once do not disturb each other."""
        wanted = (self.real / self.files[0]).read_bytes()
        with open(self.view / self.files[0], "rb") as file:
            with mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
                for start in range(0, len(wanted), 50021):
                    self.assertEqual(os.pread(file.fileno(), 777, start), wanted[start : start + 777])
                    self.assertEqual(mapped[start : start + 777], wanted[start : start + 777])

    def test_pread_at_random_offsets_from_many_threads(self):
        wanted = {name: (self.real / name).read_bytes() for name in self.files}
        handles = {name: os.open(self.view / name, os.O_RDONLY) for name in self.files}
        self.addCleanup(lambda: [os.close(handle) for handle in handles.values()])

        def reader(seed):
            dice = random.Random(seed)
            for _ in range(300):
                name = dice.choice(self.files)
                start = dice.randrange(len(wanted[name]) + 100)
                length = dice.choice((1, 7, 100, 4096, 40000, 300001))
                if os.pread(handles[name], length, start) != wanted[name][start : start + length]:
                    return f"{name} at {start}+{length}"
            return None

        with ThreadPoolExecutor(8) as pool:
            self.assertEqual([bad for bad in pool.map(reader, range(8)) if bad], [])

    def test_direct_reads(self):
        """O_DIRECT wants aligned memory and offsets; an anonymous map is aligned."""
        wanted = (self.real / self.files[0]).read_bytes()
        handle = os.open(self.view / self.files[0], os.O_RDONLY | os.O_DIRECT)
        self.addCleanup(os.close, handle)
        with mmap.mmap(-1, 65536) as buffer:
            for start in range(0, len(wanted), 65536):
                count = os.preadv(handle, [buffer], start)
                self.assertEqual(buffer[:count], wanted[start : start + count])
                self.assertEqual(count, min(65536, len(wanted) - start))

    def test_sendfile_and_splice(self):
        wanted = (self.real / self.files[0]).read_bytes()
        with open(self.view / self.files[0], "rb") as source, open(self.scratch / "sent", "wb") as target:
            while os.sendfile(target.fileno(), source.fileno(), None, 1 << 20):
                pass
        self.assertEqual((self.scratch / "sent").read_bytes(), wanted)

    def test_fio(self):
        """fio checks no contents here, but it issues reads as nothing else does and reports each that fails."""
        need_program("fio")
        for engine in ("psync", "mmap"):
            for pattern in ("read", "randread"):
                with self.subTest(engine=engine, pattern=pattern):
                    run(
                        "fio", "--readonly", "--name=x", f"--filename={self.view / self.files[0]}", f"--rw={pattern}",
                        f"--ioengine={engine}", "--bs=4k", "--numjobs=4", "--thread", "--size=200k", "--invalidate=0",
                        "--allow_file_create=0", "--randseed=1", "--output=/dev/null",
                    )


if __name__ == "__main__":
    unittest.main()
