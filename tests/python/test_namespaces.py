"""Mounts within mounts: bind mounts, overlays, other roots and other users' namespaces all show the same bytes, and end as they should."""

import contextlib
import json
import mmap
import os
import shutil
import subprocess
import unittest
from pathlib import Path

from support import FIXTURES, Case, Mount, binary, ckpt_fs, daemon_pid, exact, is_mounted, need, need_program, run, same_files, unmount, until

SOURCE = FIXTURES / "megatron-tiny" / "untied" / "dist_tp1pp2_first3"
PT = ("--tp", 2, "--pp", 2)
MAPPED = ("--as", "safetensors", *PT)
NOBODY = 65534


@contextlib.contextmanager
def mounted(*arguments, at):
    """Another mount, for as long as it is needed; the mount point is made."""
    at.mkdir(exist_ok=True)
    run("mount", *arguments, at)
    try:
        yield at
    finally:
        if is_mounted(at):
            run("umount", at)


class Namespaces(Case):
    def setUp(self):
        super().setUp()
        need(os.geteuid() == 0, "root")
        self.real = {flags: self.materialize(SOURCE, *flags, name=f"real-{flags[1]}") for flags in (PT, MAPPED)}

    def assert_view(self, path, flags):
        """Read and mapped, the files are those of the copy."""
        self.assertEqual(same_files(path, self.real[flags]), [])
        for name in sorted(file.relative_to(self.real[flags]) for file in self.real[flags].rglob("*") if file.is_file()):
            with open(path / name, "rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as pages:
                self.assertEqual(pages[:], (self.real[flags] / name).read_bytes())

    def test_a_bind_mount_outlives_the_mount(self):
        for flags in (PT, MAPPED):
            with self.subTest(flags=flags), Mount(SOURCE, *exact(*flags)) as view:
                pid = daemon_pid(view)
                with mounted("--bind", view, at=self.scratch / "bound") as bound:
                    self.assert_view(bound, flags)
                    done = ckpt_fs("unmount", view)
                    self.assertIn(f"it is mounted at {bound} too, so its process stays", done.stderr)
                    self.assertFalse(is_mounted(view))
                    self.assert_view(bound, flags)
                    self.assertTrue(Path(f"/proc/{pid}").exists())
                until(lambda: not Path(f"/proc/{pid}").exists(), "the process of the mount to end")

    def test_unmount_says_what_a_mount_in_another_namespace_holds(self):
        """A container keeps what it was started with: the process goes on serving it, and the source is not free."""
        with Mount(SOURCE, *PT) as view:
            pid = daemon_pid(view)
            words = ("unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; read end")
            with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as container:
                self.assertEqual(container.stdout.readline(), "ready\n")
                done = ckpt_fs("unmount", view, check=False)
                self.assertEqual((done.returncode, is_mounted(view)), (7, False))
                self.assertIn(f"unmounted, but process {pid} still holds {SOURCE} after", done.stderr)
                container.communicate("end\n", timeout=20)
            until(lambda: not Path(f"/proc/{pid}").exists(), "the process of the mount to end")

    def test_a_bind_mount_of_one_file(self):
        name = "mp_rank_00_000.safetensors"
        with Mount(SOURCE, *MAPPED) as view:
            (self.scratch / name).touch()
            run("mount", "--bind", view / name, self.scratch / name)
            try:
                self.assertEqual((self.scratch / name).read_bytes(), (self.real[MAPPED] / name).read_bytes())
            finally:
                run("umount", self.scratch / name)

    def test_the_lower_layer_of_an_overlay(self):
        """Containers put their own files over a view; what they change is copied up, and the source stays as it is."""
        need("overlay" in Path("/proc/filesystems").read_text(), "overlayfs")
        before = ckpt_fs("digest", SOURCE).stdout
        for flags, more in ((PT, ()), (PT, ("--io", "cached")), (MAPPED, ()), (MAPPED, ("--cache-size", 0))):
            view, layers = Mount(SOURCE, *exact(*flags), *more), mounted("-t", "tmpfs", "tmpfs", at=self.scratch / "layers")
            with self.subTest(flags=flags, more=more), view as view, layers as layers:
                for name in ("upper", "work"):
                    (layers / name).mkdir()
                options = f"lowerdir={view},upperdir={layers / 'upper'},workdir={layers / 'work'}"
                with mounted("-t", "overlay", "-o", options, "overlay", at=self.scratch / "merged") as merged:
                    self.assert_view(merged, flags)
                    victim = next(path.relative_to(merged) for path in sorted(merged.rglob("*")) if path.suffix in (".pt", ".safetensors"))
                    (merged / "added").write_text("added")
                    with open(merged / victim, "r+b") as file:
                        file.write(b"changed")
                    changed = (merged / victim).read_bytes()
                    self.assertEqual(changed, b"changed" + (self.real[flags] / victim).read_bytes()[7:])
                    self.assert_view(view, flags)
        self.assertEqual(ckpt_fs("digest", SOURCE).stdout, before)

    def script(self, text, *arguments, prefix):
        """Runs shell words in namespaces of their own; they find their arguments in $1 and so on."""
        words = [*prefix, "sh", "-euc", text, "sh", *map(str, arguments)]
        return run(*words, env={**os.environ, "CKPT_FS": binary()})

    def test_a_mount_in_a_namespace_of_its_own(self):
        """It is seen there alone, and gone with the last process there."""
        point = self.scratch / "point"
        point.mkdir()
        text = '"$CKPT_FS" mount "$1" "$2" --tp 2 --pp 2 --crc exact; diff -r "$2" "$3"; grep -q "$2" /proc/self/mounts'
        prefix = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private")
        self.script(text, SOURCE, point, self.real[PT], prefix=prefix)
        self.assertFalse(is_mounted(point))
        until(lambda: daemon_pid(point) is None, "the process of the mount to end")

    def test_root_of_a_user_namespace(self):
        """Root there is nobody here: it may mount, and not hand files to the kernel; both are as they should be."""
        text = """
            "$CKPT_FS" mount "$1" "$2" --tp 2 --pp 2 --crc exact
            diff -r "$2" "$3"
            "$CKPT_FS" unmount "$2"
            "$CKPT_FS" mount "$1" "$2" --as safetensors --tp 2 --pp 2
            "$CKPT_FS" warmup "$2" >&2
            diff -r "$2" "$4"
            cat "$2"/*.safetensors >"$2.cat"
            cat "$4"/*.safetensors | cmp - "$2.cat"
            "$CKPT_FS" status "$2" --json
            "$CKPT_FS" unmount "$2"
        """
        done = subprocess.run(["unshare", "-Urm", "true"], capture_output=True)
        need(done.returncode == 0, "user namespaces")
        source, program = self.scratch / "source", self.scratch / "ckpt-fs"
        shutil.copytree(SOURCE, source)
        shutil.copy(binary(), program)
        self.scratch.chmod(0o755)
        for uid in (0, NOBODY):
            home = self.scratch / f"home-{uid}"
            (home / "view").mkdir(parents=True)
            for path in (home, home / "view"):
                os.chown(path, uid, uid)
            user = () if uid == 0 else ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
            # /dev/fuse is open to all on most systems; here it is made so in a namespace of the test.
            opened = 'mknod "$1" c 10 229; chmod 0666 "$1"; mount --bind "$1" /dev/fuse; shift; cd /; exec "$@"'
            device = ("unshare", "--mount", "--propagation", "private", "sh", "-euc", opened, "sh", self.scratch / f"fuse-{uid}")
            with self.subTest(uid=uid):
                words = [*device, *user, "unshare", "-Urm", "sh", "-euc", text, "sh", source, home / "view", self.real[PT], self.real[MAPPED]]
                done = run(*words, env={**os.environ, "CKPT_FS": str(program)})
                # Nothing was assembled for a kernel that would not take it.
                self.assertEqual(json.loads(done.stdout)["status"]["cache"]["files"], 0)
                self.assertFalse(is_mounted(home / "view"))
                until(lambda: daemon_pid(home / "view") is None, "the process of the mount to end")

    def test_another_root(self):
        """As a container has it: the view is mounted from outside into a tree that becomes the root."""
        need_program("pivot_root")
        text = """
            mount --rbind / "$1"
            mount --bind "$2" "$1/mnt"
            cd "$1"
            pivot_root . tmp
            cd /
            diff -r /mnt "/tmp/$3"
            umount -l /tmp
            cat /mnt/*.safetensors | wc -c
        """
        root = self.scratch / "root"
        root.mkdir()
        with Mount(SOURCE, *MAPPED) as view:
            done = self.script(text, root, view, self.real[MAPPED], prefix=("unshare", "--mount", "--propagation", "private"))
            self.assertEqual(int(done.stdout), sum(path.stat().st_size for path in self.real[MAPPED].glob("*.safetensors")))
            self.assert_view(view, MAPPED)

    def test_a_mount_made_within_another_root(self):
        """A container that mounts by itself: the source and the mount point have other names than outside."""
        text = """
            mount --rbind / "$1"
            mount --bind "$2" "$1/mnt"
            cp "$CKPT_FS" "$1$5/program"
            mkdir "$1$5/view"
            exec chroot "$1" sh -euc '
                "$1/program" mount /mnt "$1/view" --as safetensors --tp 2 --pp 2
                "$1/program" warmup "$1/view"
                diff -r "$1/view" "$2"
                "$1/program" unmount "$1/view"
            ' sh "$5" "$4"
        """
        root, home = self.scratch / "root", self.scratch / "home"
        for path in (root, home):
            path.mkdir()
        prefix = ("unshare", "--mount", "--propagation", "private")
        self.script(text, root, SOURCE, "", self.real[MAPPED], home, prefix=prefix)
        until(lambda: daemon_pid(home / "view") is None, "the process of the mount to end")


if __name__ == "__main__":
    unittest.main()
