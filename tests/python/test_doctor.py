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

    def untried(self, setup):
        """What it says where the root directory and `setup` leave no place for a directory, and what mount does there on one that is."""
        need(is_root(), "root")
        need_program("unshare")
        point = self.mountpoint()
        program = Path(binary()).resolve()
        script = f"""mount -o remount,ro,bind / || exit 99
{setup}
"$0" doctor; echo "doctor: $?"
"$0" mount -q "$1" "$2"; echo "mount: $?"; "$0" unmount "$2"
"$0" doctor --json"""
        environment = {"PATH": os.environ["PATH"], "HOME": "/proc"}
        words = ["unshare", "-m", "sh", "-c", script, program, SOURCE, point]
        done = subprocess.run(words, cwd="/", env=environment, capture_output=True, text=True, timeout=60)
        self.assertNotEqual(done.returncode, 99, done.stderr)
        text, brace, report = done.stdout.partition("\n{")
        text, report = text + "\n", json.loads(brace + report)
        return text, report

    def test_a_root_directory_that_cannot_be_written_is_no_fault_of_fuse(self):
        text, report = self.untried("mount -t tmpfs none /dev/shm")
        mounted = int(re.search(r"^mount: (\d+)$", text, re.M)[1])
        self.assertIn(f"doctor: {mounted}\n", text)
        self.assertTrue(report["tried"], report)

    def test_where_nothing_can_be_tried_facts_decide(self):
        # They stay what they are: what the test made lies in one of them.
        text, report = self.untried("for at in /tmp /run /var/tmp /dev/shm; do mount --bind $at $at && mount -o remount,ro,bind $at; done")
        mounted = int(re.search(r"^mount: (\d+)$", text, re.M)[1])
        self.assertIn(f"doctor: {mounted}\n", text)
        trial = report["findings"][-1]
        self.assertEqual((report["tried"], trial["mark"]), (False, "note"), trial)
        self.assertIn("not tried", trial["said"])
        self.assertIn("TMPDIR", trial["remedy"])
        if mounted == 0:
            self.assertIn("Nothing is in the way of a mount; none was tried.", text)

    def test_the_trial_is_not_made_in_the_source(self):
        model = self.scratch / "model"
        shutil.copytree(SOURCE, model)
        before = model.stat().st_mtime_ns
        subprocess.run([binary(), "doctor", model], cwd=model, env={**os.environ, "TMPDIR": str(model)}, capture_output=True, timeout=60)
        self.assertEqual(model.stat().st_mtime_ns, before)

    def test_root_of_a_namespace_of_users_needs_mounts_of_its_own(self):
        need_program("unshare")
        need(subprocess.run(["unshare", "-Ur", "true"], capture_output=True).returncode == 0, "a namespace of users")
        code, findings = self.examined(wrapped=["unshare", "-Ur"])
        self.assertEqual((code, findings["user"]["mark"]), (NO_FUSE, "problem"), findings)
        self.assertIn("unshare -Urm", findings["user"]["remedy"])
        mounted = subprocess.run(["unshare", "-Ur", binary(), "mount", SOURCE, self.mountpoint()], capture_output=True, text=True, timeout=60)
        self.assertEqual(mounted.returncode, NO_FUSE)
        self.assertIn("unshare -Urm", mounted.stderr)
        self.assertNotIn("--cap-add", mounted.stderr)

        # With mounts of its own it is as both say.
        code, findings = self.examined(wrapped=["unshare", "-Urm"])
        words = ["unshare", "-Urm", binary(), "mount", SOURCE, self.mountpoint(), "-q"]
        mounted = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
        self.assertEqual((mounted.returncode, findings["user"]["mark"]), (code, "note" if code == 0 else findings["user"]["mark"]))

    def test_without_proc(self):
        need(is_root(), "root")
        need_program("unshare")
        bare = ["unshare", "-m", "sh", "-c", 'umount -l /proc && exec "$0" "$@"']
        code, findings = self.examined(wrapped=bare)
        self.assertEqual((code, findings["/proc"]["mark"]), (NO_FUSE, "problem"))
        self.assertNotIn("without the right", findings["user"]["said"])
        self.assertNotIn("too old", findings["kernel"]["said"])
        self.assertIn(os.uname().release, findings["kernel"]["said"])
        self.assertIn("/proc is not there", findings["trial mount"]["said"])
        for more in ((), ("--foreground",)):
            mounted = subprocess.run([*bare, binary(), "mount", SOURCE, self.mountpoint(), *more], capture_output=True, text=True, timeout=60)
            self.assertEqual(mounted.returncode, NO_FUSE, mounted.stderr)
            self.assertIn("/proc is not there", mounted.stderr)

    def test_the_helper_is_looked_for_where_mount_finds_it(self):
        need(is_root(), "root")
        need_program("setpriv")
        need(os.path.exists("/usr/bin/fusermount3"), "/usr/bin/fusermount3")
        bare = [shutil.which("setpriv"), *NOBODY[1:], shutil.which("env"), "-u", "PATH"]
        _, findings = self.examined(wrapped=bare)
        self.assertIn("fusermount3, set-user-ID root", findings["fusermount3"]["said"])

    def test_a_helper_that_hangs_is_not_waited_for(self):
        need(is_root(), "root")
        need_program("setpriv")
        helpers = self.scratch / "helpers"
        helpers.mkdir()
        program = helpers / "fusermount3"
        program.write_text(f"#!/bin/sh\nexec {shutil.which('sleep')} 1000\n")
        program.chmod(0o755)
        code, findings = self.examined(wrapped=[shutil.which("setpriv"), *NOBODY[1:]], PATH=str(helpers))
        self.assertEqual(code, NO_FUSE)
        self.assertIn("did not answer within 10 seconds", findings["trial mount"]["said"])

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
