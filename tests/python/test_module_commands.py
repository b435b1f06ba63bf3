"""The package's functions over commands: what they return, raise and tell, how the program is found, and mounts that go away."""

import io
import json
import os
import pickle
import subprocess
import sys
import threading
import unittest
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from support import FIXTURES, NO_FUSE, ROOT, Case, binary, ckpt_fs as program, is_mounted, module, need, same_files

ckpt_fs = module()
SOURCE = FIXTURES / "megatron-tiny" / "untied" / "dist_tp1pp2_first3"


def mounted(*arguments, **keywords):
    """A mount, or a loud skip where none can be made."""
    try:
        return ckpt_fs.mount(*arguments, **keywords)
    except ckpt_fs.FuseError as error:
        need(error.exit_code != NO_FUSE, f"FUSE ({error})")
        raise


class Reports(Case):
    def test_they_are_the_programs_json(self):
        said = lambda *words: json.loads(program(*words, "--json").stdout)
        self.assertEqual(ckpt_fs.inspect(SOURCE, tp=4, tensors=True), said("inspect", SOURCE, "--tp", 4, "--tensors"))
        self.assertEqual(ckpt_fs.ls(str(SOURCE), as_="vllm", tp=2, tensors=True), said("ls", SOURCE, "--as", "vllm", "--tp", 2, "--tensors"))
        self.assertEqual(ckpt_fs.digest(SOURCE, tensors=True), said("digest", SOURCE, "--tensors"))
        self.assertEqual(ckpt_fs.verify(SOURCE), said("verify", SOURCE))
        self.assertEqual(ckpt_fs.map(SOURCE, tp=2, format="svg"), program("map", SOURCE, "--tp", 2, "--format", "svg").stdout)
        self.assertEqual(ckpt_fs.ls(SOURCE, pp_layers=[3, 3, 2], options=["--tp", "2"])["layout"], "tp2pp3@3,3,2")
        self.assertEqual(ckpt_fs.cat(SOURCE, "config.json", 2, 20, as_="hf"), program("cat", SOURCE, "config.json", "--as", "hf").stdout.encode()[2:20])

    def test_that_no_mount_is_possible_is_returned(self):
        with mock.patch.dict(os.environ, {"TMPDIR": str(self.scratch)}):
            found = ckpt_fs.doctor(SOURCE)
        done = program("doctor", check=False)
        self.assertEqual(found["mount_possible"], done.returncode == 0)
        self.assertIn("source", [finding["check"] for finding in found["findings"]])

    def test_a_difference_is_returned(self):
        other = self.materialize(SOURCE, "--as", "hf")
        self.assertTrue(ckpt_fs.verify(SOURCE, other)["identical"])
        with open(other / "model.safetensors", "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"A")
        found = ckpt_fs.verify(SOURCE, other)
        self.assertEqual((found["identical"], len(found["differences"])), (False, 1))

    def test_every_exit_code_has_an_exception(self):
        codes = {kind.exit_code for kind in vars(ckpt_fs).values() if isinstance(kind, type) and issubclass(kind, ckpt_fs.CkptFsError)}
        table = [line.split("|")[1].strip() for line in (ROOT / "docs" / "commands.md").read_text().split("## Exit codes")[1].splitlines() if line.startswith("| ")]
        self.assertLessEqual({int(code) for code in table if code.isdigit()} - {0}, codes)

    def test_errors_say_what_the_program_says(self):
        (self.scratch / "full").mkdir()
        (self.scratch / "full" / "file").touch()
        for kind, code, words, call in (
            (ckpt_fs.UsageError, 2, "--sizes", lambda: ckpt_fs.ls(SOURCE, options=["--sizes"])),
            (ckpt_fs.SourceError, 3, "none", lambda: ckpt_fs.inspect(self.scratch / "none")),
            (ckpt_fs.UnsupportedError, 4, "torch_dist", lambda: ckpt_fs.ls(FIXTURES / "gpt-tiny" / "pp1_tp1_f16", as_="torch_dist")),
            (ckpt_fs.LayoutError, 5, "possible: 1, 2, 4, 8", lambda: ckpt_fs.ls(SOURCE, tp=3)),
            (ckpt_fs.DestinationError, 6, "--overwrite", lambda: ckpt_fs.materialize(SOURCE, self.scratch / "full", tp=2)),
            (ckpt_fs.MountPointError, 7, "none", lambda: mounted(SOURCE, self.scratch / "none")),
        ):
            with self.subTest(kind.__name__), self.assertRaises(kind) as raised:
                call()
            error = raised.exception
            self.assertEqual((error.exit_code, str(error)), (code, error.message))
            self.assertIn(words, error.message)
            self.assertFalse(error.message.startswith("ckpt-fs"))
            again = pickle.loads(pickle.dumps(error))
            self.assertEqual((type(again), again.message, again.exit_code), (kind, error.message, code))

    def test_a_path_may_begin_with_a_dash(self):
        (self.scratch / "-src").symlink_to(SOURCE)
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir(self.scratch)
            self.assertEqual(ckpt_fs.inspect("-src")["family"], "megatron-core")
        finally:
            os.fchdir(here)
            os.close(here)


class Materialize(Case):
    def test_progress_ends_with_everything(self):
        told = []
        ckpt_fs.materialize(SOURCE, self.scratch / "a", as_="hf", progress=told.append)
        ckpt_fs.materialize(SOURCE, str(self.scratch / "b"), as_="hf")
        self.assertEqual(same_files(self.scratch / "a", self.scratch / "b"), [])
        total = sum(path.stat().st_size for path in (self.scratch / "a").iterdir())
        self.assertEqual((told[0].written, told[0].total), (0, total))
        self.assertEqual((told[-1].written, told[-1].total), (total, total))
        self.assertEqual([one.written for one in told], sorted(one.written for one in told))
        self.assertGreaterEqual(told[-1].seconds, told[0].seconds)

    def test_an_exception_in_the_callback_stops_it(self):
        def enough(now):
            raise RuntimeError("enough")

        with self.assertRaisesRegex(RuntimeError, "enough"):
            ckpt_fs.materialize(SOURCE, self.scratch / "out", as_="hf", progress=enough)
        # It may have been done by then; half of it is never there.
        self.assertIn(sorted(os.listdir(self.scratch)), ([], ["out"]))

    def test_notes_go_to_the_logger(self):
        with self.assertLogs("ckpt_fs", "WARNING") as logs:
            ckpt_fs.materialize(FIXTURES / "gpt-tiny" / "pp1_tp1_f16", self.scratch / "out", tp=2)
        self.assertIn("rng_state", "\n".join(logs.output))


class Mounts(Case):
    def test_it_is_there_for_as_long_as_it_is_wanted(self):
        real = self.materialize(SOURCE, "--as", "hf")
        with mounted(SOURCE, as_="hf") as path:
            self.assertIsInstance(path, Path)
            self.assertTrue(is_mounted(path))
            self.assertEqual(same_files(real, path), [])
        self.assertFalse(path.exists())

    def test_also_when_something_goes_wrong(self):
        with self.assertRaisesRegex(RuntimeError, "mine"), mounted(SOURCE, as_="hf") as path:
            raise RuntimeError("mine")
        self.assertFalse(path.exists())

    def test_a_place_that_is_named_stays(self):
        (self.scratch / "tp2pp1").mkdir()
        mount = mounted(SOURCE, self.scratch / "tp2pp1")
        self.assertEqual(os.fspath(mount), str(self.scratch / "tp2pp1"))
        self.assertEqual(len(list(mount.path.glob("iter_*/mp_rank_*"))), 2)
        mount.unmount()
        mount.unmount()
        self.assertEqual((is_mounted(mount.path), os.listdir(mount.path)), (False, []))

    def test_open_files_do_not_keep_it(self):
        """Tensors of safetensors are mappings, and outlive the with statement."""
        with mounted(SOURCE, as_="hf") as path:
            file = open(path / "config.json", "rb")
        with file:
            self.assertFalse(path.exists())
            self.assertTrue(json.loads(file.read()))

    def test_somebody_else_may_take_it_away(self):
        with mounted(SOURCE, as_="hf") as path:
            program("unmount", path)
        self.assertFalse(path.exists())

    def test_what_cannot_be_mounted_leaves_nothing(self):
        with mock.patch("tempfile.tempdir", str(self.scratch)), self.assertRaises(ckpt_fs.LayoutError):
            mounted(SOURCE, tp=3)
        self.assertEqual(os.listdir(self.scratch), [])

    def test_python_that_ends_takes_it_away(self):
        code = "import ckpt_fs, os, sys; m = ckpt_fs.mount(sys.argv[1], as_='hf'); print(m.path)\nif os.fork() == 0: sys.exit()\nos.wait(); assert os.path.ismount(m)"
        mounted(SOURCE, as_="hf").unmount()
        done = subprocess.run([sys.executable, "-c", code, SOURCE], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "python")}, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(os.path.exists(done.stdout.splitlines()[0]))

    def test_in_a_notebook(self):
        """There the streams are no files, and what runs runs in a thread of an event loop."""
        found = []

        def cell():
            with mounted(SOURCE, as_="hf") as path, ckpt_fs.open(SOURCE, as_="hf", framework="bytes") as model:
                ckpt_fs.materialize(SOURCE, self.scratch / "out", as_="hf", progress=found.append)
                found.append((len(os.listdir(path)), len(model.keys())))

        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            self.assertRaises(io.UnsupportedOperation, sys.stdout.fileno)
            thread = threading.Thread(target=cell)
            thread.start()
            thread.join()
        self.assertEqual((out.getvalue(), err.getvalue()), ("", ""))
        self.assertEqual(found[-1], (2, 75))


