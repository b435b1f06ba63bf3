"""Mounts that another program makes: an open /dev/fuse by its number, or from a fusermount3 that asks somebody with the right to mount.

The test is that somebody: root, with mount(2). The program that serves runs as nobody, as in a container without privileges.
"""

import array
import contextlib
import ctypes
import errno
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
from pathlib import Path

from support import FIXTURES, Case, binary, ckpt_fs, is_mounted, need, need_program, same_files, until

YUAN = FIXTURES / "yuan-tiny" / "pp2b24_tp2_none"
TP4 = ("--tp", 4, "--pp", 1)
RANK = "iter_0000100/mp_rank_00/model_optim_rng.pt"
NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs")
LIBC = ctypes.CDLL(None, use_errno=True)
MS_RDONLY, MNT_DETACH = 1, 2


def mount(device, point, kind="fuse.ckpt-fs", owner=NOBODY, options="allow_other,default_permissions"):
    """What a privileged program does for one that is not."""
    data = f"fd={device},rootmode=40000,user_id={owner},group_id={owner},{options}"
    if LIBC.mount(b"a checkpoint", os.fsencode(point), kind.encode(), MS_RDONLY, data.encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def umount(point):
    LIBC.umount2(os.fsencode(point), MNT_DETACH)


class Privileged(Case):
    def setUp(self):
        super().setUp()
        need(os.geteuid() == 0, "root")
        need(os.path.exists("/dev/fuse"), "FUSE")
        need_program("setpriv")
        # Others come by here.
        self.scratch.chmod(0o755)
        self.view = self.scratch / "view"
        self.view.mkdir()
        self.addCleanup(umount, self.view)
        self.copy = self.materialize(YUAN, *TP4, "--crc", "zero", name="copy")

    @contextlib.contextmanager
    def device(self, mounted=True, **how):
        """An open /dev/fuse that is mounted."""
        device = os.open("/dev/fuse", os.O_RDWR)
        try:
            if mounted:
                mount(device, self.view, **how)
            yield device
        finally:
            os.close(device)

    def start(self, device, *arguments, user=AS_NOBODY, **options):
        """The program, with the descriptor and nothing else, and with no fusermount3 that could help it."""
        words = [*user, binary(), "mount", YUAN, *arguments]
        options = {"stderr": subprocess.PIPE, "text": True, "env": {"PATH": "/nowhere", "HOME": "/"}, **options}
        descriptors = () if device is None else (device,)
        words[0] = shutil.which(words[0])
        return subprocess.Popen(list(map(str, words)), pass_fds=descriptors, **options)

    def mount_says(self, device, *arguments, **options):
        """Its exit code and words, where it comes back."""
        process = self.start(device, *arguments, **options)
        said = process.communicate(timeout=60)[1]
        return process.returncode, said

    def served_by(self):
        status = json.loads(ckpt_fs("status", "--json", self.view).stdout)["status"]
        return status["pid"]

    def is_gone(self, pid):
        return not Path(f"/proc/{pid}").exists()


class Descriptors(Privileged):
    def test_a_descriptor_is_the_mount_point(self):
        with self.device() as device:
            code, said = self.mount_says(device, f"/dev/fd/{device}", *TP4)
            self.assertEqual(code, 0, said)
            self.assertIn("the program that mounted it takes it away", said)
        # The daemon has it alone now, and goes on.
        self.assertEqual(same_files(self.view, self.copy), [])
        pid = self.served_by()
        self.assertEqual(os.stat(f"/proc/{pid}").st_uid, NOBODY)
        self.assertEqual(stat.S_IMODE((self.view / RANK).stat().st_mode), 0o644)
        with self.assertRaises(OSError) as raised:
            (self.view / "new").mkdir()
        self.assertEqual(raised.exception.errno, errno.EROFS)
        umount(self.view)
        until(lambda: self.is_gone(pid), "the process to end")

    def test_the_mount_point_may_be_said_beside_it(self):
        with self.device() as device:
            code, said = self.mount_says(device, "--fuse-fd", device, self.view, *TP4)
            self.assertEqual(code, 0, said)
            self.assertIn(f"{YUAN} is at {self.view} as megatron tp4pp1", said)
        self.assertIn(f"{self.view}: mounted", ckpt_fs("log", self.view).stdout)
        self.assertEqual(same_files(self.view, self.copy), [])
        # It is a mount like any other to those who may take it away.
        pid = self.served_by()
        ckpt_fs("unmount", self.view)
        self.assertFalse(is_mounted(self.view))
        until(lambda: self.is_gone(pid), "the process to end")

    def test_the_name_of_the_mount_point_is_the_layout(self):
        self.view = self.scratch / "tp4pp1"
        self.view.mkdir()
        self.addCleanup(umount, self.view)
        with self.device() as device:
            code, said = self.mount_says(device, "--fuse-fd", device, self.view)
            self.assertEqual(code, 0, said)
        self.assertEqual(same_files(self.view, self.copy), [])

    def test_a_descriptor_that_never_waits_is_made_to(self):
        with self.device() as device:
            os.set_blocking(device, False)
            code, said = self.mount_says(device, "--fuse-fd", device, self.view, *TP4)
            self.assertEqual(code, 0, said)
            self.assertTrue(os.get_blocking(device))
        self.assertEqual(same_files(self.view, self.copy), [])

    def test_mounts_of_other_types_tell_their_figures_too(self):
        for kind in ("fuse", "fuse.csi"):
            with self.subTest(kind=kind), self.device(kind=kind) as device:
                code, said = self.mount_says(device, "--fuse-fd", device, self.view, *TP4)
                self.assertEqual(code, 0, said)
                (self.view / RANK).read_bytes()
                self.assertIn(f'mount="{self.view}"', ckpt_fs("status", "--prometheus", self.view).stdout)
                done = ckpt_fs("unmount", self.view, check=False)
                self.assertEqual(done.returncode, 7)
                self.assertIn(f"one of type {kind}; if ckpt-fs serves it for another program", done.stderr)
                pid = self.served_by()
                umount(self.view)
                until(lambda: self.is_gone(pid), "the process to end")

    def test_who_may_use_it_is_for_the_other_to_say(self):
        with self.device(options="default_permissions") as device:
            code, said = self.mount_says(device, "--fuse-fd", device, self.view, *TP4, "--allow-other", "--auto-unmount", "-o", "ro,max_read=4096")
            self.assertEqual(code, 0, said)
            self.assertIn("-o max_read=4096 is the business of whoever made the mount", said)
            self.assertNotIn("-o ro ", said)
            self.assertIn("--allow-other is the business of whoever made the mount", said)
            self.assertIn("--auto-unmount is the business of whoever made the mount", said)
        # The kernel keeps root out of a mount of nobody's that lets nobody else in.
        with self.assertRaises(PermissionError):
            os.listdir(self.view)

    def test_in_the_foreground_a_signal_ends_it_and_the_other_unmounts(self):
        with self.device() as device:
            process = self.start(device, "--foreground", f"/dev/fd/{device}", *TP4)
        # Nobody waits for it: the kernel holds this back until the first answer.
        self.assertEqual(len((self.view / RANK).read_bytes()), (self.copy / RANK).stat().st_size)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 0, said)
        self.assertIn("the process ends, and the mount is left", said)
        self.assertTrue(is_mounted(self.view))
        with self.assertRaises(OSError) as raised:
            os.listdir(self.view)
        self.assertEqual(raised.exception.errno, errno.ENOTCONN)

    def test_root_takes_it_away_at_a_signal_where_it_sees_it(self):
        with self.device(owner=0) as device:
            code, said = self.mount_says(device, "--fuse-fd", device, self.view, *TP4, user=("env",))
            self.assertEqual(code, 0, said)
        pid = self.served_by()
        os.kill(pid, signal.SIGTERM)
        until(lambda: self.is_gone(pid) and not is_mounted(self.view), "the mount to go")

    def test_figures_are_had_over_http_by_those_who_may_not_look_in(self):
        with self.device(options="default_permissions") as device:
            code, said = self.mount_says(device, "--fuse-fd", device, self.view, *TP4, "--metrics-addr", "127.0.0.1:0")
            self.assertEqual(code, 0, said)
        import urllib.request

        where = next(word for word in said.split() if word.startswith("http://"))
        with urllib.request.urlopen(where, timeout=20) as answer:
            self.assertIn(f'ckpt_fs_up{{mount="{self.view}"', answer.read().decode())


