"""Logits as the judge: transformers 5 and 4 load views through the kernel, megatron-core loads the rank files made of a model.

Models of every architecture are made by transformers itself; what it computes with its own files is what every view
must give.
"""

import json
import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

from hugging_face import make
from support import Case, Mount, ckpt_fs, need, need_torch, run

HERE = Path(__file__).parent
NAMES = list(make.MODELS)
# What sums in another order may differ by, in logits of around 10.
CLOSE = 5e-5
OLD = Path(os.environ.get("CKPT_FS_TRANSFORMERS4", HERE.parents[1] / ".venv" / "transformers4"))


def judge(module, jobs, path=None):
    """Run a judge in a process of its own, once for all jobs; `path` is put in front of what Python imports from."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([[str(part) for part in job] for job in jobs], file)
        file.flush()
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(str(part) for part in (path, HERE) if part)
        return run(sys.executable, "-m", f"hugging_face.{module}", file.name, env=environment, timeout=600).stdout


class HuggingFace(Case):
    @classmethod
    def setUpClass(cls):
        cls.torch = need_torch()
        need(__import__("importlib.util").util.find_spec("transformers"), "the Python package transformers")
        need((OLD / "transformers").is_dir(), "transformers 4 (scripts/test installs it)")
        cls.work = Path(tempfile.mkdtemp(prefix="ckpt-fs-hf-"))
        cls.addClassCleanup(shutil.rmtree, cls.work, ignore_errors=True)
        environment = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
        run(sys.executable, "-m", "hugging_face.make", cls.work, env=environment, timeout=600)
        # Version 4 does not understand what version 5 saves, so only what it makes of views can be looked at.
        cls.wanted = cls.logits("logits", "single")

    @classmethod
    def logits(cls, module, where, version=5):
        """{model: logits} of what lies at `where` in each model's directory, or of the directories of a dictionary."""
        of = where if isinstance(where, dict) else {name: cls.work / name / where for name in NAMES}
        out = {name: cls.work / name / "logits.pt" for name in of}
        jobs = [(directory, cls.work / name / "tokens.pt", out[name]) for name, directory in of.items()]
        said = judge(module, jobs, OLD if version == 4 else None)
        if module == "logits":
            assert said.startswith(f"{version}."), said
        return {name: cls.torch.load(path) for name, path in out.items()}

    def same(self, found, most, what):
        for name in found:
            difference = (found[name] - self.wanted[name]).abs().max().item()
            with self.subTest(model=name, what=what):
                self.assertLessEqual(difference, most)

    # matrix: loads: MODELS: hf -> hf
    def test_a_view_of_a_model_is_the_model(self):
        """A model in several files, mounted as one of its own kind: both versions of transformers load it as well as the original."""
        for version in (5, 4):
            mounts = {name: Mount(self.work / name / "sharded", "--as", "hf") for name in NAMES}
            with Mounts(mounts) as at:
                found = self.logits("logits", at, version)
            self.same(found, 0 if version == 5 else CLOSE, f"transformers {version}")

    def test_a_model_saved_as_transformers_5_has_it_in_memory(self):
        """Views have the names that every version reads, and rank files made of it are those made of the model as it is published."""
        for version in (5, 4):
            mounts = {name: Mount(self.work / name / "memory", "--as", "hf") for name in NAMES}
            with Mounts(mounts) as at:
                found = self.logits("logits", at, version)
            self.same(found, 0 if version == 5 else CLOSE, f"transformers {version}")
        for name in NAMES:
            with self.subTest(model=name):
                ckpt_fs("verify", self.work / name / "memory", self.work / name / "single")
                out = [self.work / name / f"rank_{where}" for where in ("memory", "single")]
                for where, to in zip(("memory", "single"), out):
                    ckpt_fs("materialize", self.work / name / where, to, "--as", "megatron", "--tp", 2, "--pp", 3)
                files = [sorted(path.relative_to(to) for path in to.rglob("*.pt")) for to in out]
                self.assertEqual(len(files[0]), 6)
                self.assertEqual(files[0], files[1])
                for file in files[0]:
                    self.assertEqual((out[0] / file).read_bytes(), (out[1] / file).read_bytes(), file)

    # matrix: loads: MODELS: megatron -> hf
    def test_from_training_back_to_transformers(self):
        """Rank files of a TP2 PP3 run, mounted as a model directory: config.json is made of args alone."""
        for name in NAMES:
            more = ["--ep", 2] if make.MODELS[name][1].get("num_experts_per_tok") else []
            ckpt_fs("materialize", self.work / name / "single", self.work / name / "trained", "--as", "megatron",
                    "--tp", 2, "--pp", 3, *more)
        for version in (5, 4):
            mounts = {name: Mount(self.work / name / "trained", "--as", "hf") for name in NAMES}
            with Mounts(mounts) as at:
                found = self.logits("logits", at, version)
            self.same(found, 0 if version == 5 else CLOSE, f"transformers {version}")

    # matrix: loads: MODELS: hf -> megatron
    def test_megatron_core_computes_the_same(self):
        names = {name: Mount(self.work / name / "single", "--as", "megatron", "--megatron-spec", "local", "--tp", 1) for name in NAMES}
        with Mounts(names) as at:
            found = self.logits("megatron", at)
        self.same(found, CLOSE, "megatron-core")

    def test_what_lies_beside_the_weights_is_passed_through(self):
        source = self.work / "llama" / "single"
        with Mount(source) as at:
            self.assertEqual(sorted(path.name for path in at.iterdir()), ["dcp", "hf", "megatron", "safetensors", "sglang", "torch_dist", "vllm"])
            names = sorted(path.name for path in (at / "hf").iterdir())
            self.assertEqual(names, ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"])
            for name in ("tokenizer.json", "generation_config.json"):
                self.assertEqual((at / "hf" / name).read_bytes(), (source / name).read_bytes())
            self.assertTrue((at / "vllm" / "tp4" / "tokenizer.json").exists())
            self.assertTrue((at / "megatron" / "tp4pp1" / "release" / "mp_rank_03").is_dir())

    def test_a_model_is_not_hidden_by_a_mount(self):
        done = ckpt_fs("mount", self.work / "llama" / "single", self.work / "qwen2" / "single", check=False)
        self.assertEqual(done.returncode, 7, done.stderr)
        self.assertIn("would be hidden by the mount", done.stderr)

    def test_the_safetensors_library_reads_every_view(self):
        """Names, shapes, numbers and metadata, by the library that loaders use; and the file is what it would write itself."""
        from safetensors import safe_open
        from safetensors.torch import load_file, save

        for name in NAMES:
            with self.subTest(model=name), Mount(self.work / name / "sharded", "--as", "hf") as at:
                ours, theirs = load_file(at / "model.safetensors"), load_file(self.work / name / "single" / "model.safetensors")
                self.assertEqual(ours.keys(), theirs.keys())
                for key in ours:
                    self.assertEqual(ours[key].dtype, theirs[key].dtype)
                    self.assertTrue(self.torch.equal(ours[key], theirs[key]), key)
                with safe_open(at / "model.safetensors", "pt") as file:
                    self.assertEqual(file.metadata(), {"format": "pt"})
                written = save(theirs, {"format": "pt"})
                header = int.from_bytes(written[:8], "little")
                view = (at / "model.safetensors").read_bytes()
                length = int.from_bytes(view[:8], "little")
                self.assertEqual(view[8 : 8 + length].rstrip(b" "), written[8 : 8 + header].rstrip(b" "))
                self.assertEqual((8 + length) % 4096, 0)
                self.assertEqual(view[8 + length :], written[8 + header :])


class Mounts:
    """Several mounts at a time."""

    def __init__(self, mounts):
        self.mounts, self.open = mounts, []

    def __enter__(self):
        at = {}
        try:
            for name, mount in self.mounts.items():
                at[name] = mount.__enter__()
                self.open.append(mount)
        except BaseException:
            self.__exit__()
            raise
        return at

    def __exit__(self, *_):
        for mount in self.open:
            mount.__exit__()


if __name__ == "__main__":
    unittest.main()
