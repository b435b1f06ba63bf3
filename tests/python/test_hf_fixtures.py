"""Every pair of formats of one model, tensor for tensor: the full fixture set has each as other people's code wrote it.

Only with CKPT_FS_FIXTURES: the files are too large for this repository. test_hugging_face.py has the same kinds of files,
made on the spot.
"""

import os
import re
import unittest
from pathlib import Path

from support import Case, Mount, ckpt_fs, need_torch

FULL = Path(os.environ.get("CKPT_FS_FIXTURES", "/nowhere")) / "hf-tiny"


def flags(name):
    """mcore_tp2pp2ep2_etp1 as flags of a layout."""
    sizes = dict(re.findall(r"(etp|tp|pp|ep)(\d+)", name))
    return [part for size, number in sizes.items() for part in (f"--{size}", number)]


@unittest.skipUnless(FULL.is_dir(), "needs the full fixture set (CKPT_FS_FIXTURES)")
class Pairs(Case):
    def setUp(self):
        super().setUp()
        self.torch = need_torch()

    def weights(self, directory, pattern="*.safetensors"):
        from safetensors.torch import load_file

        return {name: tensor for file in directory.glob(pattern) for name, tensor in load_file(file).items()}

    def tensors(self, file):
        """The weights of a rank file; what is not one holds nothing here."""
        model = self.torch.load(file, weights_only=False)["model"]
        return {name: value for name, value in model.items() if not name.endswith("_extra_state")}

    def rank_files(self, directory):
        iteration = next(path for path in directory.iterdir() if path.is_dir())
        return {
            file.parent.name: self.tensors(file)
            for file in iteration.glob("*/model_optim_rng.pt")
        }

    def same(self, found, wanted):
        self.assertEqual(found.keys(), wanted.keys())
        for name in wanted:
            self.assertEqual(found[name].dtype, wanted[name].dtype, name)
            self.assertTrue(self.torch.equal(found[name], wanted[name]), name)

    # matrix: elsewhere: llama mixtral qwen2 qwen3_moe: hf megatron safetensors -> hf megatron
    # matrix: elsewhere: llama qwen2: hf megatron safetensors -> vllm
    def test_every_pair(self):
        for model in sorted(FULL.iterdir()):
            sources = [path for path in sorted(model.iterdir()) if path.name.startswith(("hf_s", "mcore"))]
            whole = self.weights(next(path for path in sources if path.name.startswith("hf_s")))
            ranks = self.materialize(sources[0], "--as", "safetensors", name=f"{model.name}-ranks")
            for source in [*sources, ranks]:
                with self.subTest(source=str(source), target="hf"), Mount(source, "--as", "hf") as view:
                    self.same(self.weights(view), whole)
                for target in (path for path in sources if path.name.startswith("mcore")):
                    options = ["--as", "megatron", "--megatron-spec", "local", "--make-vocab-size-divisible-by", 64]
                    with self.subTest(source=str(source), target=target.name):
                        out = self.materialize(source, *options, *flags(target.name))
                        found = self.rank_files(out)
                        for rank, tensors in self.rank_files(target).items():
                            self.same(found[rank], tensors)
                if (model / "vllm_tp2").is_dir():
                    with self.subTest(source=str(source), target="vllm"), Mount(source, "--as", "vllm", "--tp", 2) as view:
                        for rank in range(2):
                            pattern = f"model-rank-{rank}-part-*.safetensors"
                            self.same(self.weights(view, pattern), self.weights(model / "vllm_tp2", pattern))

    def test_there_and_back_is_the_identity(self):
        for model in sorted(FULL.iterdir()):
            source = next(path for path in sorted(model.iterdir()) if path.name.startswith("hf_s"))
            there = self.materialize(source, "--as", "megatron", "--tp", 2, "--pp", 2, name=f"{model.name}-there")
            back = self.materialize(there, "--as", "hf", name=f"{model.name}-back")
            self.same(self.weights(back), self.weights(source))
            self.assertIn("identical", ckpt_fs("verify", back, source).stdout)


if __name__ == "__main__":
    unittest.main()