class Misuse(Privileged):
    def refused(self, code, device, *arguments):
        got, said = self.mount_says(device, *arguments)
        self.assertEqual(got, code, said)
        return said

    def test_what_cannot_be_served_is_refused(self):
        for words in ((self.view, "--fuse-fd", 77), ("/dev/fd/77",)):
            said = self.refused(7, None, *words)
            self.assertIn("descriptor 77: it is not open; it must be an open /dev/fuse", said)
        for number in (0, 1, 2):
            self.assertIn("standard streams", self.refused(7, None, "--fuse-fd", number, self.view))
        for name in (YUAN, "/dev/null", "/dev/zero"):
            other = os.open(name, os.O_RDONLY)
            self.assertIn("it is not /dev/fuse", self.refused(7, other, f"/dev/fd/{other}"))
            os.close(other)
        with self.device(mounted=False) as device:
            self.assertIn("it is not mounted, or no longer", self.refused(7, device, f"/dev/fd/{device}"))
        with self.device() as device:
            umount(self.view)
            self.assertIn("it is not mounted, or no longer", self.refused(7, device, f"/dev/fd/{device}"))
        with self.device() as device:
            self.assertIn("give one of them", self.refused(2, device, f"/dev/fd/{device}", "--fuse-fd", device))

    def test_one_that_is_served_is_not_served_twice(self):
        with self.device() as device:
            code, said = self.mount_says(device, f"/dev/fd/{device}", *TP4)
            self.assertEqual(code, 0, said)
            self.assertIn("another process serves it already", self.refused(7, device, f"/dev/fd/{device}"))
        self.assertEqual(same_files(self.view, self.copy), [])

    def test_a_source_in_the_mount_is_refused_and_not_waited_for(self):
        with self.device() as device:
            words = [*AS_NOBODY, binary(), "mount", self.view / "source", self.view, "--fuse-fd", device]
            words = list(map(str, [shutil.which(words[0]), *words[1:]]))
            done = subprocess.run(words, pass_fds=(device,), capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 7)
        self.assertIn("would be hidden by the mount", done.stderr)

    def test_a_source_that_cannot_be_read_leaves_the_mount_to_the_other(self):
        with self.device() as device:
            words = [*AS_NOBODY, binary(), "mount", self.scratch / "nothing", f"/dev/fd/{device}"]
            words = list(map(str, [shutil.which(words[0]), *words[1:]]))
            done = subprocess.run(words, pass_fds=(device,), capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 3)
            self.assertTrue(is_mounted(self.view))
            # Whoever holds the descriptor may try again.
            code, said = self.mount_says(device, f"/dev/fd/{device}", *TP4)
            self.assertEqual(code, 0, said)


