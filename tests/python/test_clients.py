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

from support import FIXTURES, TIMEOUT, Mount, ckpt_fs, need, need_program, need_torch, run, same_files

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
        """With modes and times, which a copy gets from the mount."""
        run("cp", "-a", self.view, self.scratch / "cp")
        self.assertEqual(same_files(self.real, self.scratch / "cp"), [])
        for name in self.files:
            there, here = (self.view / name).stat(), (self.scratch / "cp" / name).stat()
            self.assertEqual((here.st_mode, here.st_mtime_ns, here.st_size), (there.st_mode, there.st_mtime_ns, there.st_size))

    def test_rsync(self):
        need_program("rsync")
        # Nothing to send in either direction: -c compares contents.
        for source, target in ((self.real, self.view), (self.view, self.real)):
            self.assertEqual(run("rsync", "-rcn", "--out-format=%n", f"{source}/", f"{target}/").stdout, "")
        run("rsync", "-rc", f"{self.view}/", self.scratch / "rsync")
        self.assertEqual(same_files(self.real, self.scratch / "rsync"), [])

    def test_git(self):
        """A view is the work tree of a repository: what git stores are the materialized bytes."""
        need_program("git")
        stored = {}
        for name, tree in (("view", self.view), ("real", self.real)):
            repository = f"--git-dir={self.scratch / name}.git"
            run("git", repository, "-c", "init.defaultBranch=main", "init", "--quiet")
            run("git", repository, f"--work-tree={tree}", "-c", "core.fileMode=false", "add", "--all")
            stored[name] = run("git", repository, "ls-files", "--stage").stdout
            run("git", repository, "fsck", "--strict")
            # A second look finds nothing new, by times and numbers of files or by contents.
            self.assertEqual(run("git", repository, f"--work-tree={tree}", "-c", "core.fileMode=false", "diff", "--stat").stdout, "")
        self.assertEqual(stored["view"], stored["real"])
        self.assertEqual(len(stored["view"].splitlines()), sum(path.is_file() for path in self.real.rglob("*")))

    def test_find_and_du(self):
        """Names and sizes as in the copy; blocks as if the files were stored in full."""
        for command in (("find", "-type", "f", "-printf", "%P %s\\n"), ("find", "-type", "d", "-printf", "%P\\n"), ("find", "-empty")):
            found = [sorted(run("find", tree, *command[1:]).stdout.splitlines()) for tree in (self.view, self.real)]
            self.assertEqual(*found)
        for name in self.files:
            path = self.view / name
            self.assertEqual(run("du", "-b", path).stdout.split()[0], str((self.real / name).stat().st_size))
            self.assertEqual(run("du", "-B512", path).stdout.split()[0], str(-(-path.stat().st_size // 512)))
        self.assertGreater(int(run("du", "-sb", self.view).stdout.split()[0]), sum((self.real / name).stat().st_size for name in self.files))

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
                for more in ((), ("iflag=direct",)):
                    run("dd", f"if={self.view / self.files[-1]}", f"of={out}", f"bs={size}", "status=none", *more)
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
        known = run("fio", "--enghelp").stdout.split()
        for engine in ("psync", "mmap", "io_uring", "libaio"):
            need(engine in known, f"fio's engine {engine}")
            for pattern, direct in (("read", 0), ("randread", 0), ("randread", 1)):
                if engine == "mmap" and direct:
                    continue
                with self.subTest(engine=engine, pattern=pattern, direct=direct):
                    run(
                        "fio", "--readonly", "--name=x", f"--filename={self.view / self.files[0]}", f"--rw={pattern}", f"--direct={direct}",
                        f"--ioengine={engine}", "--bs=4k", "--numjobs=4", "--thread", "--size=200k", "--invalidate=0", "--iodepth=8",
                        "--allow_file_create=0", "--randseed=1", "--output=/dev/null",
                    )

    def test_data_loaders(self):
        """Workers of torch's DataLoader, forked and spawned, load tensors as the formats' own loaders map them."""
        need_torch()
        from loading_data import Sums
        from torch.utils.data import DataLoader

        as_safetensors = ("--as", "safetensors", *FLAGS)
        real = self.scratch / "real-safetensors"
        ckpt_fs("materialize", SOURCE, real, *as_safetensors)
        with Mount(SOURCE, *as_safetensors) as mapped, Mount(SOURCE, *FLAGS, "--io", "cached") as cached:
            weights = sorted(path.name for path in real.glob("*.safetensors"))
            wanted = list(Sums([self.real / name for name in self.files] * 2 + [real / name for name in weights]))
            paths = [root / name for root in (self.view, cached) for name in self.files] + [mapped / name for name in weights]
            for way in ("fork", "spawn"):
                with self.subTest(workers=way):
                    loader = DataLoader(Sums(paths), batch_size=None, num_workers=2, multiprocessing_context=way, timeout=TIMEOUT)
                    self.assertEqual(list(loader), wanted)


if __name__ == "__main__":
    unittest.main()
