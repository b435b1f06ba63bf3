"""Where messages of a mount go, and which: the system's log in the background, filters in the words of RUST_LOG."""

import contextlib
import json
import os
import re
import select
import socket
import subprocess
import unittest
from pathlib import Path

from support import FIXTURES, Case, ForegroundMount, binary, ckpt_fs, need, need_program, until

YUAN = FIXTURES / "yuan-tiny" / "pp2b24_tp2_none"
RANK = "tp4pp1/iter_0000100/mp_rank_00/model_optim_rng.pt"
REASON = "tp3pp1: TP 3 does not divide 4 heads"
DATAGRAM = re.compile(r"<(\d+)>[A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d ckpt-fs\[(\d+)\]: (.*)\Z", re.DOTALL)

# A /dev of its own, in which `log` leads to the socket of the test, as that of systemd does to the journal's.
DEVICES = """
set -e
mount -t tmpfs tmpfs "$1/dev"
for device in null zero random urandom fuse; do touch "$1/dev/$device"; mount --bind "/dev/$device" "$1/dev/$device"; done
ln -s "$1/log" "$1/dev/log"
mount --rbind "$1/dev" /dev
echo ready
read end
"""


class SystemLog(Case):
    def setUp(self):
        super().setUp()
        need(os.geteuid() == 0, "root")
        need(os.path.exists("/dev/fuse"), "FUSE")
        need_program("nsenter")
        for name in ("dev", "view"):
            (self.scratch / name).mkdir()
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", DEVICES, "sh", self.scratch]
        self.machine = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.machine.wait, 20)
        self.addCleanup(self.machine.communicate, "end\n", 20)
        self.assertEqual(self.machine.stdout.readline(), "ready\n")
        self.view = self.scratch / "view"

    def inside(self, *arguments, **options):
        """Runs the program where /dev is that of the test."""
        words = ["nsenter", "--target", str(self.machine.pid), "--mount", f"--wd={self.scratch}", binary(), *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    @contextlib.contextmanager
    def mounted(self, *options, **started):
        """The directory that readers see, and the process."""
        self.inside("mount", YUAN, self.view, *options, **started)
        try:
            pid = json.loads(self.inside("status", self.view, "--json").stdout)["status"]["pid"]
            yield Path(f"/proc/{self.machine.pid}/root{self.view}"), pid
        finally:
            self.inside("unmount", "--lazy", self.view)

    @contextlib.contextmanager
    def daemon(self):
        """Who listens at /dev/log."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(self.scratch / "log"))
            try:
                yield listener
            finally:
                (self.scratch / "log").unlink()

    def heard(self, listener):
        """What was said so far: (priority, process, text) each."""
        said = []
        while select.select([listener], [], [], 0)[0]:
            datagram = listener.recv(65536).decode()
            found = DATAGRAM.match(datagram)
            self.assertTrue(found, datagram)
            said.append((int(found[1]), int(found[2]), found[3]))
        return said

    def miss(self, view, name="tp3pp1"):
        self.assertRaises(FileNotFoundError, os.stat, view / name)

    def test_a_mount_in_the_background_speaks_to_the_system(self):
        with self.daemon() as listener:
            with self.mounted() as (view, pid):
                self.miss(view)
                ((priority, process, text),) = self.heard(listener)
                self.assertEqual((priority, process), (28, pid))
                self.assertIn(REASON, text)
            self.assertEqual(self.heard(listener), [])

    def test_more_where_more_is_asked_for(self):
        with self.daemon() as listener:
            with self.mounted("--log-level", "info") as (_, pid):
                self.assertEqual(self.heard(listener), [(30, pid, f"{self.view}: mounted")])
            said = []
            until(lambda: said.extend(self.heard(listener)) or said, "the last words")
            self.assertEqual(said, [(30, pid, f"{self.view}: unmounted")])

    def test_json_stays_json(self):
        with self.daemon() as listener, self.mounted("--log-format", "json") as (view, _):
            self.miss(view)
            ((priority, _, text),) = self.heard(listener)
            told = json.loads(text)
            self.assertEqual((priority, told["level"], told["target"]), (28, "warning", "ckpt_fs::vfs"))
            self.assertIn(REASON, told["message"])

    def test_a_log_file_comes_first(self):
        with self.daemon() as listener, self.mounted("--log-file", self.scratch / "file") as (view, _):
            self.miss(view)
            self.assertEqual(self.heard(listener), [])
            self.assertIn(REASON, (self.scratch / "file").read_text())

    def test_nobody_needs_to_listen_and_who_comes_late_hears_what_is_said_then(self):
        with self.mounted() as (view, _):
            self.miss(view)
            for _ in range(2):
                # Started, and started again.
                with self.daemon() as listener:
                    self.miss(view, "tp3pp2")
                    ((_, _, text),) = self.heard(listener)
                    self.assertTrue(text.startswith("tp3pp2: "), text)
            self.miss(view)
            self.assertEqual(len((view / RANK).read_bytes()), (view / RANK).stat().st_size)

    def test_a_log_that_takes_no_more_holds_up_nobody(self):
        with self.daemon() as listener, self.mounted() as (view, _):
            count = 1000
            for _ in range(count):
                self.miss(view)
            kept = self.heard(listener)
            self.assertLess(len(kept), count)
            self.miss(view, "tp3pp2")
            (missing, last) = self.heard(listener)
            self.assertEqual(missing[2], f"{count - len(kept)} messages are missing here: the system's log took no more")
            self.assertTrue(last[2].startswith("tp3pp2: "), last)


class Filters(Case):
    def said(self, *options, **variables):
        """What a mount in the foreground says while one layout is not there and one file is read."""
        with ForegroundMount(YUAN, *options, env={**os.environ, **variables}) as mount:
            self.assertRaises(FileNotFoundError, os.stat, mount.path / "tp3pp1")
            (mount.path / RANK).read_bytes()
            ckpt_fs("unmount", mount.path)
            mount.process.wait(timeout=20)
            mount.log.seek(0)
            return mount.log.read()

    def test_the_usual(self):
        said = self.said()
        self.assertRegex(said, f"Z ckpt-fs: warning: {REASON}")
        self.assertNotRegex(said, "info: |debug: |trace: ")

    def test_a_level(self):
        for said in (self.said("--log-level", "info"), self.said(RUST_LOG="info"), self.said("--log-level", "info", RUST_LOG="off")):
            self.assertIn("info: ", said)
            self.assertIn("warning: " + REASON, said)
            self.assertNotIn("debug: ", said)
        self.assertNotIn("warning: ", self.said(RUST_LOG="off"))
        self.assertNotIn("warning: ", self.said("--log-level", "error"))

    def test_modules(self):
        said = self.said(RUST_LOG="ckpt_fs=debug")
        self.assertIn("debug: ckpt_fs::fuse::requests: lookup is answered with ENOENT", said)
        self.assertIn("info: ", said)
        self.assertNotIn("fuser::", said)
        self.assertNotIn("trace: ", said)
        said = self.said(RUST_LOG="warn,ckpt_fs::fuse=trace")
        self.assertRegex(said, r"trace: ckpt_fs::fuse::requests: read took \d+ microseconds")
        self.assertNotIn("info: ", said)
        said = self.said("--log-level", "fuser=debug")
        self.assertRegex(said, "debug: fuser::.*LOOKUP")
        self.assertIn("warning: " + REASON, said)
        self.assertNotIn("ckpt_fs::fuse", said)

    def test_what_is_no_filter_is_refused_with_an_example(self):
        for variables, options in (({"RUST_LOG": "ckpt_fs=loud"}, ()), ({"RUST_LOG": "wran"}, ()), ({}, ("--log-level", "loud"))):
            done = ckpt_fs("mount", YUAN, self.scratch, *options, env={**os.environ, **variables}, check=False)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("such as 'ckpt_fs=debug' or 'warn,ckpt_fs::fuse=trace'", done.stderr)
        # Commands that have no such messages do not look.
        ckpt_fs("inspect", YUAN, env={**os.environ, "RUST_LOG": "wran"})


if __name__ == "__main__":
    unittest.main()