# What a container has in the place of fusermount3: it may not mount either, and asks somebody outside who may.
STAND_IN = """#!{python}
import array, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as outside:
    outside.connect({outside!r})
    outside.sendall("\\0".join(sys.argv[1:]).encode() + b"\\n")
    answer, ancillary, _, _ = outside.recvmsg(4096, socket.CMSG_SPACE(4))
if answer != b"ok":
    sys.exit("fusermount3: " + answer.decode())
if ancillary:
    rights = array.array("i", ancillary[0][2])
    with socket.socket(fileno=int(os.environ["_FUSE_COMMFD"])) as caller:
        caller.sendmsg([b"\\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
"""


class Proxy(Privileged):
    """fusermount3 of somebody else, first in PATH."""

    def setUp(self):
        super().setUp()
        self.asked = []
        self.refusal = None
        programs = self.scratch / "bin"
        programs.mkdir()
        stand_in = programs / "fusermount3"
        outside = self.scratch / "outside"
        # That of the test may be where only root looks.
        python = shutil.which("python3", path="/usr/bin:/bin")
        need(python, "a python3 of the system")
        stand_in.write_text(STAND_IN.format(python=python, outside=str(outside)))
        stand_in.chmod(0o755)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(outside))
        outside.chmod(0o777)
        self.listener.listen()
        worker = threading.Thread(target=self.serve)
        worker.start()
        self.addCleanup(worker.join)
        self.addCleanup(self.listener.shutdown, socket.SHUT_RDWR)
        self.path = {"env": {"PATH": f"{programs}:/usr/bin:/bin", "HOME": "/"}}
        os.chown(self.view, NOBODY, NOBODY)

    def serve(self):
        with self.listener, contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection:
                    request = b""
                    while not request.endswith(b"\n"):
                        request += connection.recv(65536)
                    self.answer(connection, request.decode().rstrip("\n").split("\0"))

    def answer(self, connection, words):
        self.asked.append(words)
        if self.refusal:
            connection.sendall(self.refusal.encode())
        elif "-u" in words:
            umount(words[-1])
            connection.sendall(b"ok")
        else:
            device = os.open("/dev/fuse", os.O_RDWR)
            options = words[words.index("-o") + 1].split(",")
            (kind,) = [option.partition("=")[2] for option in options if option.startswith("subtype=")]
            known = [option for option in options if option in ("allow_other", "default_permissions")]
            mount(device, words[-1], kind=f"fuse.{kind}", options=",".join(known))
            connection.sendmsg([b"ok"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [device]))])
            os.close(device)

    def test_a_helper_hands_over_what_it_got_from_outside(self):
        code, said = self.mount_says(None, self.view, *TP4, "--allow-other", **self.path)
        self.assertEqual(code, 0, said)
        self.assertEqual(same_files(self.view, self.copy), [])
        pid = self.served_by()
        self.assertEqual(os.stat(f"/proc/{pid}").st_uid, NOBODY)
        ((option, options, dashes, point),) = self.asked
        self.assertEqual((option, dashes, point), ("-o", "--", str(self.view)))
        self.assertLessEqual({"ro", "allow_other", "nosuid", "nodev", f"fsname={YUAN}", "subtype=ckpt-fs"}, set(options.split(",")))
        # The same way out.
        words = [shutil.which("setpriv"), *AS_NOBODY[1:], binary(), "unmount", str(self.view)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, **self.path)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.asked[-1], ["-u", "--", str(self.view)])
        self.assertFalse(is_mounted(self.view))

    def test_what_a_helper_says_is_said(self):
        self.refusal = "the volume is not for you"
        code, said = self.mount_says(None, self.view, *TP4, **self.path)
        self.assertEqual(code, 8)
        self.assertIn("the volume is not for you", said)
        self.assertFalse(is_mounted(self.view))


class MountProgram(Privileged):
    def test_mount_drops_privileges_for_it(self):
        """mount(8) of fuse3 opens the device, mounts, and runs the program without its rights: `-o drop_privileges`."""
        need_program("mount.fuse3")
        link = self.scratch / "mount.ckpt-fs"
        link.symlink_to(binary())
        words = ["mount.fuse3", f"{link}#{YUAN}", self.view, "-o", "drop_privileges,allow_other,tp=4,pp=1"]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(same_files(self.view, self.copy), [])
        pid = self.served_by()
        capabilities = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Cap"))
        self.assertEqual(int(capabilities["CapEff"], 16), 0)
