"""What a mount keeps: files that the kernel reads by itself, what `status` tells, what `warmup` does. Contents never depend on any of it."""

import contextlib
import errno
import json
import mmap
import os
import shutil
import unittest

from support import FIXTURES, Case, Mount, ckpt_fs, exact, need, run

SOURCE = FIXTURES / "yuan-tiny" / "pp1_tp1_none"
MAPPED = ("--tp", 2, "--pp", 1, "--as", "safetensors")


def status(path):
    return json.loads(ckpt_fs("status", path, "--json").stdout)["status"]


@contextlib.contextmanager
def mapped(path, flags=mmap.MAP_SHARED):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ) as pages:
        yield pages


def files(root):
    return sorted(path for path in root.rglob("*") if path.is_file())


class Whole(Case):
    """As root, files that loaders map are handed to the kernel whole."""

    def setUp(self):
        super().setUp()
        need(os.geteuid() == 0, "root")
        self.real = self.materialize(SOURCE, *MAPPED)
        self.wanted = {path.name: path.read_bytes() for path in files(self.real)}

    def check(self, path):
        """The file by every way of reading, with several handles at once."""
        wanted = self.wanted[path.name]
        with open(path, "rb") as file, mapped(path) as shared, mapped(path, mmap.MAP_PRIVATE) as private:
            self.assertEqual(file.read(), wanted)
            self.assertEqual(shared[:], wanted)
            self.assertEqual(private[:], wanted)
            self.assertEqual(os.pread(file.fileno(), 1000, len(wanted) - 10), wanted[-10:])
            self.assertEqual(os.fstat(file.fileno()).st_size, len(wanted))
        handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            page = mmap.mmap(-1, 4096)
            self.assertEqual(os.preadv(handle, [page], 4096), 4096)
            self.assertEqual(page[:], wanted[4096:8192])
        finally:
            os.close(handle)
        run("cmp", path, self.real / path.name)

    def test_files_whose_source_is_in_memory_are_whole_from_the_first_open_on(self):
        with Mount(SOURCE, *MAPPED) as path:
            shutil.copytree(SOURCE, self.scratch / "copy")  # reads the source into memory
            for file in files(path):
                self.check(file)
            found = status(path)
            weights = [file for file in files(path) if file.suffix == ".safetensors"]
            need(found["cache"]["files"], "passthrough (Linux 6.9)")
            self.assertEqual(found["cache"]["files"], len(weights))
            self.assertGreater(found["cache"]["hits"], 0)
            self.assertEqual(found["read_bytes"], sum(len(self.wanted[f.name]) for f in files(path) if f not in weights))

    def test_a_mapping_outlives_everything_else(self):
        """The last handle is closed, the file gives way to others, the mount goes: mapped bytes stay what they are."""
        with Mount(SOURCE, *MAPPED, "--cache-size", "400kB") as path:
            first, *others = [file for file in files(path) if file.suffix == ".safetensors"]
            with mapped(first) as pages:
                for _ in range(3):
                    for other in others:
                        self.check(other)
                self.assertEqual(pages[:], self.wanted[first.name])
                with mapped(first) as again:
                    self.assertEqual(again[:], self.wanted[first.name])
                cache = status(path)["cache"]
                self.assertLessEqual(cache["bytes"], cache["budget"])
            self.check(first)

    def test_a_file_that_is_open_otherwise_stays_so(self):
        """The kernel refuses a second way to open a file; nobody may see that."""
        with Mount(SOURCE, *MAPPED) as path:
            weights = [file for file in files(path) if file.suffix == ".safetensors"]
            os.posix_fadvise(os.open(weights[0], os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
            for file in weights:
                with mapped(file) as pages:
                    ckpt_fs("warmup", path)
                    self.check(file)
                    self.assertEqual(pages[:], self.wanted[file.name])
                self.check(file)

    def test_a_changed_source_is_found_at_the_next_open(self):
        source = self.scratch / "source"
        shutil.copytree(SOURCE, source)
        with Mount(source, *MAPPED) as path:
            ckpt_fs("warmup", path)
            weights = [file for file in files(path) if file.suffix == ".safetensors"]
            self.check(weights[0])
            for victim in source.rglob("*.pt"):
                os.truncate(victim, victim.stat().st_size // 2)
            with self.assertRaises(OSError) as caught:
                weights[0].read_bytes()
            self.assertIn(caught.exception.errno, (errno.ESTALE, errno.EIO))

    def test_without_a_cache_nothing_is_kept(self):
        with Mount(SOURCE, *MAPPED, "--cache-size", 0) as path:
            ckpt_fs("warmup", path)
            for file in files(path):
                self.check(file)
            self.assertEqual({status(path)["cache"][name] for name in ("budget", "bytes", "files", "tiles")}, {0})


class Commands(Case):
    def test_warmup_changes_no_byte(self):
        layout = ("--tp", 2, "--pp", 1)
        for flags, more in ((MAPPED, ()), (layout, ()), (layout, ("--io", "cached")), ((), ())):
            real = self.materialize(SOURCE, *flags) if flags else None
            with self.subTest(flags=flags, more=more), Mount(SOURCE, *exact(*flags), *more) as path:
                done = ckpt_fs("warmup", path)
                self.assertEqual((done.stdout, done.stderr), ("", ""))
                if real:
                    run("diff", "-r", real, path)

    def test_warmup_of_some_files(self):
        with Mount(SOURCE, *MAPPED) as path:
            ckpt_fs("warmup", path, "mp_rank_01.safetensors", "mp_rank_00.safetensors")
            self.assertEqual(ckpt_fs("warmup", path, "nothing", check=False).returncode, 3)
            self.assertEqual(ckpt_fs("warmup", self.scratch, check=False).returncode, 7)

    def test_files_too_large_to_keep_are_named(self):
        with Mount(SOURCE, *MAPPED, "--cache-size", "100kB") as path:
            need(os.geteuid() == 0, "root")
            self.assertIn("larger than the mount's --cache-size", ckpt_fs("warmup", path).stderr)

    def test_status(self):
        with Mount(SOURCE, *MAPPED) as path, Mount(SOURCE) as other:
            (path / "mp_rank_00.safetensors").read_bytes()
            everywhere = {entry["mount"]: entry for entry in json.loads(ckpt_fs("status", "--json").stdout)}
            self.assertLessEqual({str(path), str(other)}, set(everywhere))
            here = json.loads(ckpt_fs("status", path / "mp_rank_00.safetensors", "--json").stdout)
            self.assertEqual((here["mount"], here["source"]), (str(path), str(SOURCE)))
            self.assertEqual(here["status"]["cache"]["budget"], 1 << 30)
            table = ckpt_fs("status").stdout.splitlines()
            self.assertTrue(table[0].startswith("MOUNT"))
            self.assertTrue(any(line.startswith(str(path)) for line in table))
        self.assertEqual(ckpt_fs("status", self.scratch, check=False).returncode, 7)

    def test_the_door_is_in_no_listing(self):
        with Mount(SOURCE, *MAPPED) as path:
            for node in (path, path / "mp_rank_00.safetensors"):
                self.assertEqual(os.listxattr(node), [])
                for name in ("user.other", "user.ckpt-fs", "security.capability"):
                    with self.assertRaises(OSError) as caught:
                        os.getxattr(node, name)
                    self.assertEqual(caught.exception.errno, errno.ENODATA)


if __name__ == "__main__":
    unittest.main()
