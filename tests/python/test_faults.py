"""Processes that die, and machines that run out of something: what is affected fails, and everything goes on afterwards."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

from cgroups import memory_group
from support import (
    FIXTURES, Case, ForegroundMount, Mount, binary, ckpt_fs, daemon_pid, is_mounted, need, need_program, run, same_files,
    until,
)

YUAN = FIXTURES / "yuan-tiny" / "pp2b24_tp2_none"
TP4 = ("--tp", 4, "--pp", 1)

# Reads a mapped file, or a file, in circles until it is killed or gets an error.
CIRCLES = """
import mmap, os, sys
file = open(sys.argv[1], "rb")
size = os.fstat(file.fileno()).st_size
if sys.argv[2] == "map":
    mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    def read():
        mapping.madvise(mmap.MADV_DONTNEED)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return mapping[:]
else:
    read = lambda: os.pread(file.fileno(), size, 0)
read()
print("ready", flush=True)
while True:
    read()
"""


def watchers(path):
    """Processes that watch the mount at `path`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if b"watch-mount" in words and str(path).encode() in words:
            found.append(int(entry.name))
    return found


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


class Reader(subprocess.Popen):
    """A process that reads a file in circles."""

    def __init__(self, path, how):
        command = [sys.executable, "-c", CIRCLES, str(path), how]
        super().__init__(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if self.stdout.readline() != "ready\n":
            raise AssertionError(f"the reader of {path} ended: {self.wait(20)}")

    def __exit__(self, *_):
        self.kill()
        super().__exit__(*_)


def first_file(path):
    return sorted(path.rglob("*.pt"))[0]


class Killed(Case):
    def test_readers_of_a_killed_daemon_get_errors_and_the_mount_point_is_free_at_once(self):
        for mode in ("direct", "cached"):
            for how in ("map", "read"):
                with self.subTest(mode=mode, how=how), ForegroundMount(YUAN, *TP4, "--io", mode) as mount:
                    with Reader(first_file(mount.path), how) as reader:
                        mount.process.kill()
                        mount.process.wait(20)
                        ckpt_fs("mount", YUAN, mount.path, *TP4)
                        # What the kernel reads by itself goes on; else the reader gets SIGBUS or an exception, and never hangs.
                        until(lambda: reader.poll() is not None or mode == "cached", "the reader to end")
                        self.assertIn(reader.poll(), (None, 1, -signal.SIGBUS))
                        self.assertEqual(same_files(mount.path, self.materialize(YUAN, *TP4, name="c")), self.crcs())
                        ckpt_fs("unmount", mount.path)

    def crcs(self):
        """A mount has no checksums unless asked for, so all rank files differ from materialized ones in that."""
        return [f"iter_0000100/mp_rank_{tp:02}/model_optim_rng.pt" for tp in range(4)]

    def test_auto_unmount_takes_a_killed_mount_away(self):
        """Also as root without fuse3, whose helper does this for others."""
        for options in (["--auto-unmount"], ["-o", "auto_unmount"]):
            with self.subTest(options=options), Mount(YUAN, *TP4, *options) as path:
                self.assertEqual(len(watchers(path)), 1)
                with Reader(first_file(path), "read"):
                    os.kill(daemon_pid(path), signal.SIGKILL)
                    until(lambda: not is_mounted(path), "the mount to go away")
                until(lambda: not watchers(path), "the watcher to end")

    def test_auto_unmount_ends_with_the_mount(self):
        for end in (lambda path: ckpt_fs("unmount", path), lambda path: os.kill(daemon_pid(path), signal.SIGTERM)):
            with Mount(YUAN, *TP4, "--auto-unmount") as path:
                end(path)
                until(lambda: not is_mounted(path) and not watchers(path), "mount and watcher to end")

    def test_the_watcher_of_a_dead_mount_leaves_its_successor_alone(self):
        """The watcher learns of the end through a pipe. Here the test holds it, so that the end is told when the successor is there.

        A stopped watcher would not do: the kernel lets it go on when the process that started it dies.
        """
        with Mount(YUAN, *TP4) as path:
            watcher = subprocess.Popen([binary(), "watch-mount", "--", str(path)], stdin=subprocess.PIPE)
            with watcher:
                os.kill(daemon_pid(path), signal.SIGKILL)
                until(lambda: daemon_pid(path) is None, "the daemon to die")
                ckpt_fs("mount", YUAN, path, *TP4)
                watcher.stdin.close()
                # It looks at a mount that lives, and goes on looking for a while.
                self.assertTrue(first_file(path).read_bytes())
                self.assertTrue(is_mounted(path))
                self.assertIsNone(watcher.poll())
                ckpt_fs("unmount", path)
                self.assertEqual(watcher.wait(20), 0)

    def test_a_mount_that_fails_leaves_no_watcher(self):
        point = self.scratch / "tp3"
        point.mkdir()
        self.assertNotEqual(ckpt_fs("mount", YUAN, point, "--auto-unmount", check=False).returncode, 0)
        until(lambda: not watchers(point), "the watcher to end")

    def test_sigterm_lets_those_who_read_read_on(self):
        wanted = first_file(self.materialize(YUAN, *TP4)).read_bytes()
        with ForegroundMount(YUAN, *TP4, "--crc", "exact") as mount:
            with open(first_file(mount.path), "rb", buffering=0) as file:
                start = file.read(1000)
                mount.process.terminate()
                until(lambda: not is_mounted(mount.path), "the mount to be detached")
                self.assertIsNone(mount.process.poll())
                self.assertEqual(start + file.read(), wanted)
            self.assertEqual(mount.process.wait(20), 0)

    def test_readers_killed_in_the_middle_leave_nothing_behind(self):
        for mode in ("direct", "cached"):
            with self.subTest(mode=mode), Mount(YUAN, *TP4, "--io", mode) as path:
                pid = daemon_pid(path)
                list(map(Path.read_bytes, path.rglob("*.pt")))
                before = descriptors(pid), threads(pid)
                for number in range(8):
                    with Reader(first_file(path), ("map", "read")[number % 2]) as reader:
                        reader.kill()
                until(lambda: descriptors(pid) <= before[0], "the daemon to close what was open")
                self.assertLessEqual(threads(pid), before[1])
                ckpt_fs("unmount", path)


class RunsOut(Case):
    def test_out_of_descriptors(self):
        wanted = self.materialize(YUAN, *TP4)
        for mode in ("direct", "cached"):
            with self.subTest(mode=mode), Mount(YUAN, *TP4, "--crc", "exact", "--io", mode) as path:
                pid = daemon_pid(path)
                old = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(pid), old[1]))
                for file in sorted(path.rglob("*.pt")):
                    # An error would do as well; wrong bytes would not.
                    self.assertEqual(file.read_bytes(), (wanted / file.relative_to(path)).read_bytes())
                ckpt_fs("status", path)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, old)
                self.assertEqual(same_files(path, wanted), [])

    def test_a_source_of_more_files_than_may_be_open_is_refused_by_name(self):
        need_program("setpriv")
        # Root may raise its own limit, and does, unless it may not.
        limited = f'ulimit -n 6; exec "{binary()}" inspect "{YUAN}"'
        command = ["setpriv", "--bounding-set=-sys_resource", "sh", "-c", limited]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("open files", done.stderr)
        self.assertNotIn("panicked", done.stderr)

    def test_the_cache_leaves_memory_to_others(self):
        """In a container, what the cache may take follows from the container's limit, whatever --cache-size says."""
        with memory_group(256 << 20) as group:
            need(group, "memory control groups")
            point = self.scratch / "tp4pp1"
            point.mkdir()
            inside = f'echo $$ > "{group.home}/cgroup.procs"; exec "{binary()}" mount "{YUAN}" "{point}" --cache-size 16GiB'
            run("sh", "-c", inside)
            try:
                status = ckpt_fs("status", point, "--json").stdout
                self.assertIn(f'"budget": {128 << 20}', status)
            finally:
                ckpt_fs("unmount", point)
                until(lambda: daemon_pid(point) is None, "the daemon to end")


