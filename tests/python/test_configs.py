"""`config.json`: every key that an architecture knows has a rule, every spelling is written, and nothing is read as what it is not.

The judges are the config classes and the logits of transformers 5 and 4.
"""

import importlib.util
import json
import os
import shutil
import sys
import tempfile
import tomllib
import unittest
from pathlib import Path

from hugging_face import make
from support import Case, ckpt_fs, need, need_torch, run
from test_hugging_face import CLOSE, HERE, OLD, judge

FAMILIES = HERE.parents[1] / "families"
KNOWN = ["llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"]


def family(name):
    """The rules for the config of a family, with those that it takes over."""
    rules = tomllib.loads((FAMILIES / "hf" / f"{name}.toml").read_text())
    if "extends" not in rules:
        return rules["config"]
    base = family(rules["extends"])
    for key, value in rules["config"].items():
        base[key] = {**base.get(key, {}), **value} if isinstance(value, dict) else value
    return base


def named(name):
    """The keys that a family names, or that change nothing whatever the family."""
    rules, shared = family(name), tomllib.loads((FAMILIES / "neutral.toml").read_text())
    assert rules["all_keys_of"] == rules["model_type"] == name
    keys = {"model_type", "architectures", "vocab_size", "dtype", "torch_dtype", *shared["neutral"], *shared["always"], *rules["refuse"]}
    for key, rule in rules["keys"].items():
        if not rule.get("any"):
            keys |= {key, *rule.get("or_keys", [])}
    if "rope" in rules:
        keys |= {"rope_theta", "rope_scaling", "rope_parameters"}
    if "expert_layers" in rules:
        keys |= {rules["expert_layers"]["step"], rules["expert_layers"]["dense"]}
    return keys


def in_python(module, *arguments, path=None):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(str(part) for part in (path, HERE) if part)
    return run(sys.executable, "-m", f"hugging_face.{module}", *arguments, env=environment, timeout=600).stdout


class Configs(Case):
    @classmethod
    def setUpClass(cls):
        need_torch()
        need(importlib.util.find_spec("transformers"), "the Python package transformers")
        need((OLD / "transformers").is_dir(), "transformers 4 (scripts/test installs it)")

    def test_every_key_that_an_architecture_knows_has_a_rule(self):
        for path in (None, OLD):
            known = json.loads(in_python("keys", *KNOWN, path=path))
            for name, keys in known.items():
                with self.subTest(model_type=name, transformers=4 if path else 5):
                    # It would notice: a class knows dozens.
                    self.assertGreater(len(keys), 20)
                    self.assertEqual(set(keys) - named(name), set())


class Logits(Case):
    @classmethod
    def setUpClass(cls):
        cls.torch = need_torch()
        need(importlib.util.find_spec("transformers"), "the Python package transformers")
        need((OLD / "transformers").is_dir(), "transformers 4 (scripts/test installs it)")
        from hugging_face import variants

        cls.variants = variants
        cls.work = Path(tempfile.mkdtemp(prefix="ckpt-fs-configs-"))
        cls.addClassCleanup(shutil.rmtree, cls.work, ignore_errors=True)
        in_python("variants", cls.work)

    def logits(self, directories, version):
        """{tag: logits} of directories, each with the name of the model it holds. One process for all: what costs is importing torch."""
        out = {tag: self.work / f"logits_{version}_{number}.pt" for number, tag in enumerate(directories)}
        jobs = [(at, self.work / name / "tokens.pt", out[tag]) for tag, (name, at) in directories.items()]
        self.assertTrue(judge("logits", jobs, OLD if version == 4 else None).startswith(f"{version}."))
        return {tag: self.torch.load(path) for tag, path in out.items()}

    def compare(self, views):
        """The views {tag: (model, directory)} give the logits that the model has itself in the version that wrote it, in both versions."""
        own = {("own", name): (name, self.work / name / "new") for name in sorted({name for name, _ in views.values()})}
        found = {5: self.logits({**own, **views}, 5), 4: self.logits(views, 4)}
        for version, logits in found.items():
            for tag, (name, _) in views.items():
                with self.subTest(view=tag, transformers=version):
                    difference = (logits[tag] - found[5]["own", name]).abs().max().item()
                    self.assertLessEqual(difference, CLOSE)

    def test_rotary_embeddings_of_every_type_are_the_same_in_both_versions(self):
        views = {}
        for spelling in ("new", "old"):
            for name in self.variants.STRETCHED:
                views[name, spelling] = (name, self.work / name / f"view_{spelling}")
                ckpt_fs("materialize", self.work / name / spelling, views[name, spelling][1], "--as", "hf")
        self.compare(views)

    def test_what_is_read_as_another_architecture_computes_the_same_or_is_refused(self):
        """Every architecture as each of three others: what is not refused gives the logits that it has itself."""
        taken, refused = {}, {}
        for name in self.variants.NEARLY:
            said = ckpt_fs("inspect", self.work / name / "new", check=False)
            self.assertEqual(said.returncode, 4, said.stderr)
            for other in ("llama", "qwen2", "mistral"):
                view = self.work / name / f"as_{other}"
                done = ckpt_fs("materialize", self.work / name / "new", view, "--as", "hf", "--hf-model-type", other, check=False)
                if done.returncode == 0:
                    taken[name, other] = (name, view)
                else:
                    refused[name, other] = done.stderr
        self.assertEqual(sorted(taken), [("ministral", "mistral"), ("seed_oss", "qwen2")], refused)
        self.compare(taken)
        for name, key in {
            "granite": "attention_multiplier", "smollm3": "no_rope_layers", "ernie4_5": "use_bias", "helium": "pairs of neighbours",
            "arcee": "hidden_act", "gemma": "hidden_act", "stablelm": "layer_norm_eps", "ministral": "layer_types",
        }.items():
            with self.subTest(model=name):
                self.assertIn(key, refused[name, "llama"])

    def test_configs_as_version_4_writes_them_are_refused_too(self):
        matters = {"granite": "attention_multiplier", "smollm3": "no_rope_layers", "ernie4_5": "use_bias"}
        wanted = {name: (kind, {**make.COMMON, **own}) for name, (kind, own) in self.variants.NEARLY.items() if name in matters}
        configs = json.loads(in_python("written", json.dumps(wanted), path=OLD))
        for name, key in matters.items():
            self.assertTrue(configs[name]["transformers_version"].startswith("4."))
            source = self.work / name / "by4"
            shutil.copytree(self.work / name / "new", source)
            (source / "config.json").write_text(json.dumps(configs[name]))
            with self.subTest(model=name):
                plain = ckpt_fs("inspect", source, check=False)
                self.assertEqual(plain.returncode, 4, plain.stderr)
                self.assertNotIn("--hf-model-type", plain.stderr)
                forced = ckpt_fs("ls", source, "--as", "hf", "--hf-model-type", "llama", check=False)
                self.assertEqual(forced.returncode, 4, forced.stderr)
                self.assertIn(key, forced.stderr)


if __name__ == "__main__":
    unittest.main()
