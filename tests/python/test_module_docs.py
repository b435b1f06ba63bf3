"""docs/python.md: every block in it runs. And what the package promises of itself: types, old syntax, no imports that it does not need."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import unittest
from contextlib import redirect_stdout
from io import StringIO

from support import FIXTURES, ROOT, TIMEOUT, Case, binary, module, need, need_torch

ckpt_fs = module()
PACKAGE = ROOT / "python" / "ckpt_fs"
SOURCE = FIXTURES / "megatron-tiny" / "untied" / "dist_tp1pp2_first3"


class Document(Case):
    def test_every_block_runs(self):
        need_torch()
        for name in ("safetensors", "fsspec", "pandas"):
            need(importlib.util.find_spec(name), f"the Python package {name}")
        (self.scratch / "run").symlink_to(SOURCE)
        os.symlink(binary(), self.scratch / "ckpt-fs")
        environment = {**os.environ, "PATH": f"{self.scratch}:{os.environ['PATH']}"}
        text = (ROOT / "docs" / "python.md").read_text().replace("/ckpt/", f"{self.scratch}/")
        blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
        self.assertEqual({kind for kind, _ in blocks}, {"python", "sh", "text"})
        self.assertGreater(len(blocks), 12)
        names = {"__name__": "docs"}
        try:
            ckpt_fs.mount(SOURCE, as_="hf").unmount()
        except ckpt_fs.FuseError as error:
            need(False, f"FUSE ({error})")
        for kind, block in blocks:
            with self.subTest(block=block.replace(f"{self.scratch}/", "/ckpt/")):
                if kind == "python":
                    with redirect_stdout(StringIO()):
                        exec(compile(block, "docs/python.md", "exec"), names)
                elif kind == "sh":
                    done = subprocess.run(["bash", "-eo", "pipefail", "-c", block], env=environment, capture_output=True, timeout=TIMEOUT)
                    self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(names["state"]["model.norm.weight"].any())
        self.assertEqual(names["config"]["hidden_size"], 64)

    def test_it_names_every_exception(self):
        text = (ROOT / "docs" / "python.md").read_text()
        errors = [name for name, kind in vars(ckpt_fs).items() if isinstance(kind, type) and issubclass(kind, Exception)]
        self.assertEqual([name for name in errors if name not in text], [])

    def test_it_is_no_wider_than_a_page(self):
        lines = (ROOT / "docs" / "python.md").read_text().splitlines()
        self.assertEqual([line for line in lines if len(line) > 100 and not line.startswith("|") and "storage_options" not in line], [])


class Package(Case):
    def files(self):
        return sorted(PACKAGE.glob("*.py"))

    def test_it_is_typed(self):
        need(importlib.util.find_spec("mypy"), "the Python package mypy")
        command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", self.scratch / "cache", "ckpt_fs"]
        done = subprocess.run(command, cwd=ROOT / "python", capture_output=True, text=True, timeout=5 * TIMEOUT)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertTrue((PACKAGE / "py.typed").exists())

    def test_python_3_8_understands_it(self):
        for file in self.files():
            tree = ast.parse(file.read_text(), str(file), feature_version=(3, 8))
            # What 3.8 takes in an annotation it does not take when it evaluates one.
            lazy = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
            self.assertTrue(lazy or file.name in ("__init__.py", "_version.py"), file)

    def test_files_are_small_and_say_what_they_are(self):
        for file in self.files():
            self.assertIsNotNone(ast.get_docstring(ast.parse(file.read_text())), file)
            self.assertLess(len(file.read_text().splitlines()), 260, file)

    def test_importing_it_needs_nothing_else(self):
        code = "import sys, ckpt_fs; print([name for name in ('torch', 'numpy', 'fsspec', 'safetensors', 'typing_extensions') if name in sys.modules])"
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=TIMEOUT)
        self.assertEqual((done.stdout.strip(), done.stderr), ("[]", ""))

    def test_everything_public_is_explained(self):
        for name in ckpt_fs.__all__:
            self.assertTrue(name == "__version__" or getattr(ckpt_fs, name).__doc__, name)


if __name__ == "__main__":
    unittest.main()
