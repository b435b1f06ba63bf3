"""mount(8), fstab and systemd: the program under the names by which they call it, and what it tells them."""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import unittest
from pathlib import Path

from support import FIXTURES, ROOT, Case, ForegroundMount, Mount, binary, ckpt_fs, expected, is_mounted, manifest, need, run, unmount

YUAN = FIXTURES / "yuan-tiny" / "pp2b24_tp2_none"
HELPER = Path("/sbin/mount.ckpt-fs")


@contextlib.contextmanager
def installed(*names):
    """The program where mount(8) looks for helpers, for as long as it is needed. What somebody installed there is left alone."""
    made = []
    try:
        for name in names:
            # One that was killed left its own.
            if os.path.islink(name) and os.readlink(name) == binary():
                os.unlink(name)
            need(not os.path.lexists(name), f"a free {name}")
            os.symlink(binary(), name)
            made.append(name)
        yield
    finally:
        for name in made:
            os.unlink(name)


class Helper(Case):
    def setUp(self):
        super().setUp()
        need(os.geteuid() == 0, "root")
        done = ckpt_fs("mount", YUAN, self.point("probe"), "--dry-run", check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        with Mount(YUAN):  # skips where FUSE is missing
            pass

    def point(self, name):
        point = self.scratch / name
        point.mkdir(exist_ok=True)
        self.addCleanup(unmount, point)
        return point

    def assert_tp4(self, point):
        self.assertTrue(is_mounted(point))
        self.assert_same(expected("yuan-tiny", "pp1_tp4_none"), manifest.describe(point))

    def mount(self, *words, check=True):
        done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, timeout=60)
        if check:
            self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def test_mount_takes_both_types(self):
        with installed(HELPER, "/sbin/mount.fuse.ckpt-fs"):
            for kind in ("ckpt-fs", "fuse.ckpt-fs"):
                with self.subTest(kind=kind):
                    point = self.point(kind)
                    self.mount("-t", kind, "-o", "tp=4,pp=1,ro,nosuid,nodev,allow_other", YUAN, point)
                    self.assert_tp4(point)
                    run("umount", point)
                    self.assertFalse(is_mounted(point))

    def test_values_with_commas_come_through_mount(self):
        with installed(HELPER):
            for text in (r"pp_layers=2\,4,tp=2", 'pp-layers="2,4",tp=2'):
                with self.subTest(text=text):
                    point = self.point("view")
                    self.mount("-t", "ckpt-fs", "-o", text, YUAN, point)
                    self.assert_same(expected("yuan-tiny", "pp2b24_tp2_none"), manifest.describe(point))
                    run("umount", point)

    def test_what_is_not_understood_is_said_by_mount(self):
        with installed(HELPER):
            point = self.point("view")
            done = self.mount("-t", "ckpt-fs", "-o", "tp=4,nonsense=1", YUAN, point, check=False)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("unknown mount option nonsense=1; there are tp, pp", done.stderr)
            done = self.mount("-t", "ckpt-fs", "-o", "tp=3", YUAN, point, check=False)
            self.assertEqual(done.returncode, 5, done.stderr)
            self.assertFalse(is_mounted(point))
            # Sloppy: what is not understood is left out. Fake: all but the mount.
            self.mount("-s", "-t", "ckpt-fs", "-o", "tp=4,pp=1,nonsense=1", YUAN, point)
            self.assert_tp4(point)
            run("umount", point)
            self.mount("-f", "-t", "ckpt-fs", "-o", "tp=4", YUAN, point)
            self.assertFalse(is_mounted(point))

    def test_fstab(self):
        """Spaces as fstab has them, the words that are for mount(8) itself, and `mount -a` a second time."""
        source, fstab = self.scratch / "a source", self.scratch / "fstab"
        shutil.copytree(YUAN, source)
        point = self.point("a view")
        spaces = [str(path).replace(" ", "\\040") for path in (source, point)]
        words = "tp=4,pp=1,ro,dev,suid,exec,async,user,_netdev,nofail,noauto,x-systemd.automount,x-whatever=1,allow_other"
        fstab.write_text(f"{spaces[0]} {spaces[1]} ckpt-fs {words} 0 0\n")
        with installed(HELPER):
            self.mount("-T", fstab, point)
            self.assert_tp4(point)
            self.assertEqual(run("findmnt", "-no", "FSTYPE,SOURCE", point).stdout.split(maxsplit=1), ["fuse.ckpt-fs", f"{source}\n"])
            run("umount", point)
            fstab.write_text(fstab.read_text().replace("noauto,", ""))
            for _ in range(2):
                self.mount("-a", "-T", fstab)
                self.assert_tp4(point)
            self.assertEqual(sum(line.split()[1] == spaces[1] for line in Path("/proc/self/mounts").read_text().splitlines()), 1)
            run("umount", point)

    def test_the_types_of_mount_and_umount(self):
        with installed(HELPER):
            point = self.point("view")
            self.mount("-t", "ckpt-fs", "-o", "tp=4,pp=1", YUAN, point)
            run("umount", "-t", "fuse.ckpt-fs", point)
            self.assertFalse(is_mounted(point))


