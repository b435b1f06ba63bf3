"""The directory in which the commands of a page run: every checkpoint that pages name, small; places such as /mnt are in it too.

Checkpoints are fixtures, or views of one: `run/` and `src/` are a Llama-like model of megatron-core with 8 layers and 8 heads, saved with
TP 1 and PP 2, after iterations 5 and 10 (`/data/run` too; `/ckpt/run` after 1000, 2000 and 3000); `Llama-3.1-8B/` is the same model as published, with a tokenizer; `fsdp/checkpoint-500/` and
`titan/` are it as the Trainer and torchtitan save it, `dist-run/` as torch_dist; `trained/` is another model with its optimizer; `51B/` and
`102B/` are Yuan-2.0; `InternLM2/` is for docs/families.md.
"""

import contextlib
import functools
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from pages import programs
from support import FIXTURES, ROOT, TIMEOUT, binary, ckpt_fs, detach

LLAMA = FIXTURES / "megatron-tiny" / "untied" / "dist_tp1pp2_first3"
TRAINED = FIXTURES / "mcore-tiny" / "tied" / "tp1pp1_plain"
DIST = FIXTURES / "dist-tiny" / "megatron" / "optim" / "mcore0161_fullre_tp1dp2"
YUAN = FIXTURES / "yuan-tiny" / "pp2b24_tp2_none"

# What a clone has and commands name.
CLONE = ("docs", "deploy", "scripts", "families", "python")
# Sessions: each command by itself, its output and exit code between marks that no output has.
SESSION = """
run() {{ (exit "$last"); eval "$1"; last=$?; printf '\\n\\1%s\\n' "$last"; }}
last=0
{}
"""


def copy(source, target):
    """A copy that can be written to, whatever the modes of the source."""
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    for path in [target, *target.rglob("*")]:
        path.chmod(stat.S_IRWXU if path.is_dir() else stat.S_IRUSR | stat.S_IWUSR)


