"""What deploy/ has for Slurm and Kubernetes: scripts run with stand-ins for Slurm's programs, manifests are what Kubernetes takes, and
the commands in them run. The unit for systemd is in test_mount_helper.py, the pages that say how to use all this in test_docs.py."""

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import unittest
from pathlib import Path

from pages.stage import LLAMA, Stage
from support import ROOT, TIMEOUT, Case, Mount, binary, ckpt_fs, daemon_pid, is_mounted, need, until

SLURM = ROOT / "deploy" / "slurm"
MANIFESTS = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))


class Staged(Case):
    def setUp(self):
        super().setUp()
        with Mount(LLAMA):  # skips where FUSE is missing
            pass
        self.stage = self.enterContext(Stage())

    def program(self, name, text):
        """Puts a stand-in in the place of a program."""
        path = self.stage.bin / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)


class Node(Staged):
    """A node of Slurm's, on which prolog and epilog run; a job between them is on docs/cluster.md."""

    def setUp(self):
        super().setUp()
        self.mounts = self.stage.directory / "run" / "ckpt-fs"
        self.point = self.mounts / "4711"
        self.log = self.mounts / "4711.log"
        self.user = pwd.getpwuid(os.geteuid()).pw_name

    def run_script(self, name, comment=None, job="4711", umask=-1, **variables):
        given = {"CKPT_FS_MOUNTS": self.mounts, "SLURM_JOB_ID": job, "SLURM_JOB_USER": self.user, "SLURM_JOB_COMMENT": comment, **variables}
        given = {name: self.stage.here(str(value)) for name, value in given.items() if value is not None}
        environment = {**self.stage.environment, **given}
        done = subprocess.run([SLURM / name], env=environment, capture_output=True, text=True, timeout=TIMEOUT, umask=umask)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def prolog(self, comment="ckpt-fs /data/run --tp 4 --pp 2", **more):
        self.run_script("prolog.sh", comment, **more)

    def epilog(self):
        self.run_script("epilog.sh")
        self.assertFalse(is_mounted(self.point))
        self.assertEqual(list(self.mounts.iterdir()), [])


LINGERING = """#!/bin/sh
[ "$1" = mount ] || exit 1
( (read -r _ <"$CKPT_FS_STAGE/go"; echo "it is mounted"; : >"$CKPT_FS_STAGE/gone") & )
exec sleep 1000
"""


