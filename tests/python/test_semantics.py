"""docs/semantics.md: that every line of it names tests that exist, and the tests of lines that no other file is about."""

import errno
import os
import re
import shutil
import signal
import stat
import subprocess
import unittest
from pathlib import Path

from support import FIXTURES, ROOT, Case, Mount, binary, ckpt_fs, daemon_pid, is_mounted, need, until

YUAN = FIXTURES / "yuan-tiny" / "pp2b24_tp2_none"
TP4 = ("--tp", 4, "--pp", 1)
RANK = "iter_0000100/mp_rank_00/model_optim_rng.pt"


class Document(unittest.TestCase):
    def test_every_line_names_tests_that_exist(self):
        python = "\n".join(path.read_text() for path in sorted((ROOT / "tests/python").glob("*.py")))
        rust = "\n".join(path.read_text() for root in ("tests", "src") for path in sorted((ROOT / root).rglob("*.rs")))
        known = set(re.findall(r"^    def (test_\w+)", python, re.M))
        known |= set(re.findall(r"^ *#\[test\]\n(?: *#\[.*\]\n)*\s*fn (\w+)", rust, re.M))
        text = (ROOT / "docs/semantics.md").read_text()
        rows = [line for line in text.splitlines() if line.startswith("| ") and not line.endswith("| test |")]
        self.assertGreaterEqual(len(rows), 40)
        for row in rows:
            named = set(re.findall(r"`(\w+)`", row.rstrip(" |").rpartition("|")[2]))
            self.assertTrue(named, f"no test is named: {row}")
            self.assertLessEqual(named, known, row)
        # Below the introduction, paragraphs name theirs in parentheses.
        for paragraph in text[text.index("## "):].split("\n\n"):
            if paragraph[0] not in "#|":
                named = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"\(([^()]*)\)", paragraph))))
                self.assertTrue(named, f"no test is named: {paragraph}")
                self.assertLessEqual(named, known, paragraph)


class Names(Case):
    def test_names_that_are_not_utf8_do_not_exist(self):
        with Mount(YUAN) as path:
            for name in (b"\xff\xfe", b"tp2\x80pp1"):
                with self.assertRaises(FileNotFoundError):
                    os.stat(os.fsencode(path) + b"/" + name)


