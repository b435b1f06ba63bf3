"""Files that torch can write and training seldom does: any view of them equals torch's own slicing."""

import unittest
import zipfile

from support import FIXTURES, Case, Mount, ckpt_fs, digest, expected, manifest, need_torch

LAYOUTS = ((1, [4]), (2, [1, 3]), (4, [2, 2]), (1, [1, 1, 1, 1]), (2, [4]))


class Edges(Case):
    def setUp(self):
        super().setUp()
        self.torch = need_torch()
        import corelike

        self.core = corelike

    def check(self, model, root, tp, cut):
        """Every rank of a checkpoint directory against torch's slicing of the model."""
        for at in range(len(cut)):
            for rank in range(tp):
                stage = f"_{at:03d}" if len(cut) > 1 else ""
                path = root / "iter_0000007" / f"mp_rank_{rank:02d}{stage}" / "model_optim_rng.pt"
                state = self.torch.load(path, weights_only=False)
                wanted = model.expected(tp, cut, rank, at)
                self.assertEqual(list(state["model"]), list(wanted))
                self.assertEqual(state["args"].padded_vocab_size, model.padded(tp))
                for name, bits in wanted.items():
                    self.check_tensor(model, name, bits, state["model"][name])

    def check_tensor(self, model, name, bits, found):
        if bits is None:
            self.assertIsNone(found, name)
            return
        self.assertEqual((found.dtype, found.shape), (model.dtype, bits.shape), name)
        self.assertTrue(self.torch.equal(self.core.bits(found), bits), name)

    def check_all(self, model, source, layouts=LAYOUTS):
        for number, (tp, cut) in enumerate(layouts):
            flags = ["--tp", tp, "--pp", len(cut), "--pp-layers", ",".join(map(str, cut))]
            with self.subTest(tp=tp, cut=cut):
                self.check(model, self.materialize(source, *flags), tp, cut)
        with Mount(source) as path:
            with self.subTest(mounted="tp4pp2"):
                self.check(model, path / "tp4pp2", 4, [2, 2])

    def test_dtypes(self):
        for name in ("float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2"):
            with self.subTest(dtype=name):
                model = self.core.Model(getattr(self.torch, name))
                self.check_all(model, model.save(self.scratch / name), LAYOUTS[1:3])

    def test_arrangements_in_memory(self):
        for arrange in (self.core.plain, self.core.flat, self.core.transposed, self.core.strided, self.core.parameters):
            with self.subTest(arrange=arrange.__name__):
                model = self.core.Model(self.torch.float32)
                self.check_all(model, model.save(self.scratch / arrange.__name__, arrange=arrange))

    def test_arrangements_of_a_cut_source(self):
        for arrange in (self.core.flat, self.core.transposed, self.core.strided):
            with self.subTest(arrange=arrange.__name__):
                model = self.core.Model(self.torch.bfloat16)
                self.check_all(model, model.save(self.scratch / arrange.__name__, 2, [3, 1], arrange))

    def test_architectures(self):
        for options in (
            {"tied": True}, {"tied": True, "bias": True}, {"te": True}, {"te": True, "bias": True, "qk_norm": True},
            {"gated": False, "bias": True}, {"qk_norm": True},
        ):
            with self.subTest(**options):
                model = self.core.Model(**options)
                name = "-".join(options)
                self.check_all(model, model.save(self.scratch / name), LAYOUTS)
                self.check_all(model, model.save(self.scratch / f"{name}-cut", 2, [1, 3]), LAYOUTS[:3])

    def test_carried_entries_with_odd_tensors(self):
        """What is not a weight is carried over: 0-d, empty, shared, non-contiguous and Parameter leaves alike."""
        torch = self.torch
        base = torch.arange(24, dtype=torch.float32)
        carried = {
            "scalar": torch.tensor(3.5, dtype=torch.float64), "empty": torch.empty((0, 4), dtype=torch.float16),
            "flag": torch.tensor([True, False]), "window": base[5:11], "same": base.view(4, 6),
            "turned": base.view(4, 6).t(), "wide": torch.tensor([1.5]).expand(3, 2),
            "leaf": torch.nn.Parameter(base[:2]), "bytes": torch.arange(9, dtype=torch.uint8),
            "long": torch.tensor([2**62]), "words": ["x", (1, None), {2: b"y"}],
        }
        model = self.core.Model()
        source = model.save(self.scratch / "source", extra={"rng_state": [carried]})
        out = self.materialize(source, "--tp", 2, "--pp", 1)
        path = out / "iter_0000007" / "mp_rank_01" / "model_optim_rng.pt"
        for mapped in (False, True):
            found = torch.load(path, weights_only=False, mmap=mapped)["rng_state"][0]
            self.assertEqual(list(found), list(carried))
            for name, value in carried.items():
                if isinstance(value, torch.Tensor):
                    self.assertEqual((found[name].dtype, found[name].shape), (value.dtype, value.shape), name)
                    self.assertTrue(torch.equal(found[name], value), name)
            self.assertEqual(found["words"], carried["words"])
            self.assertEqual(type(found["leaf"]), torch.nn.Parameter)

    def test_digest_does_not_depend_on_arrangement_or_padding(self):
        model = self.core.Model(self.torch.float16)
        roots = [
            model.save(self.scratch / "plain"),
            model.save(self.scratch / "flat", 2, [1, 3], self.core.flat),
            model.save(self.scratch / "turned", 4, [4], self.core.transposed),
        ]
        self.assertEqual(len(set(map(digest, roots))), 1)

    def test_files_that_another_zip_writer_packed(self):
        """zip64 fields everywhere, no alignment, records of another prefix: all legal, all read."""
        real = FIXTURES / "gpt-tiny" / "pp1_tp1_f16"
        path = manifest.rank_files(real)[0]
        source = self.scratch / "source"
        (source / path).parent.mkdir(parents=True)
        (source / "latest_checkpointed_iteration.txt").write_text("100")
        with zipfile.ZipFile(real / path) as old, zipfile.ZipFile(source / path, "w", zipfile.ZIP_STORED) as new:
            for info in old.infolist():
                name = zipfile.ZipInfo("archive/" + info.filename.partition("/")[2])
                with new.open(name, "w", force_zip64=True) as record:
                    record.write(old.read(info))
        out = self.materialize(source, "--tp", 4, "--pp", 1)
        self.assert_same(expected("gpt-tiny", "pp1_tp4_f16"), manifest.describe(out))

    def test_a_compressed_record_is_refused_by_name(self):
        real = FIXTURES / "gpt-tiny" / "pp1_tp1_f16"
        path = manifest.rank_files(real)[0]
        source = self.scratch / "source"
        (source / path).parent.mkdir(parents=True)
        (source / "latest_checkpointed_iteration.txt").write_text("100")
        with zipfile.ZipFile(real / path) as old, zipfile.ZipFile(source / path, "w", zipfile.ZIP_DEFLATED) as new:
            for info in old.infolist():
                new.writestr(info.filename, old.read(info))
        done = ckpt_fs("inspect", source, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("model_optim_rng.pt", done.stderr)


if __name__ == "__main__":
    unittest.main()
