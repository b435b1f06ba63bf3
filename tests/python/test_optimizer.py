"""Optimizer state through the kernel: files that are there or not, their sizes, torch mapping them, and what is said of them."""

import os
import shutil
import unittest

from support import FIXTURES, Case, Mount, ckpt_fs, exact, expected, layout_flags, manifest, need_torch, same_files

GPT = FIXTURES / "gpt-tiny" / "pp1_tp1_f16"
CORE = FIXTURES / "mcore-tiny" / "tied" / "tp1pp2_distb1000"
MODEL, BUFFERS = "model_optim_rng.pt", "distrib_optim.pt"


class Listings(Case):
    def test_buffers_stand_beside_the_model(self):
        for source, flags, names in (
            (GPT, ("--optimizer", "distributed"), [BUFFERS, MODEL]),
            (GPT, (), [MODEL]),
            (CORE, (), [BUFFERS, MODEL]),
            (CORE, ("--optimizer", "mixed"), [MODEL]),
            (CORE, ("--optimizer", "none"), [MODEL]),
        ):
            with self.subTest(source=source.name, flags=flags), Mount(source, "--tp", 2, "--pp", 2, *flags) as path:
                ranks = list(path.glob("iter_*/*"))
                self.assertEqual(len(ranks), 4)
                for rank in ranks:
                    self.assertEqual(sorted(os.listdir(rank)), names)
                for file in path.rglob("*.pt"):
                    self.assertEqual(file.stat().st_size, len(file.read_bytes()), file)
                listed = ckpt_fs("ls", source, "--tp", 2, "--pp", 2, *flags).stdout
                self.assertEqual(BUFFERS in listed, BUFFERS in names)

    def test_mounted_and_materialized_files_are_equal(self):
        for source, encoding in ((GPT, "distributed"), (GPT, "mixed"), (CORE, "distributed"), (CORE, "mixed")):
            flags = ["--tp", 2, "--pp", 2, "--pp-layers", "3,1", "--optimizer", encoding]
            with self.subTest(source=source.name, encoding=encoding):
                real = self.materialize(source, *flags)
                with Mount(source, *exact(*flags)) as path:
                    self.assertEqual(same_files(real, path), [])
                    for file in path.rglob("*.pt"):
                        shutil.copy(file, self.scratch / "copy")
                        self.assertEqual((self.scratch / "copy").stat().st_size, file.stat().st_size)

    def test_many_layouts_of_one_mount(self):
        with Mount(GPT, "--optimizer", "distributed") as path:
            for target in ("pp1_tp4_dist", "pp2b13_tp2_dist", "pp4_tp1_dist"):
                wanted = expected("gpt-tiny", target)
                name = {"pp1_tp4_dist": "tp4pp1", "pp2b13_tp2_dist": "tp2pp2@1,3", "pp4_tp1_dist": "tp1pp4"}[target]
                found = manifest.describe(path / name)
                for left, right in zip(wanted["ranks"], found["ranks"], strict=True):
                    self.assertEqual(left["path"], right["path"])
                    self.assertEqual(left["buffers"], right["buffers"])


class Torch(Case):
    def setUp(self):
        super().setUp()
        self.torch = need_torch()

    def test_buffers_load_in_every_way(self):
        wanted = expected("mcore-tiny/tied", "tp2pp2_distb1000")
        with Mount(CORE, *layout_flags(wanted)) as path:
            for rank in wanted["ranks"]:
                file = (path / rank["path"]).with_name(BUFFERS)
                plain = self.torch.load(file, weights_only=True)
                mapped = self.torch.load(file, weights_only=False, mmap=True)
                (buffer,), (other,) = plain[0].values(), mapped[0].values()
                self.assertTrue(plain["buckets_coalesced"])
                self.assertEqual(list(buffer), ["param", "exp_avg", "exp_avg_sq", "numel_unpadded"])
                for name in list(buffer)[:3]:
                    self.assertEqual(buffer[name].shape, (buffer["numel_unpadded"],))
                    self.assertTrue(self.torch.equal(buffer[name], other[name]), name)

    def test_rng_state_is_left_out_when_told_so(self):
        with Mount(GPT, "--tp", 2, "--rng", "omit") as path:
            for name in manifest.rank_files(path):
                state = self.torch.load(path / name, weights_only=False)
                self.assertNotIn("rng_state", state)
                self.assertIn("optimizer", state)

    def test_no_optimizer_when_told_so(self):
        for source in (GPT, CORE):
            with Mount(source, "--tp", 1, "--pp", 1, "--optimizer", "none") as path:
                (file,) = path.rglob("*.pt")
                state = self.torch.load(file, weights_only=False)
                self.assertEqual({"optimizer", "opt_param_scheduler"} & set(state), set())


class Said(Case):
    def test_notes_are_said_once(self):
        for source, flags in ((GPT, ("--tp", 2)), (CORE, ("--optimizer", "mixed")), (GPT, ("--optimizer", "none"))):
            with self.subTest(source=source.name, flags=flags):
                shutil.rmtree(self.scratch / "out", ignore_errors=True)
                lines = ckpt_fs("materialize", source, self.scratch / "out", *flags).stderr.splitlines()
                notes = [line for line in lines if "note:" in line]
                self.assertEqual(len(notes), len(set(notes)), notes)

    def test_a_destination_keeps_buffers_that_nobody_writes_again(self):
        out = self.materialize(CORE)
        before = [path.read_bytes() for path in sorted(out.rglob(BUFFERS))]
        done = ckpt_fs("materialize", CORE, out, "--optimizer", "none", "--overwrite", check=False)
        self.assertEqual(done.returncode, 6, done.stderr)
        self.assertIn(BUFFERS, done.stderr)
        self.assertEqual([path.read_bytes() for path in sorted(out.rglob(BUFFERS))], before)


if __name__ == "__main__":
    unittest.main()