class Slurm(Node):
    def test_a_job_finds_what_its_comment_says(self):
        self.prolog()
        self.assertTrue(is_mounted(self.point))
        ranks = sorted(path.name for path in (self.point / "iter_0000010").iterdir())
        self.assertEqual(len(ranks), 8)
        self.epilog()

    def test_twice_is_once(self):
        self.prolog()
        before = ckpt_fs("status", self.point, "-v").stdout
        self.prolog()
        after = ckpt_fs("status", self.point, "-v").stdout
        process = [text.split("process ")[1].split(",")[0] for text in (before, after)]
        self.assertEqual(process[0], process[1])
        self.epilog()
        self.epilog()

    def test_jobs_without_such_a_comment_are_left_alone(self):
        for comment in (None, "", "for the paper", "ckpt-fsx /data/run"):
            self.prolog(comment)
            self.assertEqual(list(self.mounts.iterdir()), [])
        self.epilog()

    def test_mistakes_are_said_and_drain_no_node(self):
        for comment, said in (
            ("ckpt-fs /data/run --tp 3", "TP 3 does not divide 8 heads"),
            ("ckpt-fs /data/nothing", "no such directory"),
            ("ckpt-fs --tp 3", "ckpt-fs SOURCE OPTIONS"),
            ("ckpt-fs", "ckpt-fs SOURCE OPTIONS"),
            ("ckpt-fs /data/run --no-such-option", "--no-such-option is none of the options"),
            ("ckpt-fs /data/run --tp $(touch${IFS}/tmp/x)", "expected a whole number"),
            # These would keep the node, take memory that is nobody's, let others in, or write a file.
            ("ckpt-fs /data/run -f", "-f is none of the options"),
            ("ckpt-fs /data/run --tp 4 --foreground", "--foreground is none of the options"),
            ("ckpt-fs /data/run --tp --foreground", "--foreground is none of the options"),
            ("ckpt-fs /data/run --cache-size=1TiB", "--cache-size is none of the options"),
            ("ckpt-fs /data/run -o allow_other", "-o is none of the options"),
            ("ckpt-fs /data/run --log-file /tmp/x", "--log-file is none of the options"),
            ("ckpt-fs /data/run -- /tmp", "-- is none of the options"),
            # Paths.
            ("ckpt-fs /data/my run --tp 4", "run belongs to nothing: paths with spaces cannot be named"),
            ("ckpt-fs '/data/my run' --tp 4", "paths with spaces cannot be named"),
            ('ckpt-fs "/data/my run" --tp 4', "paths with spaces cannot be named"),
            ("ckpt-fs /data/my\\ run --tp 4", "paths with spaces cannot be named"),
            ("ckpt-fs run --tp 4", "run is no path from / on"),
            ("ckpt-fs /data/run --template Llama-3.1-8B", "Llama-3.1-8B is no path from / on"),
            ("ckpt-fs /data/run --family=my.toml", "my.toml is no path from / on"),
            ("ckpt-fs /data/run\n--tp 3", "TP 3 does not divide 8 heads"),
        ):
            with self.subTest(comment=comment):
                self.prolog(comment)
                self.assertFalse(is_mounted(self.point))
                self.assertIn(said, self.log.read_text())
        self.epilog()
        self.prolog(job="4711; true")
        self.assertEqual(list(self.mounts.iterdir()), [])

    def test_a_comment_may_have_the_options_that_say_what_a_view_is(self):
        groups = re.split(r"\n(?=[A-Z][^\n]*:\n)", ckpt_fs("mount", "--help").stdout)
        wanted = [group for group in groups if group.startswith(("Layout", "Format", "Source"))]
        self.assertEqual(len(wanted), 3)
        known = re.findall(r"^ {2,6}(?:-\w, )?(--[\w-]+)(.*)", "".join(wanted), re.M)
        # The check of a comment counts on values.
        self.assertEqual([name for name, value in known if not value.startswith(" <")], [])
        text = re.search(r'^options="([^"]+)"', (SLURM / "prolog.sh").read_text(), re.M)[1]
        self.assertEqual(sorted(text.split()), sorted(name for name, _ in known))
        self.prolog("ckpt-fs /data/run --as=vllm --iteration 5 --tp 4 --template=/models/Llama-3.1-8B")
        self.assertTrue((self.point / "model-rank-3-part-0.safetensors").is_file(), self.log.read_text())
        self.epilog()

    def test_without_a_user_there_is_no_mount_and_no_harm(self):
        for user in (None, ""):
            self.prolog(SLURM_JOB_USER=user)
            self.assertFalse(is_mounted(self.point))
            self.assertIn("SLURM_JOB_USER", self.log.read_text())
        self.prolog(SLURM_JOB_USER="no-such-user")
        self.assertFalse(is_mounted(self.point))
        self.assertIn("no-such-user", self.log.read_text())

    def test_no_umask_locks_the_user_out(self):
        self.mounts.chmod(0o700)
        self.prolog(umask=0o077)
        self.assertTrue(is_mounted(self.point))
        modes = [path.stat().st_mode & 0o777 for path in (self.mounts, self.log)]
        self.assertEqual([f"{mode:o}" for mode in modes], ["755", "644"])
        self.epilog()

    def processes(self):
        """Those that have the mount point among their words."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(self.point) in path.read_bytes().decode(errors="replace").split("\0"):
                    yield path.parent.name

    def test_storage_that_hangs_is_given_up(self):
        with Mount(LLAMA) as storage:
            process = daemon_pid(storage)
            os.kill(process, signal.SIGSTOP)
            try:
                self.prolog(f"ckpt-fs {storage}/tp1pp2", CKPT_FS_PATIENCE="1")
                said = self.log.read_text()
                self.assertIn("was not mounted in 1 s", said)
                until(lambda: not list(self.processes()), "the end of the process that mounts")
            finally:
                os.kill(process, signal.SIGCONT)
            self.assertFalse(is_mounted(self.point))
            self.assertEqual(self.log.read_text(), said)
            # When it answers again, nothing is in the way.
            self.prolog(f"ckpt-fs {storage}/tp1pp2")
            self.assertTrue(is_mounted(self.point))
            self.epilog()

    def test_what_cannot_be_ended_cannot_say_later_that_all_is_well(self):
        # A process that nobody finds, as one that the kernel keeps; it has the log open.
        os.mkfifo(self.stage.directory / "go")
        self.program("ckpt-fs", LINGERING)
        self.prolog(CKPT_FS_PATIENCE="1")
        said = self.log.read_text()
        self.assertIn("was not mounted in 1 s", said)
        (self.stage.directory / "go").write_text("\n")
        until((self.stage.directory / "gone").exists, "the process that lives on")
        self.assertEqual(self.log.read_text(), said)

    def test_a_mount_that_is_gone_or_dead_is_no_obstacle(self):
        self.prolog()
        ckpt_fs("unmount", self.point)
        self.epilog()
        for after in (self.epilog, self.prolog):
            # As a killed process leaves it: --auto-unmount takes it away, at its own time.
            self.prolog()
            process = int(ckpt_fs("status", self.point, "-v").stdout.split("process ")[1].split(",")[0])
            os.kill(process, signal.SIGKILL)
            after()
        until(lambda: ckpt_fs("status", self.point, check=False).returncode == 0, "the mount that replaces a dead one")
        self.epilog()

    def test_scripts_are_plain(self):
        program = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
        need(program, "the program shellcheck")
        done = subprocess.run([program, *sorted(SLURM.iterdir())], capture_output=True, text=True, timeout=TIMEOUT)
        self.assertEqual((done.returncode, done.stdout), (0, ""))


class AnotherUser(Node):
    """As Slurm runs them: prolog and epilog as root, the job as somebody else."""

    NOBODY = 65534

    def setUp(self):
        need(os.geteuid() == 0, "root")
        need(shutil.which("fusermount3"), "the program fusermount3")
        super().setUp()
        self.user = pwd.getpwuid(self.NOBODY).pw_name
        # The directory of the tests may be closed to others, and that of their binary.
        program = self.stage.bin / "ckpt-fs"
        program.unlink()
        shutil.copy(binary(), program)
        for path in (self.stage.directory, self.stage.home, self.stage.bin, *(self.stage.home / "run").rglob("*")):
            path.chmod(0o755)
        (self.stage.home / "run").chmod(0o755)

    def as_nobody(self, *words):
        options = {"user": self.NOBODY, "group": self.NOBODY, "extra_groups": [], "cwd": "/", "env": self.stage.environment}
        return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=TIMEOUT, **options)

    def test_the_mount_is_the_users_own(self):
        self.prolog(umask=0o077)
        said = self.as_nobody("cat", self.log)
        self.assertIn(f"is at {self.point} as ", said.stdout, said.stderr)
        (line,) = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f" {self.point} " in line]
        self.assertIn(f"user_id={self.NOBODY},", line)
        self.assertNotIn("allow_other", line)
        status = self.as_nobody("ckpt-fs", "status", self.point, "-v").stdout
        process = status.split("process ")[1].split(",")[0]
        text = Path(f"/proc/{process}/status").read_text()
        for name in ("Uid", "Gid"):
            self.assertEqual(set(re.search(rf"^{name}:\t(.*)", text, re.M)[1].split()), {str(self.NOBODY)})
        ranks = self.as_nobody("ls", self.point / "iter_0000010")
        self.assertEqual(len(ranks.stdout.split()), 8, ranks.stderr)
        self.prolog()
        self.assertEqual(self.as_nobody("ckpt-fs", "status", self.point, "-v").stdout.split("process ")[1].split(",")[0], process)
        self.epilog()

    def test_he_is_shown_nothing_that_he_could_not_read(self):
        (self.stage.directory / "ckpt").chmod(0o700)
        self.prolog("ckpt-fs /ckpt/run --tp 4 --pp 2")
        self.assertFalse(is_mounted(self.point))
        self.assertIn("ermission denied", self.log.read_text())
        self.assertEqual(self.point.stat().st_uid, self.NOBODY)
        self.epilog()


TRAINING = """#!/bin/sh
while [ "$1" != --load ]; do shift; done
echo "$2" >>"$CKPT_FS_STAGE/trained"
ls "$2" >>"$CKPT_FS_STAGE/trained"
"""


class Alone(Staged):
    """A job that mounts for itself. What it loads is executed (a .pt file is a pickle), so it must be its own mount."""

    def setUp(self):
        super().setUp()
        self.tmp = self.stage.directory / "tmp"
        self.guessed = self.tmp / "ckpt-fs-4711"
        self.trained = self.stage.directory / "trained"
        self.program("torchrun", TRAINING)

    def job(self):
        return self.stage.shell("sbatch deploy/slurm/alone.sbatch")

    def test_its_directory_cannot_be_guessed(self):
        self.guessed.mkdir()
        ckpt_fs("mount", self.stage.home / "trained", self.guessed)
        for _ in range(2):
            code, said = self.job()
            self.assertEqual(code, 0, said)
            self.assertEqual(list(self.tmp.iterdir()), [self.guessed])
        first, *shown, second, _, _ = self.trained.read_text().split()
        self.assertEqual(shown, ["iter_0000010", "latest_checkpointed_iteration.txt"])
        self.assertEqual(len({first, second, str(self.guessed)}), 3)

    def test_it_takes_no_directory_that_is_there_already(self):
        # Whoever sees the name in time.
        self.program("mktemp", f"#!/bin/sh\necho '{self.guessed}'\n")
        with Mount(self.stage.home / "trained") as theirs:
            for make in (
                lambda: self.guessed.mkdir(),
                lambda: self.guessed.symlink_to(theirs),
                lambda: (self.guessed.mkdir(), ckpt_fs("mount", self.stage.home / "trained", self.guessed)),
            ):
                make()
                code, said = self.job()
                self.assertEqual((code != 0, self.trained.exists()), (True, False), said)
                self.assertIn("File exists", said)
                if is_mounted(self.guessed):
                    self.assertEqual(ckpt_fs("status", self.guessed, check=False).returncode, 0)
                elif self.guessed.is_symlink():
                    self.guessed.unlink()
                else:
                    self.guessed.rmdir()

    def test_a_mount_that_fails_ends_the_job(self):
        (self.stage.directory / "data" / "run").unlink()
        code, said = self.job()
        self.assertEqual((code, self.trained.exists()), (1, False), said)
        self.assertIn("no such directory", said)
        self.assertIn("is not mounted on every node", said)
        self.assertEqual(list(self.tmp.iterdir()), [])

    def test_a_mount_that_ends_at_once_ends_the_job(self):
        # With a code that says that all is well.
        self.program("ckpt-fs", f"#!/bin/sh\n[ \"$1\" = mount ] && exit 0\nexec '{binary()}' \"$@\"\n")
        code, said = self.job()
        self.assertEqual((code, self.trained.exists()), (1, False), said)
        self.assertIn("is not mounted on every node", said)


class Kubernetes(Staged):
    def documents(self):
        need(importlib.util.find_spec("yaml"), "the Python package yaml")
        import yaml

        for path in MANIFESTS:
            for document in yaml.safe_load_all(path.read_text()):
                yield path.name, document

    def pod(self, name):
        (document,) = [document for path, document in self.documents() if path == name]
        return document["spec"].get("template", document)["spec"]

    def test_manifests_are_what_kubernetes_takes(self):
        need(importlib.util.find_spec("kubernetes_validate"), "the Python package kubernetes-validate")
        import kubernetes_validate

        self.assertEqual(len(MANIFESTS), 3)
        for path, document in self.documents():
            with self.subTest(path=path):
                kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
                # The oldest that has sidecars by default.
                kubernetes_validate.validate(document, "1.29", strict=True)

    def test_containers_have_the_volumes_that_their_commands_name(self):
        for path, _ in self.documents():
            pod = self.pod(path)
            known = {volume["name"] for volume in pod["volumes"]}
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                with self.subTest(path=path, container=container["name"]):
                    mounts = container["volumeMounts"]
                    self.assertLessEqual({mount["name"] for mount in mounts}, known)
                    words = " ".join(container["command"]).split()
                    for word in (word for word in words if word.startswith("/")):
                        self.assertTrue(any(word.startswith(mount["mountPath"]) for mount in mounts), word)
                    propagation = {mount.get("mountPropagation") for mount in mounts}
                    if "Bidirectional" in propagation:
                        self.assertTrue(container["securityContext"]["privileged"])

    def start(self, container):
        command = [self.stage.here(word) for word in container["command"]]
        return subprocess.Popen(command, cwd=self.stage.home, env=self.stage.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def finish(self, container):
        process = self.start(container)
        said, _ = process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, 0, said)

    def test_an_init_container_makes_a_copy_that_the_engine_takes(self):
        pod = self.pod("materialize.yaml")
        (init,), (engine,) = pod["initContainers"], pod["containers"]
        self.finish(init)
        # One that is started again finds its work done.
        self.finish(init)
        self.finish(engine)

    def live(self, container, probe, point):
        """Starts a container that mounts; comes back when its probe says that it is there."""
        process = self.start(container)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait, 20)
        self.addCleanup(process.kill)
        words = [self.stage.here(word) for word in container[probe]["exec"]["command"]]
        until(lambda: process.poll() is not None or subprocess.run(words, env=self.stage.environment, capture_output=True).returncode == 0, "the probe")
        self.assertIsNone(process.poll())
        self.assertTrue(is_mounted(point))
        return process

    def check_mount(self, container, probe, point, use):
        allowed = os.geteuid() == 0 or "user_allow_other" in Path("/etc/fuse.conf").read_text().splitlines()
        need(allowed, "permission for --allow-other")
        point = Path(self.stage.here(point))
        killed = self.live(container, probe, point)
        killed.kill()
        killed.wait(20)
        # The next container takes its place.
        process = self.live(container, probe, point)
        use()
        process.terminate()
        self.assertEqual(process.wait(20), 0)
        self.assertFalse(is_mounted(point))

    def test_a_sidecar_mounts_for_the_engine(self):
        pod = self.pod("sidecar.yaml")
        (sidecar,), (engine,) = pod["initContainers"], pod["containers"]
        self.assertEqual(sidecar["restartPolicy"], "Always")
        self.check_mount(sidecar, "startupProbe", "/view/model", lambda: self.finish(engine))

    def test_a_mount_for_each_node(self):
        (container,) = self.pod("daemonset.yaml")["containers"]
        point = "/var/lib/ckpt-fs/run"
        ranks = Path(self.stage.here(f"{point}/tp8pp4/iter_0000010"))
        self.check_mount(container, "readinessProbe", point, lambda: self.assertEqual(len(list(ranks.iterdir())), 32))


if __name__ == "__main__":
    unittest.main()
