"""torch.distributed.checkpoint on a directory that the Rust tests write and hold against tests/fixtures/dcp-written."""

import unittest
import warnings

from support import FIXTURES, Case, need_torch

WRITTEN = FIXTURES / "dcp-written"
STORAGE = 40  # bytes of the state that is no literal


def pattern(key, count, is_bool=False):
    """The bytes that the Rust test gives a tensor."""
    seed = sum(key.encode())
    return bytes(((at * 37 + seed) % 120) & (1 if is_bool else 0xFF) for at in range(count))


class Written(Case):
    def setUp(self):
        super().setUp()
        self.torch = need_torch()
        import torch.distributed.checkpoint as dcp

        self.dcp = dcp
        f32, bf16 = self.torch.float32, self.torch.bfloat16
        self.tensors = {
            "model.a.b.weight": (f32, (7, 5)),
            "model.rows": (bf16, (3, 6)),
            "model.layers": (f32, (2, 3, 2)),
            "model.fp8": (self.torch.float8_e4m3fn, (4, 8)),
            "model.ids": (self.torch.int64, (300,)),
            "model.mask": (self.torch.bool, (9,)),
            "model.phase": (self.torch.complex64, (2, 2)),
            "model.bytes": (self.torch.uint8, (1, 1, 1, 1, 5)),
            "model.empty": (f32, (0, 4)),
            "model.scalar": (bf16, ()),
            "optim.state.0.step": (f32, ()),
        }
        caught = warnings.catch_warnings()
        caught.__enter__()
        self.addCleanup(caught.__exit__, None, None, None)
        warnings.simplefilter("ignore")

    def bits(self, tensor):
        return tensor.contiguous().reshape(-1).view(self.torch.uint8).numpy().tobytes() if tensor.numel() else b""

    def check(self, key, tensor):
        dtype, shape = self.tensors[key]
        self.assertEqual((tensor.dtype, tuple(tensor.shape)), (dtype, shape), key)
        wanted = pattern(key, tensor.numel() * tensor.element_size(), dtype == self.torch.bool)
        self.assertEqual(self.bits(tensor), wanted, key)

    def check_chunk(self, index, chunk):
        dtype, shape = self.tensors[index.fqn]
        count = self.torch.Size(shape).numel()
        whole = bytearray(pattern(index.fqn, count * chunk.element_size(), dtype == self.torch.bool))
        self.assertEqual(chunk.dtype, dtype)
        if chunk.numel() == 0:
            return
        whole = self.torch.frombuffer(whole, dtype=self.torch.uint8).view(dtype).reshape(shape)
        for axis, (offset, size) in enumerate(zip(index.offset, chunk.shape)):
            whole = whole.narrow(axis, offset, size)
        self.assertEqual(self.bits(chunk), self.bits(whole), index)

    def compute_offsets(self):
        """torch computes where storages are instead of looking it up, if it can."""
        try:
            from torch.utils.serialization.config import load
        except ImportError:
            return False
        self.addCleanup(setattr, load, "calculate_storage_offsets", load.calculate_storage_offsets)
        load.calculate_storage_offsets = True
        return True

    def check_state(self, state):
        self.assertEqual((state["name"], state["none"]), ("naïve", None))
        self.assertEqual((state["step"].shape, float(state["step"])), ((), 7.0))
        self.assertEqual(self.bits(state["rng"]), pattern("rng", STORAGE))

    def empty(self):
        """A flat state of the right shapes, with other contents."""
        full = lambda dtype, shape: self.torch.full(shape, 1.0).to(dtype)
        return {key: full(*kind) for key, kind in self.tensors.items()}

    def check_nested(self, nested):
        self.assertEqual(sorted(nested), ["model", "optim", "state"])
        for key in self.tensors:
            if key.startswith("model."):
                self.check(key, nested["model"][key.removeprefix("model.")])
        groups = nested["optim"]["param_groups"]
        self.assertEqual([groups[0]["lr"], groups[1]["lr"], groups[1]["betas"]], [0.0625, 0.0625, (0.5, 0.75)])
        self.check_state(nested["state"])

    def test_a_flat_state(self):
        state = self.empty() | {"optim.param_groups.0.lr": 0.0, "state": None}
        self.dcp.load(state, storage_reader=self.dcp.FileSystemReader(WRITTEN))
        for key in self.tensors:
            self.check(key, state[key])
        self.assertEqual(state["optim.param_groups.0.lr"], 0.0625)
        self.check_state(state["state"])

    def test_the_nested_state_that_it_was(self):
        state = self.empty()
        names = [key.removeprefix("model.") for key in self.tensors if key.startswith("model.")]
        nested = {"model": {name: state[f"model.{name}"] for name in names}}
        self.dcp.load(nested, storage_reader=self.dcp.FileSystemReader(WRITTEN))
        for name in names:
            self.check(f"model.{name}", nested["model"][name])

    def test_parts_of_it_by_key(self):
        from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

        for keys in ({"optim", "state"}, {"model", "optim", "state"}):
            nested = _load_state_dict_from_keys(keys, storage_reader=self.dcp.FileSystemReader(WRITTEN))
            self.assertEqual(set(nested), keys)
        self.check_nested(nested)

    def test_as_a_file_of_torch_save(self):
        from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

        dcp_to_torch_save(WRITTEN, self.scratch / "whole.pt")
        self.check_nested(self.torch.load(self.scratch / "whole.pt", weights_only=False))

    def test_pieces_are_files_of_torch_save(self):
        """Each piece cut out, mapped and not, also with offsets that torch computes instead of looking them up."""
        metadata = self.dcp.FileSystemReader(WRITTEN).read_metadata()
        self.assertEqual(getattr(metadata, "version", "1.0.0"), "1.0.0")
        for computed in (False, True):
            if computed and not self.compute_offsets():
                continue
            for number, (index, info) in enumerate(metadata.storage_data.items()):
                self.assertEqual(info.offset % 64, 0)
                data = (WRITTEN / info.relative_path).read_bytes()[info.offset : info.offset + info.length]
                # Mapped tensors keep their file, so each has its own.
                piece = self.scratch / f"{computed}{number}.pt"
                piece.write_bytes(data)
                plain, mapped = (self.torch.load(piece, mmap=flag, weights_only=True) for flag in (False, True))
                if index.offset is None:
                    self.assertEqual(repr(plain), repr(mapped))
                else:
                    self.check_chunk(index, plain)
                    self.check_chunk(index, mapped)


if __name__ == "__main__":
    unittest.main()
