"""Views as torch DCP through the kernel: torch loads them by key, and makes the dicts of them that the run had."""

import unittest
import warnings

from support import FIXTURES, Case, Mount, ckpt_fs, digest, need_torch, run, same_files

DCP = FIXTURES / "dist-tiny" / "dcp"
HF = DCP / "llama_untied" / "hf"
FSDP, TEMPLATE = DCP / "llama_tied_bf16" / "fsdp2_n3", ("--template", DCP / "llama_tied_bf16" / "hf")
AS = ("--as", "dcp")


class Mounted(Case):
    def test_mounted_and_materialized_files_are_equal(self):
        for flags in [(), ("--shard-size", "20kB"), ("--dcp-layout", "accelerate"), ("--dcp-names", "torchtitan")]:
            with self.subTest(flags=flags), Mount(FSDP, *AS, *TEMPLATE, *flags, "--crc", "exact") as path:
                real = self.materialize(FSDP, *AS, *TEMPLATE, *flags)
                self.assertEqual(same_files(real, path), [])
                done = ckpt_fs("warmup", path)
                self.assertEqual((done.stdout, done.stderr), ("", ""))
                run("diff", "-r", real, path)

    def test_a_mount_is_a_source(self):
        with Mount(FSDP, *AS, *TEMPLATE) as path:
            self.assertEqual(digest(path), digest(FSDP, *TEMPLATE))
            ckpt_fs("verify", path, FSDP, *TEMPLATE)

    def test_a_mount_of_many_layouts_has_it_in_a_directory(self):
        with Mount(HF, "--crc", "exact", name="many") as path:
            self.assertIn("dcp", [entry.name for entry in path.iterdir()])
            self.assertEqual(same_files(self.materialize(HF, *AS), path / "dcp"), [])

    def test_a_copy_is_replaced_whole(self):
        several = self.materialize(HF, *AS, "--shard-size", "20kB")
        one = self.materialize(HF, *AS, name="one")
        ckpt_fs("materialize", HF, several, *AS, "--overwrite")
        self.assertEqual(same_files(several, one), [])


class Torch(Case):
    def setUp(self):
        super().setUp()
        self.torch = need_torch()
        caught = warnings.catch_warnings()
        caught.__enter__()
        self.addCleanup(caught.__exit__, None, None, None)
        warnings.simplefilter("ignore")

    def nested(self, path):
        from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

        file = self.scratch / "nested.pt"
        dcp_to_torch_save(path, file)
        return self.torch.load(file, map_location="cpu", weights_only=False)

    def same(self, one, other, where=""):
        if isinstance(one, dict):
            for key in one:
                self.same(one[key], other[key], f"{where}/{key}")
        elif isinstance(one, self.torch.Tensor):
            self.assertTrue(one.dtype == other.dtype and self.torch.equal(one, other), where)
        else:
            self.assertEqual(one, other, where)

    def test_dicts_are_those_of_the_run(self):
        wanted = self.nested(FSDP)
        del wanted["train"]
        with Mount(FSDP, *AS, *TEMPLATE) as path:
            found = self.nested(path)
        self.assertEqual(found.keys(), wanted.keys())
        self.assertEqual(found["optim"]["state"].keys(), wanted["optim"]["state"].keys())
        self.same(wanted, found)

    # matrix: loads: llama: hf -> dcp
    def test_a_model_loads_its_keys(self):
        import torch.distributed.checkpoint as dcp
        from safetensors.torch import load_file

        weights = load_file(HF / "model.safetensors")
        with Mount(HF, *AS, "--shard-size", "20kB") as path:
            found = {"model": {name: self.torch.full_like(weight, float("nan")) for name, weight in weights.items()}}
            dcp.load(found, checkpoint_id=path, no_dist=True)
        self.same(weights, found["model"])

    # matrix: loads: llama: dcp -> dcp+optimizer
    def test_an_optimizer_goes_on_where_it_was(self):
        """State and settings by the names of the model, as `set_state_dict` takes them: the next step is the run's own."""
        from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
        import torch.distributed.checkpoint as dcp
        from transformers import AutoConfig, AutoModelForCausalLM

        def step_from(path):
            self.torch.manual_seed(1)
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TEMPLATE[1])).to(self.torch.bfloat16)
            optimizer = self.torch.optim.AdamW(model.parameters(), lr=1.0)
            weights, state = get_state_dict(model, optimizer)
            both = {"model": weights, "optim": state}
            dcp.load(both, checkpoint_id=path, no_dist=True)
            set_state_dict(model, optimizer, model_state_dict=both["model"], optim_state_dict=both["optim"])
            model(self.torch.arange(12)[None], labels=self.torch.arange(12)[None]).loss.backward()
            optimizer.step()
            return {name: weight.detach().clone() for name, weight in model.named_parameters()}

        wanted = step_from(FSDP)
        with Mount(FSDP, *AS, *TEMPLATE) as path:
            self.same(wanted, step_from(path))


if __name__ == "__main__":
    unittest.main()
