"""The yardsticks themselves: the fixtures are undamaged, and torch reads them as the manifests say."""

import hashlib
import re
import unittest

from support import KINDS, Case, expected, expected_names, manifest, need_torch, sources


def torch_digest(tensor):
    """First 32 hex digits of the SHA-256 of a tensor's row-major bytes, by torch's own reading."""
    import torch

    flat = tensor.detach().contiguous().reshape(-1)
    raw = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return hashlib.sha256(raw).hexdigest()[:32]


def torch_tensors(state):
    """The manifest's list of tensors, as torch sees the loaded file."""
    import torch

    parts = [(state[key], () if key == "model" else (key,)) for key in state if re.fullmatch(r"model\d*", key)]
    return [
        [path, str(value.dtype).removeprefix("torch."), list(value.shape), torch_digest(value)]
        for part, prefix in parts
        for path, value in manifest.walk(part, prefix)
        if isinstance(value, torch.Tensor)
    ]


class Fixtures(Case):
    def test_every_fixture_matches_its_manifest(self):
        for kind in KINDS:
            for name, directory in sources(kind).items():
                with self.subTest(kind=kind, name=name):
                    self.assert_same(expected(kind, name), manifest.describe(directory), allowed=())

    def test_there_is_a_fixture_of_each_family(self):
        for kind in ("yuan-tiny", "gpt-tiny", "megatron-tiny/untied", "mcore-tiny/tied", "mcore-tiny/moe"):
            self.assertTrue(sources(kind), kind)

    def test_torch_reads_what_the_manifests_say(self):
        torch = need_torch()
        for kind in KINDS:
            for name, directory in sources(kind).items():
                for rank in expected(kind, name)["ranks"]:
                    with self.subTest(kind=kind, file=rank["path"]):
                        state = torch.load(directory / rank["path"], weights_only=False)
                        self.assertEqual(list(state), rank["keys"])
                        self.assertEqual(torch_tensors(state), rank["tensors"])

    def test_text_form_of_a_manifest_loses_nothing(self):
        found = manifest.describe(next(iter(sources("yuan-tiny").values())))
        self.assertEqual(manifest.loads(manifest.dumps(found)), found)
        for kind in KINDS:
            first, *others = expected_names(kind)
            for name in others:
                text = manifest.dumps(expected(kind, name), expected(kind, first), first)
                self.assertEqual(manifest.loads(text, lambda other: expected(kind, other)), expected(kind, name))


if __name__ == "__main__":
    unittest.main()
