"""`ckpt-fs doctor`: what it finds on machines that cannot mount, each made of this one, and that its trial leaves nothing behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import unittest
from pathlib import Path

from support import FIXTURES, NO_FUSE, ROOT, Case, binary, ckpt_fs, detach, need, need_program, until

NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
SOURCE = FIXTURES / "yuan-tiny" / "pp2b24_tp2_none"


def is_root():
    return os.geteuid() == 0


class Doctor(Case):
    def examined(self, *words, wrapped=(), **environment):
        """What it finds when it is started by another program: its exit code, and findings by what they are of."""
        program = self.scratch / "ckpt-fs"
        if not program.exists():
            # Others cannot see into every directory that a build is in.
            shutil.copy(binary(), program)
            self.scratch.chmod(0o777)
        trial = self.scratch / "trial"
        trial.mkdir(exist_ok=True)
        trial.chmod(0o777)
        environment = {**os.environ, "TMPDIR": str(trial), **environment}
        done = subprocess.run([*wrapped, program, "doctor", "--json", *words], env=environment, capture_output=True, text=True, timeout=60)
        self.assertIn(done.returncode, (0, NO_FUSE), done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual(report["mount_possible"], done.returncode == 0)
        self.assertEqual(list(trial.iterdir()), [])
        return done.returncode, {found["check"]: found for found in report["findings"]}

    def test_what_it_says_of_this_machine_is_what_mount_does(self):
        code, findings = self.examined()
        mounted = ckpt_fs("mount", SOURCE, self.mountpoint(), "--tp", 1, "--pp", 1, check=False)
        self.assertEqual(mounted.returncode, code, mounted.stderr)
        if code == 0:
            ckpt_fs("unmount", self.mountpoint())
            self.assertEqual([found for found in findings.values() if found["mark"] == "problem"], [])

    def mountpoint(self):
        point = self.scratch / "mnt"
        point.mkdir(exist_ok=True)
        return point

    def test_text_says_what_json_says(self):
        done = ckpt_fs("doctor", check=False)
        _, findings = self.examined()
        for check, found in findings.items():
            line = next(line for line in done.stdout.splitlines() if line.startswith(found["mark"]) and check in line)
            self.assertNotIn("\u001b", line)
        self.assertIn("A mount is possible." if done.returncode == 0 else "No mount is possible here.", done.stdout)

    def test_without_the_device(self):
        need(is_root(), "root")
        need_program("unshare")
        hide = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev && exec "$0" "$@"']
        code, findings = self.examined(wrapped=hide)
        self.assertEqual((code, findings["/dev/fuse"]["mark"], findings["trial mount"]["mark"]), (NO_FUSE, "problem", "problem"))
        self.assertIn("cannot open /dev/fuse", findings["trial mount"]["said"])
        self.assertIn("ckpt-fs materialize", findings["trial mount"]["remedy"])

    def test_root_without_rights(self):
        need(is_root(), "root")
        need_program("setpriv")
        code, findings = self.examined(wrapped=["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"])
        self.assertEqual((code, findings["user"]["mark"]), (NO_FUSE, "problem"))
        self.assertIn("CAP_SYS_ADMIN", findings["user"]["said"])

    def test_a_user_without_the_helper(self):
        need(is_root(), "root")
        need_program("setpriv")
        empty = self.scratch / "empty"
        empty.mkdir()
        setpriv = [shutil.which("setpriv"), *NOBODY[1:]]
        code, findings = self.examined(wrapped=setpriv, PATH=str(empty))
        self.assertEqual((code, findings["fusermount3"]["mark"]), (NO_FUSE, "problem"))
        self.assertIn("package fuse3", findings["fusermount3"]["remedy"])

        # One that is there and has no rights of its own is another matter.
        (empty / "fusermount3").write_text("#!/bin/sh\necho 'fusermount3: mount failed: Operation not permitted' >&2\nexit 1\n")
        (empty / "fusermount3").chmod(0o755)
        code, findings = self.examined(wrapped=setpriv, PATH=str(empty))
        self.assertEqual((code, findings["fusermount3"]["mark"]), (NO_FUSE, "problem"))
        self.assertIn("chmod u+s", findings["fusermount3"]["remedy"])

    def test_a_user_whose_helper_is_powerless(self):
        need(is_root(), "root")
        need_program("setpriv")
        need_program("fusermount3")
        code, findings = self.examined(wrapped=[*NOBODY, "--no-new-privs"])
        self.assertEqual((code, findings["fusermount3"]["mark"]), (NO_FUSE, "problem"))
        self.assertIn("no_new_privs", findings["fusermount3"]["said"])

    def test_a_directory_that_cannot_be_mounted_on_is_no_fault_of_fuse(self):
        need(is_root(), "root")
        need_program("unshare")
        closed = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o ro none /tmp && exec "$0" "$@"']
        program = Path(binary()).resolve()
        need(not str(program).startswith("/tmp/"), "a binary outside /tmp")
        done = subprocess.run([*closed, program, "doctor", "--json"], env={"PATH": os.environ["PATH"], "HOME": "/proc"}, capture_output=True, text=True, timeout=60)
        trial = json.loads(done.stdout)["findings"][-1]
        self.assertEqual((done.returncode, trial["mark"]), (NO_FUSE, "problem"), done.stderr)
        self.assertIn("TMPDIR", trial["remedy"])

    def test_one_that_is_stopped_in_between_leaves_nothing_that_hangs(self):
        """Whenever that is: whoever reads a mount that it serves itself would wait for ever."""
        for number in range(24):
            how = (signal.SIGINT, signal.SIGKILL)[number % 2]
            environment = {**os.environ, "TMPDIR": str(self.scratch)}
            with subprocess.Popen([binary(), "doctor"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as doctor:
                # Not before it has begun, and then at any moment.
                until(lambda: doctor.poll() is not None or list(self.scratch.iterdir()), "the trial to begin")
                for _ in range(number * 2000):
                    pass
                doctor.send_signal(how)
                doctor.wait(20)
            for point in list(self.scratch.iterdir()):
                self.assertEqual(how, signal.SIGKILL)
                detach(point)
                point.rmdir()

    def test_a_source_is_told_of_its_file_system(self):
        _, findings = self.examined(SOURCE)
        kind = subprocess.run(["stat", "-f", "-c", "%T", SOURCE], capture_output=True, text=True).stdout
        self.assertIn(f"{SOURCE} is on ", findings["source"]["said"], kind)
        self.assertNotIn("source", self.examined()[1])
        ckpt_fs("doctor", FIXTURES)
        missing = ckpt_fs("doctor", self.scratch / "missing", check=False)
        self.assertEqual((missing.returncode, missing.stdout), (3, ""))
        self.assertIn("missing", missing.stderr)

    def test_a_cache_is_held_against_the_memory(self):
        _, findings = self.examined("--cache-size", "900TB")
        self.assertEqual(findings["memory"]["mark"], "note")
        self.assertIn("--cache-size 0", findings["memory"]["remedy"])


class Documented(Case):
    def test_every_check_is_explained(self):
        text = (ROOT / "docs" / "doctor.md").read_text()
        report = json.loads(ckpt_fs("doctor", SOURCE, "--json", check=False).stdout)
        headings = re.findall(r"^## `?(.*?)`?$", text, re.M)
        self.assertLessEqual({found["check"] for found in report["findings"]}, set(headings))


if __name__ == "__main__":
    unittest.main()