class Materialize(Case):
    """No half result that looks whole, whatever happens."""

    def setUp(self):
        super().setUp()
        self.wanted = self.materialize(YUAN, *TP4, name="wanted")
        self.out = self.scratch / "out"
        self.command = [binary(), "materialize", str(YUAN), str(self.out), "--tp", "4", "--pp", "1"]

    def leftovers(self):
        return [path.name for path in self.scratch.iterdir() if path.name not in ("wanted", "out")]

    def test_killed_at_many_points(self):
        begin = time.monotonic()
        subprocess.run(self.command, check=True, capture_output=True)
        whole = time.monotonic() - begin
        shutil.rmtree(self.out)
        rng, killed = random.Random(6), 0
        for _ in range(40):
            for flags in ([], ["--resume"]):
                process = subprocess.Popen([*self.command, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                try:
                    process.wait(rng.uniform(0, 1.2) * whole)
                except subprocess.TimeoutExpired:
                    process.kill()
                    killed += process.wait() != 0
                if self.out.exists():
                    self.assertEqual(same_files(self.out, self.wanted), [])
                    shutil.rmtree(self.out)
                self.assertLessEqual(len(self.leftovers()), 1)
        self.assertGreater(killed, 10)
        subprocess.run([*self.command, "--resume"], check=True, capture_output=True)
        self.assertEqual(same_files(self.out, self.wanted), [])
        self.assertEqual(self.leftovers(), [])

    def test_interrupted_says_so(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = subprocess.Popen(self.command, stderr=subprocess.DEVNULL)
            process.send_signal(number)
            code = process.wait(20)
            # Before it can catch signals they end it; after it is done there is nothing to stop.
            self.assertIn(code, (130, -number, 0))
            self.assertEqual(self.out.exists(), code == 0)
            shutil.rmtree(self.out, ignore_errors=True)

    def test_a_run_goes_on_with_anything_that_is_left(self):
        """Whatever stands in what a run left, planted or torn, the result is right and leads nowhere else."""
        outside = self.scratch / "wanted" / "outside"
        outside.write_text("precious")
        staging = self.scratch / ".out.ckpt-fs-0123456789abcdef"
        shutil.copytree(self.wanted, staging)
        (staging / "outside").unlink()
        files = sorted(staging.rglob("*.pt"))
        with open(files[0], "r+b") as file:
            file.seek(20_000)
            file.write(b"torn")
        os.truncate(files[1], 70_000)
        files[2].unlink()
        files[2].symlink_to(outside)
        files[3].unlink()
        os.link(outside, files[3])
        (staging / "iter_0000100" / "mp_rank_07").mkdir()
        (staging / "iter_0000100" / "mp_rank_07" / "model_optim_rng.pt").write_text("of another layout")
        subprocess.run([*self.command, "--resume"], check=True, capture_output=True)
        self.assertEqual(outside.read_text(), "precious")
        outside.unlink()
        self.assertEqual(same_files(self.out, self.wanted), [])
        self.assertEqual(self.leftovers(), [])

    def test_disk_full(self):
        need(os.geteuid() == 0, "root, who may mount a small file system")
        disk = self.scratch / "disk"
        disk.mkdir()
        size = sum(path.stat().st_size for path in self.wanted.rglob("*") if path.is_file())
        # Too small, which is known ahead; and too few files, which is not.
        for limit, word in ((f"size={size // 2}", "free"), (f"size={size * 2},nr_inodes=8", "No space left")):
            with self.subTest(limit=limit):
                run("mount", "-t", "tmpfs", "-o", limit, "none", disk)
                try:
                    for flags in ([], ["--resume"]):
                        done = ckpt_fs("materialize", YUAN, disk / "out", *TP4, *flags, check=False)
                        self.assertEqual(done.returncode, 6, done.stderr)
                        self.assertIn(word, done.stderr)
                        self.assertEqual("is kept" in done.stderr, bool(flags) and word != "free", done.stderr)
                        self.assertFalse((disk / "out").exists())
                    if word != "free":
                        run("mount", "-o", f"remount,size={size * 2},nr_inodes=100", disk)
                        ckpt_fs("materialize", YUAN, disk / "out", *TP4, "--resume")
                        self.assertEqual(same_files(disk / "out", self.wanted), [])
                        self.assertEqual(os.listdir(disk), ["out"])
                finally:
                    run("umount", disk)

    def test_what_is_kept_is_said_where_something_is(self):
        self.out.mkdir()
        (self.out / "precious").touch()
        done = ckpt_fs("materialize", YUAN, self.out, *TP4, "--resume", check=False)
        self.assertEqual((done.returncode, "is kept" in done.stderr), (6, False), done.stderr)
        self.assertEqual(self.leftovers(), [])

    def test_two_runs_to_one_place(self):
        """The first one to finish wins; the other one says so, and neither spoils the other."""
        both = [subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        ends = sorted((process.wait(60), process.stderr.read()) for process in both)
        for process in both:
            process.stderr.close()
        self.assertEqual(ends[0][0], 0)
        self.assertIn(ends[1][0], (2, 6), ends[1][1])
        self.assertEqual(same_files(self.out, self.wanted), [])
        self.assertEqual(self.leftovers(), [])


if __name__ == "__main__":
    unittest.main()