def tokenizer(where):
    """A tokenizer of whole words, as transformers reads it."""
    words = {f"w{number}": number for number in range(500)}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "w0"}
    parts = {"added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None}
    (where / "tokenizer.json").write_text(json.dumps({"version": "1.0", "truncation": None, "padding": None, **parts, "model": model}))
    (where / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0"}))
    (where / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))


def internlm2(source, target):
    """A Llama under the names of docs/internlm2.toml: q, k and v of a query group beside each other."""
    import numpy
    from safetensors.numpy import load_file, save_file

    config = json.loads((source / "config.json").read_text())
    heads, groups, size = (config[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    names = {
        "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3",
        "mlp.down_proj": "feed_forward.w2",
        "post_attention_layernorm": "ffn_norm",
        "input_layernorm": "attention_norm",
        "embed_tokens": "tok_embeddings",
        "lm_head": "output",
    }
    tensors, out = load_file(source / "model.safetensors"), {}
    for name, tensor in tensors.items():
        if "q_proj" in name:
            q = tensor.reshape(groups, heads // groups * size, -1)
            k, v = (tensors[name.replace("q_proj", part)].reshape(groups, size, -1) for part in ("k_proj", "v_proj"))
            whole = numpy.concatenate([q, k, v], axis=1).reshape(-1, tensor.shape[1])
            out[name.replace("self_attn.q_proj", "attention.wqkv")] = numpy.ascontiguousarray(whole)
        elif "k_proj" not in name and "v_proj" not in name:
            out[functools.reduce(lambda text, pair: text.replace(*pair), names.items(), name)] = tensor
    target.mkdir()
    save_file(out, target / "model.safetensors", {"format": "pt"})
    config.update(model_type="internlm2", architectures=["InternLM2ForCausalLM"], bias=False)
    for key in ("attention_bias", "mlp_bias"):
        del config[key]
    (target / "config.json").write_text(json.dumps(config))


@functools.cache
def checkpoints():
    """What every stage has a copy of, made once; goes away with this process."""
    keep = tempfile.TemporaryDirectory(prefix="ckpt-fs-test-docs-")
    root = Path(keep.name)
    copy(LLAMA, root / "run")
    copy(root / "run" / "iter_0000005", root / "run" / "iter_0000010")
    (root / "run" / "latest_checkpointed_iteration.txt").write_text("10")
    copy(LLAMA, root / "src")
    (root / "long-run").mkdir()
    for iteration in (1000, 2000, 3000):
        copy(root / "run" / "iter_0000005", root / "long-run" / f"iter_{iteration:07}")
    (root / "long-run" / "latest_checkpointed_iteration.txt").write_text("3000")
    copy(TRAINED, root / "trained")
    copy(DIST, root / "dist-run")
    for name in ("51B", "102B"):
        copy(YUAN, root / name)
    model = root / "Llama-3.1-8B"
    ckpt_fs("materialize", LLAMA, model, "--as", "hf")
    tokenizer(model)
    ckpt_fs("materialize", model, root / "fsdp" / "checkpoint-500", "--as", "dcp", "--dcp-layout", "accelerate")
    ckpt_fs("materialize", model, root / "titan", "--as", "dcp", "--dcp-names", "torchtitan")
    for directory in ("fsdp/checkpoint-500", "titan"):
        # Training leaves the tensors alone.
        for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
            (root / directory / name).unlink()
    internlm2(model, root / "InternLM2")
    return keep, root


class Stage:
    """`with Stage() as stage: stage.shell(text)`: what was mounted in it is unmounted at the end."""

    def __enter__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="ckpt-fs-test-docs-"))
        self.home, self.bin = self.directory / "home", self.directory / "bin"
        try:
            _, source = checkpoints()
            shutil.copytree(source, self.home)
            for place in programs.PLACES.split("|"):
                (self.directory / place).mkdir(parents=True)
            for name in CLONE:
                # A command may write into it.
                shutil.copytree(ROOT / name, self.home / name, ignore=shutil.ignore_patterns("__pycache__"))
            (self.home / "tests").symlink_to(ROOT / "tests")
            for place, name in (("data", "run"), ("models", "Llama-3.1-8B")):
                (self.directory / place / name).symlink_to(self.home / name)
            (self.home / "long-run").rename(self.directory / "ckpt" / "run")
            (self.directory / "tmp").mkdir()
            (self.directory / "target").mkdir()
            self.bin.mkdir()
            (self.bin / "ckpt-fs").symlink_to(binary())
            for name in programs.NAMES:
                (self.bin / name).write_text(f"#!/bin/sh\nexec '{sys.executable}' '{programs.__file__}' {name} \"$@\"\n")
                (self.bin / name).chmod(0o755)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with open("/proc/self/mounts") as mounts:
            points = [line.split()[1] for line in mounts if line.split()[1].startswith(f"{self.directory}/")]
        for point in reversed(points):
            with contextlib.suppress(subprocess.TimeoutExpired, AssertionError):
                ckpt_fs("unmount", "--lazy", point, check=False, timeout=20)
        with open("/proc/self/mounts") as mounts:
            points = [line.split()[1] for line in mounts if line.split()[1].startswith(f"{self.directory}/")]
        for point in points:
            detach(point)
        shutil.rmtree(self.directory, ignore_errors=True)

    def here(self, text):
        """Places of a page as they are in the stage."""
        return programs.PLACE.sub(lambda place: f"{self.directory}{place[0]}", text)

    def there(self, text):
        """Places of the stage as a page has them; who runs the test is called root."""
        text = text.replace(f"{self.home}/", "").replace(str(self.home), ".").replace(str(self.directory), "")
        return text.replace(f"only {pwd.getpwuid(os.geteuid()).pw_name} can", "only root can")

    @property
    def environment(self):
        return {
            **os.environ,
            "PATH": f"{self.bin}:{self.directory}/sbin:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "python"),
            "CKPT_FS_BIN": binary(),
            "CKPT_FS_STAGE": str(self.directory),
            "TMPDIR": str(self.directory / "tmp"),
            # What `cargo` (a stand-in) has built is the binary of the tests.
            "CARGO_TARGET_DIR": str(self.directory / "target"),
            "HF_HUB_OFFLINE": "1",
            "LC_ALL": "C.UTF-8",
        }

    def _run(self, words, **more):
        options = {"cwd": self.home, "env": self.environment, "text": True, "timeout": 2 * TIMEOUT, "stdin": subprocess.DEVNULL}
        return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options, **more)

    def shell(self, text):
        """Run a script to its end; (exit code, what it printed)."""
        done = self._run(["bash", "-eo", "pipefail", "-c", self.here(text)])
        return done.returncode, self.there(done.stdout)

    def python(self, text):
        """The same of a program in Python."""
        done = self._run([sys.executable, "-c", self.here(text)])
        return done.returncode, self.there(done.stdout)

    def session(self, commands):
        """Run commands one after the other in one shell; [(exit code, lines printed)] of each."""
        script = "\n".join(f"run {quoted(self.here(command.text))}" for command in commands)
        done = self._run(["bash", "-c", SESSION.format(script)])
        parts = re.split(r"\n\x01(\d+)\n", self.there(done.stdout))
        return [(int(code), lines.splitlines()) for lines, code in zip(parts[::2], parts[1::2])]


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"
