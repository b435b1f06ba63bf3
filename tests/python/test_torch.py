"""torch.load on views, in all its ways of reading."""

import argparse
import itertools
import json
import os
import subprocess
import sys
import unittest

from support import FIXTURES, ROOT, Case, Mount, ckpt_fs, expected, layout_flags, need_torch
from test_fixtures import torch_tensors

VIEWS = (
    ("yuan-tiny", "pp2b24_tp2_none", "pp1_tp1_none"),
    ("yuan-tiny", "pp1_tp1_none", "pp4b1221_tp4_none"),
    ("yuan-tiny", "pp4b1221_tp4_none", "pp2b24_tp2_none"),
    ("gpt-tiny", "pp1_tp1_f16", "pp2b13_tp2_f16"),
    ("mcore-tiny/tied", "tp1pp2_distb1000", "tp2pp2_distb1000"),
    ("megatron-tiny/untied", "dist_tp1pp2_first3", "dist_tp4pp2"),
    ("megatron-tiny/untied", "dist_tp1pp2_first3", "src_tp1pp1"),
)


class TorchLoad(Case):
    def setUp(self):
        super().setUp()
        self.torch = need_torch()

    def load(self, path, **options):
        import standins

        with self.torch.serialization.safe_globals(standins.safe_globals()):
            return self.torch.load(path, map_location="cpu", **options)

    def check(self, path, rank, **options):
        state = self.load(path, **options)
        self.assertEqual(list(state), rank["keys"])
        self.assertEqual(torch_tensors(state), rank["tensors"])
        self.assertIsInstance(state["args"], argparse.Namespace)
        for field in ("tensor_model_parallel_size", "pipeline_model_parallel_size", "rank", "world_size"):
            self.assertEqual(repr(getattr(state["args"], field)), rank["args"][field], field)
        self.assertEqual(repr(state["iteration"]), rank["scalars"]["iteration"])

    def test_files_beyond_four_gigabytes(self):
        """A 51B model at PP 1 is a file of 100 GB: torch finds every record where it is, zip64 fields and all."""
        source = self.scratch / "51b"
        make = [sys.executable, str(ROOT / "scripts" / "make-checkpoint"), "--shape", "51b", "--sparse", str(source)]
        subprocess.run(make, check=True, capture_output=True)
        flags = ("--tp", 1, "--pp", 1)
        file = json.loads(ckpt_fs("ls", source, *flags, "--tensors", "--json").stdout)["files"][0]
        self.assertGreater(file["bytes"], 1 << 36)
        with Mount(source, *flags) as path:
            reader = self.torch._C.PyTorchFileReader(str(path / file["path"]))
            tensors = file["tensors"]
            offsets = [reader.get_record_offset(f"data/{index}") for index in range(len(tensors))]
            self.assertEqual(offsets, [tensor["offset"] for tensor in tensors])
            self.assertGreater(offsets[-1], 1 << 36)
            self.assertEqual(reader.get_record("version"), b"3\n")

    # matrix: loads: yuan-2.0 yuan-2.0/gpt megatron-core: megatron -> megatron
    def test_every_rank_of_several_views_in_every_way(self):
        for kind, source, target in VIEWS:
            wanted = expected(kind, target)
            with Mount(FIXTURES / kind / source, *layout_flags(wanted)) as path:
                for rank in wanted["ranks"]:
                    for mapped, weights_only in itertools.product((False, True), repeat=2):
                        options = {"mmap": mapped, "weights_only": weights_only}
                        with self.subTest(kind=kind, source=source, file=rank["path"], **options):
                            self.check(path / rank["path"], rank, **options)

    def test_with_exact_crcs_and_on_disk(self):
        kind, source, target = VIEWS[0]
        wanted = expected(kind, target)
        real = self.materialize(FIXTURES / kind / source, *layout_flags(wanted))
        with Mount(FIXTURES / kind / source, *layout_flags(wanted), "--crc", "exact") as path:
            for root, mapped in itertools.product((real, path), (False, True)):
                with self.subTest(root=root.name, mmap=mapped):
                    self.check(root / wanted["ranks"][0]["path"], wanted["ranks"][0], mmap=mapped, weights_only=False)

    def test_from_an_open_file_and_with_computed_offsets(self):
        """torch computes storage offsets from its own zip layout when asked to; any other layout reads wrong data."""
        kind, source, target = VIEWS[1]
        wanted = expected(kind, target)
        with Mount(FIXTURES / kind / source, *layout_flags(wanted)) as path:
            rank = wanted["ranks"][-1]
            with open(path / rank["path"], "rb") as file:
                self.check(file, rank, weights_only=False)
            config = self.torch.utils.serialization.config
            before = config.load.calculate_storage_offsets
            self.addCleanup(setattr, config.load, "calculate_storage_offsets", before)
            config.load.calculate_storage_offsets = True
            self.check(path / rank["path"], rank, mmap=True, weights_only=False)

    def test_mapped_tensors_may_be_written_without_touching_the_view(self):
        kind, source, target = VIEWS[0]
        wanted = expected(kind, target)
        with Mount(FIXTURES / kind / source, *layout_flags(wanted)) as path:
            file = path / wanted["ranks"][0]["path"]
            state = self.load(file, mmap=True, weights_only=False)
            state["model"]["language_model"]["embedding"]["word_embeddings"]["weight"].zero_()
            self.check(file, wanted["ranks"][0], mmap=False, weights_only=False)

    def test_rng_state_is_kept(self):
        kind, source, target = VIEWS[0]
        wanted = expected(kind, target)
        with Mount(FIXTURES / kind / source, *layout_flags(wanted)) as path:
            found = self.load(path / wanted["ranks"][0]["path"], weights_only=False)["rng_state"][0]
        real = FIXTURES / kind / source / "iter_0000100" / "mp_rank_00_000" / "model_optim_rng.pt"
        kept = self.load(real, weights_only=False)["rng_state"][0]
        self.assertEqual(list(found), list(kept))
        self.assertTrue(self.torch.equal(found["torch_rng_state"], kept["torch_rng_state"]))
        self.assertEqual(found["random_rng_state"], kept["random_rng_state"])
        self.assertEqual(list(found["np_rng_state"][1]), list(kept["np_rng_state"][1]))

    def test_torch_saves_the_same_payload(self):
        """Loading a view and saving it gives a file of the view's own size: nothing hidden, nothing doubled."""
        kind, source, target = VIEWS[0]
        wanted = expected(kind, target)
        with Mount(FIXTURES / kind / source, *layout_flags(wanted)) as path:
            file = path / wanted["ranks"][0]["path"]
            self.torch.save(self.load(file, weights_only=False), self.scratch / "model_optim_rng.pt")
            self.assertEqual(os.path.getsize(self.scratch / "model_optim_rng.pt"), file.stat().st_size)


if __name__ == "__main__":
    unittest.main()