class Notification(Case):
    def listen(self, address):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        listener.settimeout(20)
        listener.bind(address)
        return listener

    def test_a_service_says_that_it_is_live_and_what_it_serves(self):
        for at, address in ((str(self.scratch / "notify"), str(self.scratch / "notify")), (f"@ckpt-fs-{os.getpid()}", f"\0ckpt-fs-{os.getpid()}")):
            listener = self.listen(address)
            with self.subTest(at=at), ForegroundMount(YUAN, "--tp", 4, "--pp", 1, env={**os.environ, "NOTIFY_SOCKET": at}) as mount:
                said = dict(line.split("=", 1) for line in listener.recv(4096).decode().splitlines())
                self.assertEqual(said, {"READY": "1", "STATUS": f"{YUAN} as megatron tp4pp1 at {mount.path}"})
                # Said when it is true.
                self.assertEqual(len(list(mount.path.rglob("*.pt"))), 4)
                mount.process.terminate()
                self.assertIn("STOPPING=1", listener.recv(4096).decode().splitlines())
                self.assertEqual(mount.process.wait(20), 0)

    def test_nobody_who_listens_keeps_nothing_from_being_mounted(self):
        log = self.scratch / "log"
        env = {**os.environ, "NOTIFY_SOCKET": str(self.scratch / "nobody")}
        with ForegroundMount(YUAN, "--log-file", log, env=env) as mount:
            self.assertTrue(os.listdir(mount.path))
        self.assertIn("cannot tell systemd", log.read_text())

    def test_a_mount_in_the_background_is_no_service(self):
        listener = self.listen(str(self.scratch / "notify"))
        with Mount(YUAN, env={**os.environ, "NOTIFY_SOCKET": str(self.scratch / "notify")}):
            listener.setblocking(False)
            with self.assertRaises(BlockingIOError):
                listener.recv(4096)


class Unit(Case):
    UNIT = ROOT / "deploy" / "ckpt-fs@.service"

    def test_systemd_takes_the_unit(self):
        need(shutil.which("systemd-analyze"), "systemd-analyze")
        # With the program where this machine has it.
        unit = self.scratch / "ckpt-fs@test.service"
        unit.write_text(self.UNIT.read_text().replace("/usr/bin/ckpt-fs", binary()))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, [line for line in done.stderr.splitlines() if "ckpt-fs@" in line]), (0, []), done.stderr)

    def test_its_command_line_is_one(self):
        """The words of ExecStart, with an environment file as deploy/README.md has it."""
        line = next(line for line in self.UNIT.read_text().splitlines() if line.startswith("ExecStart="))
        words = shlex.split(line.removeprefix("ExecStart=").replace("$OPTIONS", "--tp 4 --pp 1"))
        values = {"${SOURCE}": str(YUAN), "${MOUNTPOINT}": str(self.scratch)}
        self.assertEqual(words.pop(0), "/usr/bin/ckpt-fs")
        command, *rest = [values.get(word, word) for word in words]
        ckpt_fs(command, "--dry-run", *rest)


if __name__ == "__main__":
    unittest.main()
