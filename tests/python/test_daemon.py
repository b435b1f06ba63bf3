"""The life of a mount: how it starts, ends, dies and comes back."""

import errno
import itertools
import json
import os
import shutil
import signal
import unittest

from support import (
    FIXTURES, Case, ForegroundMount, Mount, ckpt_fs, daemon_pid, detach, expected, is_mounted, manifest, need, run, unmount,
    until,
)

YUAN = FIXTURES / "yuan-tiny" / "pp2b24_tp2_none"
TP4 = ("--tp", 4, "--pp", 1)


class Daemon(Case):
    def assert_live(self, path):
        self.assert_same(expected("yuan-tiny", "pp1_tp4_none"), manifest.describe(path))

    def test_unmount_ends_the_daemon(self):
        for command in ("unmount", "umount"):
            with self.subTest(command=command), Mount(YUAN, *TP4) as path:
                pid = daemon_pid(path)
                self.assertIsNotNone(pid)
                self.assertEqual(ckpt_fs(command, path).returncode, 0)
                self.assertFalse(is_mounted(path))
                until(lambda: daemon_pid(path) is None, "the daemon to end")

    def test_unmount_comes_back_when_the_source_is_free(self):
        """What follows it in a script may take the source's disk away at once."""
        need(os.geteuid() == 0, "root")
        disk, view = self.scratch / "disk", self.scratch / "view"
        disk.mkdir()
        view.mkdir()
        for flags in ((), ("--auto-unmount",)):
            for _ in range(5):
                run("mount", "-t", "tmpfs", "none", disk)
                self.addCleanup(lambda: is_mounted(disk) and detach(disk))
                shutil.copytree(YUAN, disk / "source")
                ckpt_fs("mount", "source", view, *TP4, *flags, cwd=disk)
                self.assert_live(view)
                self.assertEqual(ckpt_fs("unmount", view).stderr, "")
                run("umount", disk)

    def test_mounts_that_stand_on_each_other_go_in_any_order(self):
        views = [self.scratch / f"view{number}" for number in range(3)]
        for order in itertools.permutations(views):
            source = YUAN
            for view, tp in zip(views, (4, 2, 1)):
                view.mkdir(exist_ok=True)
                ckpt_fs("mount", source, view, "--tp", tp, "--pp", 1)
                self.addCleanup(unmount, view)
                source = view
            pids = [daemon_pid(view) for view in views]
            done = ckpt_fs("unmount", *order)
            self.assertEqual((done.stderr, [view for view in views if is_mounted(view)]), ("", []))
            self.assertEqual([pid for pid in pids if os.path.exists(f"/proc/{pid}/fd/0")], [])

    def test_unmount_of_one_in_use_keeps_no_other(self):
        with Mount(YUAN, *TP4) as one, Mount(YUAN, *TP4) as two:
            with open(next(one.rglob("*.pt")), "rb"):
                done = ckpt_fs("unmount", one, two, check=False)
                self.assertEqual((done.returncode, is_mounted(one), is_mounted(two)), (7, True, False))
                self.assertIn("in use", done.stderr)

    def test_unmount_lazily_waits_only_where_nobody_reads(self):
        with Mount(YUAN, *TP4) as path:
            pid = daemon_pid(path)
            self.assertEqual(ckpt_fs("unmount", "--lazy", path).stderr, "")
            self.assertIsNone(daemon_pid(path))
        with Mount(YUAN, *TP4) as path:
            pid = daemon_pid(path)
            with open(next(path.rglob("*.pt")), "rb") as held:
                done = ckpt_fs("unmount", "--lazy", path)
                self.assertIn(f"detached, and in use (process {pid})", done.stderr)
                self.assertFalse(is_mounted(path))
                self.assertTrue(held.read())
            until(lambda: daemon_pid(path) is None, "the daemon to end")

    def test_unmount_of_one_that_does_not_answer_says_so(self):
        with Mount(YUAN, *TP4) as path:
            pid = daemon_pid(path)
            os.kill(pid, signal.SIGSTOP)
            try:
                done = self.unmounted_when_nobody_looks(path)
            finally:
                os.kill(pid, signal.SIGCONT)
            self.assertEqual((done.returncode, is_mounted(path)), (7, False))
            self.assertIn(f"unmounted, but the process that serves it does not answer and still holds {YUAN}", done.stderr)

    def test_one_that_does_not_answer_keeps_nobody_who_asks(self):
        with Mount(YUAN, *TP4) as live, Mount(YUAN, *TP4) as path:
            pid = daemon_pid(path)
            os.kill(pid, signal.SIGSTOP)
            try:
                rows = {row["mount"]: row for row in json.loads(ckpt_fs("status", "--json").stdout)}
                text = ckpt_fs("status").stdout
                figures = ckpt_fs("status", "--prometheus").stdout
                alone = ckpt_fs("status", path, check=False)
                log = ckpt_fs("log", path, check=False)
                over = ckpt_fs("mount", YUAN, path, *TP4, check=False)
            finally:
                os.kill(pid, signal.SIGCONT)
            self.assertEqual(rows[str(live)]["status"]["pid"], daemon_pid(live))
            self.assertEqual(rows[str(path)]["problem"], "does not answer")
            self.assertRegex(text, rf"(?m)^{path} .* does not answer$")
            self.assertRegex(figures, rf'(?m)^ckpt_fs_up{{mount="{path}",.*}} 0$')
            for done in (alone, log, over):
                self.assertEqual(done.returncode, 7)
                self.assertIn("its process is stopped, or its storage hangs", done.stderr)
            # Whoever asked is gone, or goes now.
            self.assertEqual(ckpt_fs("status", path).returncode, 0)

    def unmounted_when_nobody_looks(self, path):
        """Other tests ask all mounts how they are, and one that does not answer is in use for as long as they wait."""
        tries = []
        until(lambda: tries.append(ckpt_fs("unmount", path, check=False)) or "in use" not in tries[-1].stderr, "others to go")
        return tries[-1]

    def test_unmount_of_a_killed_mount_waits_for_nobody(self):
        with ForegroundMount(YUAN, *TP4) as mount:
            mount.process.kill()
            mount.process.wait(20)
            self.assertEqual(ckpt_fs("unmount", mount.path).stderr, "")
            self.assertFalse(is_mounted(mount.path))

    def test_unmount_of_what_is_not_mounted_fails(self):
        done = ckpt_fs("unmount", self.scratch, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(done.stderr.strip())

    def test_signals_unmount(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number.name), ForegroundMount(YUAN, *TP4) as mount:
                self.assert_live(mount.path)
                mount.process.send_signal(number)
                self.assertEqual(mount.process.wait(20), 0)
                self.assertFalse(is_mounted(mount.path))

    def test_sigterm_reaches_the_backgrounded_daemon_too(self):
        with Mount(YUAN, *TP4) as path:
            os.kill(daemon_pid(path), signal.SIGTERM)
            until(lambda: not is_mounted(path), "the mount to go away")

    def test_a_killed_daemon_is_replaced(self):
        with ForegroundMount(YUAN, *TP4) as mount:
            mount.process.kill()
            mount.process.wait(20)
            if is_mounted(mount.path):
                with self.assertRaises(OSError) as caught:
                    os.listdir(mount.path)
                self.assertEqual(caught.exception.errno, errno.ENOTCONN)
            ckpt_fs("mount", YUAN, mount.path, *TP4)
            self.assert_live(mount.path)
            unmount(mount.path)
            self.assertFalse(is_mounted(mount.path))

    def test_a_live_mount_is_not_replaced(self):
        with Mount(YUAN, *TP4) as path:
            done = ckpt_fs("mount", YUAN, path, "--tp", 1, "--pp", 1, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assert_live(path)

    def test_two_mounts_of_one_source(self):
        with Mount(YUAN, *TP4) as one, Mount(YUAN, name="tp1pp1") as two:
            self.assert_live(one)
            self.assert_same(expected("yuan-tiny", "pp1_tp1_none"), manifest.describe(two))

    def test_a_busy_mount_point_still_unmounts_or_says_so(self):
        with Mount(YUAN, *TP4) as path:
            with open(next(path.rglob("*.pt")), "rb") as held:
                done = ckpt_fs("unmount", path, check=False)
                if done.returncode != 0:
                    self.assertTrue(done.stderr.strip())
                    self.assertTrue(is_mounted(path))
                    held.read()

    def test_a_changed_source_is_an_error_and_never_wrong_bytes(self):
        """Whoever rewrites a mounted source gets errors from the mount: not zeros, not a mix, not a dead daemon."""
        for change in (lambda p: os.truncate(p, 30000), lambda p: p.write_bytes(bytes(p.stat().st_size))):
            source = self.scratch / "source"
            shutil.copytree(YUAN, source, dirs_exist_ok=True)
            victim = source / "iter_0000100/mp_rank_00_001/model_optim_rng.pt"
            with self.subTest(), Mount(source, *TP4) as path:
                change(victim)
                with self.assertRaises(OSError) as caught:
                    (path / "iter_0000100/mp_rank_00/model_optim_rng.pt").read_bytes()
                self.assertIn(caught.exception.errno, (errno.ESTALE, errno.EIO))
                self.assertEqual((path / "latest_checkpointed_iteration.txt").read_text(), "100")

    def test_many_mounts_and_unmounts_leave_nothing(self):
        for _ in range(5):
            with Mount(YUAN, *TP4) as path:
                self.assertEqual(len(list(path.rglob("*.pt"))), 4)
            self.assertFalse(is_mounted(path))
            until(lambda: daemon_pid(path) is None, "the daemon to end")

    def test_messages_go_to_the_log_file(self):
        log = self.scratch / "log"
        with Mount(YUAN, "--log-file", log) as path:
            with self.assertRaises(OSError):
                os.listdir(path / "tp3pp1")
        self.assertIn("3", log.read_text())


if __name__ == "__main__":
    unittest.main()
