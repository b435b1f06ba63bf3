"""Views as torch_dist through the kernel: the files that `materialize` writes, and torch reads what is in them."""

import unittest
import warnings

from support import FIXTURES, Case, Mount, ckpt_fs, digest, need_torch, run, same_files

DIST = FIXTURES / "dist-tiny" / "megatron"
SOURCES = [FIXTURES / "megatron-tiny" / "untied" / "dist_tp1pp2_first3", DIST / "moe" / "legacy_tp2pp2ep2_etp1", DIST / "mla" / "mcore0161_tp1pp1"]
AS = ("--as", "torch_dist")


class Mounted(Case):
    def test_mounted_and_materialized_files_are_equal(self):
        for source in SOURCES:
            with self.subTest(source=source.name), Mount(source, *AS, "--crc", "exact", "--shard-size", "20kB") as path:
                real = self.materialize(source, *AS, "--shard-size", "20kB")
                self.assertGreater(len(list(real.glob("*/*.distcp"))), 1)
                self.assertEqual(same_files(real, path), [])
                done = ckpt_fs("warmup", path)
                self.assertEqual((done.stdout, done.stderr), ("", ""))
                run("diff", "-r", real, path)

    def test_a_mount_is_a_source(self):
        for source in SOURCES:
            with self.subTest(source=source.name), Mount(source, *AS) as path:
                self.assertEqual(digest(path), digest(source))
                ckpt_fs("verify", path, source)

    def test_a_mount_of_many_layouts_has_it_in_a_directory(self):
        for source in SOURCES:
            with self.subTest(source=source.name), Mount(source, "--crc", "exact", name="many") as path:
                self.assertIn("torch_dist", [entry.name for entry in path.iterdir()])
                self.assertEqual(same_files(self.materialize(source, *AS), path / "torch_dist"), [])
                self.assertFalse((path / "torch_dist" / "tp2pp1").exists())

    def test_a_copy_is_replaced_whole(self):
        source = SOURCES[0]
        several = self.materialize(source, *AS, "--shard-size", "20kB")
        one = self.materialize(source, *AS, name="one")
        ckpt_fs("materialize", source, several, *AS, "--overwrite")
        self.assertEqual(same_files(several, one), [])


class Torch(Case):
    """What needs no Megatron: every tensor is as a rank file of the whole model has it."""

    # matrix: loads: megatron-core: megatron -> torch_dist+optimizer
    def test_torch_reads_what_a_rank_of_everything_has(self):
        torch = need_torch()
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.metadata import TensorStorageMetadata

        source = DIST / "optim" / "legacy_plain_tp2pp2"
        whole = self.materialize(source, "--tp", 1, "--pp", 1)
        file = next(whole.glob("iter_*/mp_rank_00/model_optim_rng.pt"))
        model = torch.load(file, map_location="cpu", weights_only=False)["model"]
        with Mount(source, *AS) as path, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            iteration = next(path.glob("iter_*"))
            found = dcp.FileSystemReader(iteration).read_metadata().state_dict_metadata
            state = {
                key: torch.full(entry.size, torch.nan, dtype=entry.properties.dtype)
                for key, entry in found.items()
                if isinstance(entry, TensorStorageMetadata)
            }
            dcp.load(state, storage_reader=dcp.FileSystemReader(iteration))
        names = {"input_layernorm.weight": "self_attention.linear_qkv.layer_norm_weight", "pre_mlp_layernorm.weight": "mlp.linear_fc1.layer_norm_weight"}
        compared = 0
        for name, tensor in model.items():
            if not isinstance(tensor, torch.Tensor) or not tensor.numel():
                continue
            layer, _, rest = name.removeprefix("decoder.layers.").partition(".")
            in_layers = name.startswith("decoder.layers.")
            key = f"decoder.layers.{names.get(rest, rest)}" if in_layers else name
            loaded = state[key][int(layer)] if in_layers else state[key]
            self.assertTrue(torch.equal(loaded, tensor), name)
            compared += 1
        self.assertGreater(compared, 10)
        for kind in ("fp32_param", "exp_avg", "exp_avg_sq"):
            states = {key: tensor for key, tensor in state.items() if key.startswith(f"optimizer.state.{kind}.")}
            self.assertTrue(states and not any(torch.isnan(tensor).any() for tensor in states.values()), kind)


if __name__ == "__main__":
    unittest.main()
