"""Load: reads of every kind from many threads, faults of all of them at once, little memory, and mounts that come and go.

`scripts/read-fuzzer` and `scripts/soak` do the same for longer; what they found is in the tests of what it was.
"""

import mmap
import os
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cgroups import memory_group
from support import ROOT, Case, Mount, ckpt_fs, daemon_pid, exact, need, run

sys.path.insert(0, str(ROOT / "scripts"))
from load import crowd, model, modes  # noqa: E402

MIB = 1 << 20


class Load(unittest.TestCase):
    """One small model for the class, and its copies in both formats."""

    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory(prefix="ckpt-fs-test-")
        cls.addClassCleanup(scratch.cleanup)
        cls.directory = Path(scratch.name)
        cls.source = model.make(cls.directory / "model")
        cls.copies = {}
        for layout in (modes.PT, modes.SAFETENSORS):
            cls.copies[layout] = cls.directory / layout[1]
            ckpt_fs("materialize", cls.source, cls.copies[layout], *layout)

    def read(self, mode, more=(), **settings):
        """Reads a mount in this mode, in operations and threads as the settings say."""
        copy = self.copies[modes.MODES[mode][0]]
        size = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
        with Mount(self.source, *modes.flags(mode, size, *more)) as view:
            result = crowd.run(view, copy, **settings, say=lambda line: None)
            self.assertIsNotNone(daemon_pid(view))
        self.assertEqual((result.failures, result.problems), (0, []))
        return result

    def test_reads_of_every_kind(self):
        for seed, mode in enumerate(modes.MODES):
            # Alone, and among others.
            for threads, processes in ((1, 1), (16, 2))[seed % 3 > 0 :]:
                with self.subTest(mode=mode, threads=threads):
                    result = self.read(mode, seed=seed, operations=700, threads=threads, processes=processes)
                    self.assertGreater(sum(result.counts.values()), 500)

    def test_64_threads_in_each_of_several_processes(self):
        for mode in ("pt-direct", "safetensors-cached-little-kept"):
            with self.subTest(mode=mode):
                self.read(mode, seed=3, operations=1200, threads=64, processes=3)

    def test_a_fuzzer_that_finds_nothing_wrong_would_have_found_it(self):
        """A copy with one wrong byte, and one that is too short, are found and said in a way that repeats it."""
        for damage in (lambda path: damaged(path), lambda path: os.truncate(path, path.stat().st_size - 1)):
            with tempfile.TemporaryDirectory(prefix="ckpt-fs-test-") as directory:
                run("cp", "-r", self.copies[modes.SAFETENSORS], Path(directory) / "copy")
                for victim in Path(directory).rglob("*.safetensors"):
                    damage(victim)
                with Mount(self.source, *modes.SAFETENSORS) as view:
                    found = crowd.run(view, Path(directory) / "copy", seed=5, operations=400, threads=2, say=lambda line: None)
                self.assertRegex(found.problems[0], r"^--seed 5 --operations 400 --threads 2 .* operation \d+: .*safetensors")

    def test_faults_of_many_threads_at_once(self):
        """Nobody waits for ever where many fault the same pages, and others open, map and assemble the files meanwhile."""
        faults = ("shared-mapping", "private-mapping", "written-private-mapping", "kept-mapping", "reopen", "warm")
        for mode in ("pt-direct", "safetensors-cached-little-kept", "safetensors-cached-nothing-kept"):
            for threads in (1, 2):
                with self.subTest(mode=mode, threads=threads):
                    self.read(mode, ("--threads", threads), seed=threads, operations=384, threads=32, processes=2, only=faults)

    def test_a_short_soak(self):
        """Mounts and readers come and go; nothing stays behind."""
        need(os.geteuid() == 0, "root")
        said = run(sys.executable, ROOT / "scripts" / "soak", "--minutes", 0.08, "--workers", 2, "--work", self.directory).stdout
        self.assertIn(" 0 problems", said)
        self.assertRegex(said, "come and go [1-9]")


def damaged(path):
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as bytes_:
        for at in range(MIB // 2, len(bytes_), 4096):
            bytes_[at] ^= 1


class LittleMemory(Case):
    """The mount and its readers in a memory group that is far smaller than what they read. Who takes too much there is killed."""

    def compare(self, view, copy, group):
        """All files at once by `cmp`, and every way of reading by the fuzzer; the mount's process is the same afterwards."""
        pid = daemon_pid(view)
        names = sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file())
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(lambda name: run("cmp", copy / name, view / name, preexec_fn=group.join), names))
        result = crowd.run(view, copy, operations=200, threads=2, enter=group.join, say=lambda line: None)
        self.assertEqual(result.problems, [])
        self.assertEqual(daemon_pid(view), pid)

    def test_a_view_far_larger_than_memory(self):
        source = model.make(self.scratch / "model", hidden=1024, layers=8, vocabulary=16000)
        copies = {layout: self.materialize(source, *layout, name=name) for name, layout in (("pt", TP4_PT), ("safetensors", TP4))}
        for layout, options in ((TP4_PT, ("--io", "cached")), (TP4, ())):
            with self.subTest(layout=layout, options=options), memory_group(80 * MIB) as group:
                need(group, "a memory control group")
                with Mount(source, *exact(*layout), *options, preexec_fn=group.join) as view:
                    self.compare(view, copies[layout], group)


TP4 = ("--as", "safetensors", "--tp", 4, "--pp", 1)
TP4_PT = ("--as", "megatron", "--tp", 4, "--pp", 1)


if __name__ == "__main__":
    unittest.main()
