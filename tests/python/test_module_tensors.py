"""ckpt_fs.open against safetensors and torch on materialized files: names, numbers, slices and errors."""

import importlib.util
import pickle
import unittest

from support import FIXTURES, Case, module, need, need_torch

ckpt_fs = module()
SOURCE = FIXTURES / "megatron-tiny" / "untied" / "dist_tp1pp2_first3"
#: bf16, and names of another family.
HALF = FIXTURES / "dist-tiny" / "dcp" / "llama_tied_bf16" / "hf"
OPTIMIZER = FIXTURES / "mcore-tiny" / "moe" / "tp1pp2vpp2ep2_dist"


class Tensors(Case):
    @classmethod
    def setUpClass(cls):
        cls.torch = need_torch()
        need(importlib.util.find_spec("safetensors"), "the Python package safetensors")

    def views(self):
        """(flags, keywords, file) of views whose files are safetensors."""
        yield ["--as", "hf"], {"as_": "hf"}, "model.safetensors"
        for rank in range(4):
            yield ["--as", "vllm", "--tp", 4], {"as_": "vllm", "tp": 4, "rank": rank}, f"model-rank-{rank}-part-0.safetensors"
        yield ["--as", "sglang", "--tp", 2], {"as_": "sglang", "tp": 2, "rank": {"tp": 1}}, "model-rank-1-part-0.safetensors"
        flags = ["--as", "safetensors", "--tp", 2, "--pp", 2]
        yield flags, {"as_": "safetensors", "tp": 2, "pp": 2, "rank": {"tp": 1, "pp": 1}}, "mp_rank_01_001.safetensors"

    def test_as_safetensors_has_it(self):
        """Names and their order, metadata, shapes, types and every number, for torch and for numpy."""
        from safetensors import safe_open

        for number, (flags, keywords, file) in enumerate(self.views()):
            real = next(self.materialize(SOURCE, *flags, name=f"out{number}").rglob(file))
            for framework, same in (("pt", self.torch.equal), ("np", lambda a, b: a.dtype == b.dtype and (a == b).all())):
                with self.subTest(view=keywords, framework=framework):
                    with safe_open(real, framework) as wanted, ckpt_fs.open(SOURCE, framework=framework, **keywords) as found:
                        self.assertEqual(found.keys(), list(wanted.keys()))
                        self.assertEqual(found.offset_keys(), list(wanted.offset_keys()))
                        self.assertEqual(found.metadata(), wanted.metadata())
                        for name in found.keys():
                            self.assertTrue(same(found.get_tensor(name), wanted.get_tensor(name)), name)
                            ours, theirs = found.get_slice(name), wanted.get_slice(name)
                            self.assertEqual((ours.get_shape(), ours.get_dtype()), (theirs.get_shape(), theirs.get_dtype()))

    def test_shards_are_one_model(self):
        from safetensors.torch import load_file

        flags = ["--as", "hf", "--shard-size", "300kB"]
        real = self.materialize(SOURCE, *flags)
        wanted = {name: tensor for file in sorted(real.glob("*.safetensors")) for name, tensor in load_file(file).items()}
        self.assertGreater(len(list(real.glob("*.safetensors"))), 2)
        with ckpt_fs.open(str(SOURCE), as_="hf", shard_size="300kB") as found:
            self.assertEqual(found.keys(), sorted(wanted))
            self.assertTrue(all(self.torch.equal(found.get_tensor(name), wanted[name]) for name in wanted))

    def test_slices_are_those_of_the_tensor(self):
        """Whatever torch or numpy makes of an index, it makes here; so are its errors."""
        name = "model.layers.0.self_attn.q_proj.weight"
        for framework in ("pt", "np"):
            with ckpt_fs.open(SOURCE, as_="hf", framework=framework) as model:
                whole, part = model.get_tensor(name), model.get_slice(name)
                indices = [0, -1, 63, slice(None), slice(3, 9), slice(-5, None), slice(9, 3), slice(60, 99), slice(1, 50, 7), slice(99, 100)]
                indices += [..., None, (), (3,), (3, 5), (slice(2, 4), 5), (slice(2, 9, 2), slice(1, 3)), (..., 2), (0, ...), (0, slice(5, 7))]
                indices += [(None, 3), (slice(None), None, 3), [0, 5, 5], (slice(None), [1, 2]), (3, [1, 2]), True, ([0, 1], [2, 3]), (slice(5, 7), ..., None)]
                for index in indices:
                    with self.subTest(framework=framework, index=index):
                        found, wanted = part[index], whole[index]
                        self.assertEqual(tuple(found.shape), tuple(wanted.shape))
                        self.assertTrue(bool((found == wanted).all()))
                for index in (64, -65, (0, 64), (0, 0, 0), "a", 1.5):
                    with self.subTest(framework=framework, index=index):
                        self.assertRaises((IndexError, TypeError, ValueError), lambda: whole[index])
                        self.assertRaises((IndexError, TypeError, ValueError), lambda: part[index])

    def test_a_slice_reads_no_more_than_its_rows(self):
        with ckpt_fs.open(SOURCE, as_="hf", framework="bytes") as model:
            part = model.get_slice("lm_head.weight")
            self.assertEqual((part.get_shape(), part.get_dtype(), len(part)), ([503, 64], "F32", 503))
            whole = model.get_bytes("lm_head.weight")
            asked = []
            fill = model._fill
            model._fill = lambda file, offset, view: (asked.append(len(view)), fill(file, offset, view))
            self.assertEqual(part[3:5], whole[3 * 256 : 5 * 256])
            self.assertEqual(part[7, 2:4], whole[7 * 256 + 8 : 7 * 256 + 16])
            self.assertEqual(asked, [512, 8])

    def test_half_precision(self):
        from safetensors import safe_open

        with ckpt_fs.open(HALF, as_="hf") as found, safe_open(HALF / "model.safetensors", "pt") as wanted:
            names = [name for name in wanted.keys() if name in found.keys()]
            self.assertTrue(names)
            for name in names:
                self.assertEqual(found.get_tensor(name).dtype, self.torch.bfloat16)
                self.assertTrue(self.torch.equal(found.get_tensor(name), wanted.get_tensor(name)))
        with ckpt_fs.open(HALF, as_="hf", framework="np") as model:
            if importlib.util.find_spec("ml_dtypes"):
                self.assertEqual(str(model.get_tensor(names[0]).dtype), "bfloat16")
            else:
                with self.assertRaisesRegex(ckpt_fs.UsageError, "numpy has no bfloat16.*'pt'"):
                    model.get_tensor(names[0])
            self.assertEqual(len(model.get_bytes(names[0])), len(model.get_slice(names[0])) * 2 * (model.get_slice(names[0]).get_shape() + [1])[1])

    def test_rank_files_of_megatron(self):
        """By their path in the file, with the optimizer's; every number is what torch loads."""
        real = self.materialize(OPTIMIZER)
        file = next(real.rglob("mp_rank_00_001_001"))
        loaded = self.torch.load(file / "model_optim_rng.pt", weights_only=False)
        with ckpt_fs.open(OPTIMIZER, rank={"pp": 1, "ep": 1}) as rank:
            plain = [name for name in rank.keys() if not name.startswith("optimizer/")]
            self.assertTrue(any(name.startswith("optimizer/") for name in rank.keys()))
            wanted = {(key, name): tensor for key in ("model0", "model1") for name, tensor in loaded[key].items() if isinstance(tensor, self.torch.Tensor)}
            self.assertEqual(len(plain), len(wanted))
            for (key, name), tensor in wanted.items():
                self.assertTrue(self.torch.equal(rank.get_tensor(f"{key}/{name}"), tensor), name)

    def test_bytes_go_where_they_are_wanted(self):
        name = "model.embed_tokens.weight"
        with ckpt_fs.open(SOURCE, as_="hf", framework="bytes") as model:
            wanted = model.get_bytes(name)
            self.assertEqual(model.get_tensor(name), wanted)
            memory = self.torch.empty(model.get_slice(name).get_shape())
            model.read_into(name, memory.numpy())
            self.assertEqual(memory.numpy().tobytes(), bytes(wanted))
            self.assertRaisesRegex(ckpt_fs.UsageError, "128768 bytes", model.read_into, name, bytearray(5))
        with ckpt_fs.open(SOURCE, as_="hf", device="meta") as model:
            self.assertEqual(model.get_tensor(name).device.type, "meta")

    def test_what_there_is_not(self):
        with ckpt_fs.open(SOURCE, as_="hf") as model:
            for what in (model.get_tensor, model.get_slice, model.get_bytes):
                with self.assertRaisesRegex(ckpt_fs.TensorNotFoundError, "no tensor none in model.safetensors"):
                    what("none")
            self.assertRaises(KeyError, model.get_tensor, "none")
        # Closed: what was found stays, what must be read does not.
        self.assertRaisesRegex(ckpt_fs.CkptFsError, "closed", model.get_tensor, "lm_head.weight")
        for keywords, kind, words in (
            ({"as_": "vllm", "tp": 4}, ckpt_fs.UsageError, "which rank.*tp 0 to 3"),
            ({"as_": "vllm", "tp": 4, "rank": 4}, ckpt_fs.UsageError, "no rank"),
            ({"as_": "megatron", "tp": 2, "pp": 2, "rank": 1}, ckpt_fs.UsageError, "which rank.*pp 0 to 1"),
            ({"as_": "hf", "rank": 1}, ckpt_fs.UsageError, "no rank"),
            ({"as_": "torch_dist"}, ckpt_fs.UnsupportedError, "in pieces.*ckpt://as=torch_dist/"),
            ({"as_": "hf", "framework": "tf"}, ckpt_fs.UsageError, "framework"),
            ({"tp": 3}, ckpt_fs.LayoutError, "possible: 1, 2, 4, 8"),
            ({"no_such_option": 1}, ckpt_fs.UsageError, "no-such-option"),
        ):
            with self.subTest(keywords), self.assertRaisesRegex(kind, words):
                ckpt_fs.open(SOURCE, **keywords)

    def test_pickled_it_opens_again(self):
        with ckpt_fs.open(SOURCE, as_="vllm", tp=2, rank=1) as model, pickle.loads(pickle.dumps(model)) as again:
            self.assertEqual(model.keys(), again.keys())
            self.assertTrue(self.torch.equal(model.get_tensor("lm_head.weight"), again.get_tensor("lm_head.weight")))


if __name__ == "__main__":
    unittest.main()
