"""The fsspec filesystem: listings, random access and ranges as on materialized files, and programs that read by URL."""

import importlib.util
import json
import os
import random
import subprocess
import sys
import tomllib
import unittest
from concurrent.futures import ThreadPoolExecutor

from support import FIXTURES, ROOT, TIMEOUT, Case, module, need, need_torch

ckpt_fs = module()
SOURCE = FIXTURES / "megatron-tiny" / "untied" / "dist_tp1pp2_first3"


class Filesystem(Case):
    @classmethod
    def setUpClass(cls):
        need(importlib.util.find_spec("fsspec"), "the Python package fsspec")
        import fsspec

        cls.fsspec = fsspec
        # What the wheel does with an entry point.
        fsspec.register_implementation("ckpt", "ckpt_fs.filesystem.CkptFileSystem", clobber=True)

    def url(self, options, file="", source=SOURCE):
        return f"ckpt://{options}{source}!/{file}"

    def test_an_entry_point_is_all_that_it_takes(self):
        """As the wheel has it: nobody imports the package first."""
        about = self.scratch / "site" / "ckpt_fs-1.2.3.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ckpt-fs\nVersion: 1.2.3\n")
        points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["fsspec.specs"]
        (about / "entry_points.txt").write_text("[fsspec.specs]\n" + "".join(f"{name} = {of}\n" for name, of in points.items()))
        code = "import fsspec, sys; print(len(fsspec.open(sys.argv[1]).open().read())); import ckpt_fs; print(ckpt_fs.__version__)"
        environment = {**os.environ, "PYTHONPATH": f"{about.parent}:{ROOT / 'python'}"}
        command = [sys.executable, "-c", code, self.url("as=hf", "config.json")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
        self.assertEqual(done.stdout.split(), [str(len(ckpt_fs.cat(SOURCE, "config.json", as_="hf"))), "1.2.3"], done.stderr)

    def test_it_lists_what_materialize_writes(self):
        real = self.materialize(SOURCE, "--tp", 4)
        fs, root = self.fsspec.url_to_fs(self.url("tp=4"))
        wanted = {str(path.relative_to(real)): path.stat().st_size for path in real.rglob("*") if path.is_file()}
        self.assertEqual({name: info["size"] for name, info in fs.find(root, detail=True).items()}, wanted)
        self.assertEqual(fs.ls(root, detail=False), sorted(os.listdir(real)))
        iteration = next(real.glob("iter_*")).name
        self.assertEqual(fs.ls(f"{iteration}/", detail=False), sorted(f"{iteration}/{name}" for name in os.listdir(real / iteration)))
        self.assertEqual((fs.isdir(iteration), fs.isfile(iteration), fs.exists("none"), fs.isfile("latest_checkpointed_iteration.txt")), (True, False, False, True))
        self.assertEqual(len(fs.glob("iter_*/mp_rank_0[13]*/*.pt")), 4)
        self.assertEqual(fs.du(""), sum(wanted.values()))
        for bad in ("none", f"{iteration}/none", iteration):
            with self.assertRaises((FileNotFoundError, IsADirectoryError)):
                fs.open(bad)
        self.assertRaises(FileNotFoundError, fs.ls, "none")
        self.assertRaises(OSError, fs.open, "latest_checkpointed_iteration.txt", "wb")

    def test_options_in_the_url_or_beside_it(self):
        wanted = ckpt_fs.cat(SOURCE, "config.json", as_="vllm", tp=2)
        for url, keywords in (
            (self.url("as=vllm,tp=2", "config.json"), {}),
            (f"ckpt://{SOURCE}!/config.json", {"as_": "vllm", "tp": 2}),
            ("simplecache::" + self.url("as=vllm,tp=2", "config.json"), {}),
            (f"ckpt://as=vllm,tp=2/config.json::{SOURCE}", {}),
            (f"ckpt://config.json::{SOURCE}", {"as_": "vllm", "tp": 2}),
            (f"ckpt://config.json::file://{SOURCE}", {"ckpt": {"as_": "vllm", "tp": 2}}),
        ):
            with self.fsspec.open(url, **keywords) as file:
                self.assertEqual(file.read(), wanted)
        fs, _ = self.fsspec.url_to_fs(self.url("pp=3,pp-layers=3,3,2"))
        self.assertEqual(len(fs.glob("iter_*/mp_rank_*_002")), 1)
        for url, kind, words in (
            ("ckpt://as=hf/config.json", ckpt_fs.UsageError, "exclamation mark"),
            (f"ckpt://as=hf/config.json::memory://{SOURCE}", ckpt_fs.UsageError, "memory://"),
            (self.url("tp=3", "x"), ckpt_fs.LayoutError, "possible: 1, 2, 4, 8"),
        ):
            with self.subTest(url), self.assertRaisesRegex(kind, words):
                self.fsspec.open(url).open()

    def test_random_access(self):
        real = (self.materialize(SOURCE, "--as", "hf") / "model.safetensors").read_bytes()
        fs, path = self.fsspec.url_to_fs(self.url("as=hf", "model.safetensors"))
        self.assertEqual(fs.cat(path), real)
        self.assertEqual(fs.cat_file(path, 5, 100), real[5:100])
        self.assertEqual(fs.cat_file(path, -9), real[-9:])
        self.assertEqual(fs.cat_file(path, 9, 5), b"")
        self.assertEqual(fs.cat_ranges([path, path], [0, 10], [7, 20]), [real[:7], real[10:20]])
        self.assertEqual(fs.head(path, 8), real[:8])
        choose = random.Random(7)
        for cache in ("readahead", "none", "bytes"):
            with fs.open(path, cache_type=cache, block_size=4096) as file:
                for _ in range(50):
                    at, count = choose.randrange(len(real) + 10), choose.choice([0, 1, 100, 9000])
                    file.seek(at)
                    self.assertEqual(file.read(count), real[at : at + count])
                buffer = bytearray(1 << 20)
                file.seek(100)
                self.assertEqual((file.readinto(buffer), file.tell()), (1 << 20, 100 + (1 << 20)))
                self.assertEqual(buffer, real[100 : 100 + (1 << 20)])
                self.assertLess(file.readinto(buffer), 1 << 20)
        local = self.scratch / "copied"
        fs.get(path, str(local))
        self.assertEqual(local.read_bytes(), real)

    def test_threads_share_a_process(self):
        url = self.url("as=hf", "model.safetensors")
        with ThreadPoolExecutor(4) as pool:
            all = list(pool.map(lambda _: self.fsspec.url_to_fs(url)[0], range(16)))
            self.assertEqual(len({id(fs._client) for fs in all}), 1)
            self.assertEqual(len({fs.cat("config.json") for fs in all}), 1)

    def test_torch_and_safetensors(self):
        torch = need_torch()
        import safetensors.torch

        real = self.materialize(SOURCE, "--as", "hf")
        wanted = safetensors.torch.load_file(real / "model.safetensors")
        with self.fsspec.open(self.url("as=hf", "model.safetensors")) as file:
            found = safetensors.torch.load(file.read())
        self.assertTrue(all(torch.equal(found[name], wanted[name]) for name in wanted))
        fs, _ = self.fsspec.url_to_fs(self.url("tp=2"))
        rank = fs.glob("iter_*/mp_rank_01*/model_optim_rng.pt")[0]
        with fs.open(rank) as file:
            found = torch.load(file, weights_only=False)
        real = self.materialize(SOURCE, "--tp", 2, name="tp2")
        wanted = torch.load(real / rank, weights_only=False)
        self.assertTrue(all(torch.equal(found["model"][name], tensor) for name, tensor in wanted["model"].items() if isinstance(tensor, torch.Tensor)))

    def test_a_distributed_checkpoint_by_url(self):
        """torch.distributed.checkpoint loads from it without a mount."""
        torch = need_torch()
        from torch.distributed.checkpoint import FileSystemReader, load
        from torch.distributed.checkpoint.fsspec_filesystem import FsspecReader

        real = self.materialize(SOURCE, "--as", "dcp", name="dcp")
        metadata = FileSystemReader(real).read_metadata().state_dict_metadata
        empty = lambda: {name: torch.zeros(of.size, dtype=of.properties.dtype) for name, of in metadata.items() if hasattr(of, "size")}
        wanted, found = empty(), empty()
        load(wanted, storage_reader=FileSystemReader(real), no_dist=True)
        load(found, storage_reader=FsspecReader(f"ckpt://as=dcp{SOURCE}!"), no_dist=True)
        self.assertTrue(all(torch.equal(found[name], wanted[name]) for name in wanted) and len(wanted) > 50)

    def test_pandas_and_pyarrow(self):
        for name in ("pandas", "pyarrow"):
            need(importlib.util.find_spec(name), f"the Python package {name}")
        import pandas
        import pyarrow.fs

        url = self.url("as=hf", "config.json")
        wanted = json.loads(ckpt_fs.cat(SOURCE, "config.json", as_="hf"))
        self.assertEqual(pandas.read_json(url, typ="series")["hidden_size"], wanted["hidden_size"])
        fs = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self.fsspec.url_to_fs(url)[0]))
        self.assertEqual(json.loads(fs.open_input_file("config.json").read()), wanted)
        self.assertEqual(sorted(info.path for info in fs.get_file_info(pyarrow.fs.FileSelector(""))), ["config.json", "model.safetensors"])


if __name__ == "__main__":
    unittest.main()