class Binary(Case):
    def found(self, **environment):
        """What a fresh Python finds, with nothing but these in its environment."""
        code = "import ckpt_fs; print(ckpt_fs.binary())"
        environment = {"PYTHONPATH": str(ROOT / "python"), "PATH": "/usr/bin:/bin", **environment}
        return subprocess.run([self.python, "-c", code], capture_output=True, text=True, env=environment, timeout=60)

    def setUp(self):
        super().setUp()
        # An environment of its own, where nobody has installed anything.
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.scratch / "venv"], check=True, timeout=60)
        self.python = self.scratch / "venv" / "bin" / "python"

    def test_where_it_is_looked_for(self):
        done = self.found()
        self.assertIn("BinaryNotFoundError: the program ckpt-fs is neither in", done.stderr)
        (self.scratch / "path").mkdir()
        os.symlink(binary(), self.scratch / "path" / "ckpt-fs")
        on_path = {"PATH": f"{self.scratch / 'path'}:/usr/bin"}
        self.assertEqual(self.found(**on_path).stdout.strip(), str(self.scratch / "path" / "ckpt-fs"))
        os.symlink(binary(), self.scratch / "venv" / "bin" / "ckpt-fs")
        self.assertEqual(self.found(**on_path).stdout.strip(), str(self.scratch / "venv" / "bin" / "ckpt-fs"))
        self.assertEqual(self.found(CKPT_FS_BIN=binary(), **on_path).stdout.strip(), binary())
        done = self.found(CKPT_FS_BIN="/none", **on_path)
        self.assertIn("CKPT_FS_BIN is /none, which is not a program", done.stderr)


if __name__ == "__main__":
    unittest.main()
