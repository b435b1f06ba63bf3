"""What deploy/ has for Slurm and Kubernetes: scripts run with stand-ins for Slurm's programs, manifests are what Kubernetes takes, and
the commands in them run. The unit for systemd is in test_mount_helper.py, the pages that say how to use all this in test_docs.py."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import unittest
from pathlib import Path

from pages.stage import LLAMA, Stage
from support import ROOT, TIMEOUT, Case, Mount, ckpt_fs, is_mounted, need, until

SLURM = ROOT / "deploy" / "slurm"
MANIFESTS = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))


class Staged(Case):
    def setUp(self):
        super().setUp()
        with Mount(LLAMA):  # skips where FUSE is missing
            pass
        self.stage = self.enterContext(Stage())


class Slurm(Staged):
    """Prolog and epilog of a node; a job between them is on docs/cluster.md."""

    def setUp(self):
        super().setUp()
        self.mounts = self.stage.directory / "run" / "ckpt-fs"
        self.point = self.mounts / "4711"
        self.log = self.mounts / "4711.log"

    def run_script(self, name, comment=None, job="4711"):
        user = pwd.getpwuid(os.geteuid()).pw_name
        more = {} if comment is None else {"SLURM_JOB_COMMENT": self.stage.here(comment)}
        environment = {**self.stage.environment, "CKPT_FS_MOUNTS": str(self.mounts), "SLURM_JOB_ID": job, "SLURM_JOB_USER": user, **more}
        done = subprocess.run([SLURM / name], env=environment, capture_output=True, text=True, timeout=TIMEOUT)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def prolog(self, comment="ckpt-fs /data/run --tp 4 --pp 2", **more):
        self.run_script("prolog.sh", comment, **more)

    def epilog(self):
        self.run_script("epilog.sh")
        self.assertFalse(is_mounted(self.point))
        self.assertEqual(list(self.mounts.iterdir()), [])

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
            ("ckpt-fs /data/run --no-such-option", "unexpected argument"),
            ("ckpt-fs /data/run --tp $(touch${IFS}/tmp/x)", "expected a whole number"),
        ):
            with self.subTest(comment=comment):
                self.prolog(comment)
                self.assertFalse(is_mounted(self.point))
                self.assertIn(said, self.log.read_text())
        self.epilog()
        self.prolog(job="4711; true")
        self.assertEqual(list(self.mounts.iterdir()), [])

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
        allowed = os.geteuid() == 0 or "user_allow_other" in Path("/etc/fuse.conf").read_text()
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