class Attributes(Case):
    def test_modes_and_owners(self):
        with Mount(YUAN, *TP4) as path:
            for item in (path, *path.rglob("*")):
                status = item.stat()
                wanted = stat.S_IFDIR | 0o755 if item.is_dir() else stat.S_IFREG | 0o644
                self.assertEqual((status.st_mode, status.st_uid, status.st_gid), (wanted, os.getuid(), os.getgid()))
        with Mount(YUAN, *TP4, "--uid", 1234, "--gid", 4321, "--allow-root" if os.getuid() else "--allow-other") as path:
            status = (path / RANK).stat()
            self.assertEqual((status.st_uid, status.st_gid), (1234, 4321))

    def test_times_are_those_of_the_newest_source_file(self):
        source = shutil.copytree(YUAN, self.scratch / "source")
        files = sorted(source.rglob("*.pt"))
        for number, file in enumerate(files):
            os.utime(file, (0, 1_000_000 + number))
        with Mount(source, *TP4) as path:
            for item in (path, *path.rglob("*")):
                self.assertEqual(item.stat().st_mtime, 1_000_000 + len(files) - 1)

    def test_blocks_are_those_of_a_stored_file(self):
        with Mount(YUAN, *TP4) as path:
            for item in path.rglob("*.pt"):
                self.assertEqual(item.stat().st_blocks, -(-item.stat().st_size // 512))

    def test_statfs_tells_a_full_read_only_file_system(self):
        total = sum(path.stat().st_size for path in YUAN.rglob("*") if path.is_file())
        with Mount(YUAN, *TP4) as path:
            found = os.statvfs(path)
            self.assertEqual((found.f_bfree, found.f_bavail, found.f_flag & os.ST_RDONLY), (0, 0, os.ST_RDONLY))
            self.assertTrue(total // 2 < found.f_blocks * found.f_frsize < 2 * total)


class Reading(Case):
    def test_seeking_data_and_holes(self):
        with Mount(YUAN, *TP4) as path, open(path / RANK, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            for at in (0, 1, size - 1):
                self.assertEqual(os.lseek(file.fileno(), at, os.SEEK_DATA), at)
                self.assertEqual(os.lseek(file.fileno(), at, os.SEEK_HOLE), size)
            for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                with self.assertRaises(OSError) as caught:
                    os.lseek(file.fileno(), size, whence)
                self.assertEqual(caught.exception.errno, errno.ENXIO)


class Changed(Case):
    def test_what_was_kept_stays_what_it_was(self):
        """An open mapping goes on giving the bytes of the whole source; who opens the file afterwards is told."""
        source = shutil.copytree(YUAN, self.scratch / "source")
        flags = (*TP4, "--as", "safetensors")
        with Mount(source, *flags) as path:
            name = sorted(path.rglob("*.safetensors"))[0]
            with open(name, "rb") as file:
                wanted = file.read()
                for victim in source.rglob("*.pt"):
                    os.truncate(victim, 1000)
                file.seek(0)
                self.assertEqual(file.read(), wanted)
            with open(name, "rb") as file, self.assertRaises(OSError) as caught:
                # Also pages that the kernel has kept.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                file.read()
            self.assertIn(caught.exception.errno, (errno.ESTALE, errno.EIO))


class Life(Case):
    def test_a_mount_that_returns_is_live(self):
        for _ in range(5):
            with Mount(YUAN, *TP4) as path:
                self.assertTrue((path / RANK).read_bytes())

    def test_a_mount_that_fails_leaves_nothing_mounted(self):
        point = self.scratch / "tp3pp1"
        point.mkdir()
        done = ckpt_fs("mount", YUAN, point, check=False)
        self.assertEqual(done.returncode, 5)
        self.assertTrue(done.stderr.startswith("ckpt-fs: "))
        self.assertFalse(is_mounted(point))
        until(lambda: daemon_pid(point) is None, "the process to end")

    def test_a_busy_mount_is_refused_and_detached_lazily(self):
        with Mount(YUAN, *TP4) as path:
            pid = daemon_pid(path)
            with open(path / RANK, "rb") as held:
                done = ckpt_fs("unmount", path, check=False)
                self.assertEqual(done.returncode, 7)
                self.assertIn("--lazy", done.stderr)
                ckpt_fs("unmount", "--lazy", path)
                self.assertFalse(is_mounted(path))
                self.assertTrue(held.read())
                self.assertTrue(os.path.exists(f"/proc/{pid}"))
            until(lambda: daemon_pid(path) is None, "the process to end when the file is closed")

    def test_umount_ends_the_process(self):
        need(os.geteuid() == 0 or shutil.which("fusermount3"), "the program fusermount3")
        command = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
        with Mount(YUAN, *TP4) as path:
            subprocess.run([*command, path], check=True)
            until(lambda: daemon_pid(path) is None, "the process to end")

    def test_a_killed_mount_answers_not_connected_and_can_be_cleared(self):
        with Mount(YUAN, *TP4) as path:
            os.kill(daemon_pid(path), signal.SIGKILL)
            answers = []
            until(lambda: answers.append(error_of_listing(path)) or answers[-1] == errno.ENOTCONN, "the mount point to be not connected")
            # While the process still dies, it may answer, or leave a request under way that is aborted.
            self.assertLessEqual(set(answers), {None, errno.ECONNABORTED, errno.ENOTCONN})
            ckpt_fs("unmount", path)
            self.assertFalse(is_mounted(path))

    def test_a_mount_that_waits_for_it_when_it_is_killed_replaces_it(self):
        with Mount(YUAN, *TP4) as path:
            pid = daemon_pid(path)
            # Stopped, it answers nothing: what is asked of it is under way when it ends.
            os.kill(pid, signal.SIGSTOP)
            with subprocess.Popen([binary(), "mount", YUAN, path, "--tp", "4", "--pp", "1"], stderr=subprocess.DEVNULL) as successor:
                until(lambda: successor.poll() is not None or sleeps(successor.pid), "its request to be under way")
                os.kill(pid, signal.SIGKILL)
                self.assertEqual(successor.wait(20), 0)
            self.assertTrue((path / "latest_checkpointed_iteration.txt").read_bytes())


def sleeps(pid):
    """Whether the process waits, and those that it started do."""
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return state in "SD" and all(sleeps(child) for child in children)


def error_of_listing(path):
    try:
        os.listdir(path)
    except OSError as error:
        return error.errno
    return None


if __name__ == "__main__":
    unittest.main()
