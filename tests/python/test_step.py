"""A step of Adam from a view is the step that the source itself would have taken.

Training goes on from weights, masters, moments and the number of steps. Here all of them are read by torch, from the source and from views
in other layouts and encodings; the whole model is put together again, and `torch.optim.AdamW` takes one step on the same gradients. Adam
works element by element, so masters and moments after it must be the same bits. How a rank's tensors make the whole, and how flat buffers
are cut, is written down here a second time: nothing of ckpt-fs vouches for itself.
"""

import copy
import math
import unittest

from support import FIXTURES, Case, Mount, ckpt_fs, manifest, need_torch

# Axis along which ranks hold different parts; what is in neither list is the same on all ranks.
ROWS = (
    "word_embeddings/weight", "word_embeddings_for_head/weight", "query_key_value.weight", "query_key_value.bias",
    "dense_h_to_4h.weight", "dense_h_to_4h.bias",
    "word_embeddings.weight", "output_layer.weight", "linear_qkv.weight", "linear_qkv.bias", "linear_fc1.weight",
    "linear_fc1.bias",
)
COLUMNS = ("self_attention.dense.weight", "dense_4h_to_h.weight", "linear_proj.weight", "linear_fc2.weight")
HEADS = ("word_embeddings_for_head/weight", "output_layer.weight")
STATES = ("param", "exp_avg", "exp_avg_sq")


def is_rows(name):
    return name.endswith(ROWS)


def weights(model, path=""):
    """{name: tensor} of a rank's model, `/` between nested dicts, in order."""
    import torch

    found = {}
    for key, value in model.items():
        if isinstance(value, dict):
            found.update(weights(value, f"{path}{key}/"))
        elif isinstance(value, torch.Tensor):
            found[path + key] = value
    return found


def by_parameter(state, names):
    """{name: {state: tensor}} of a mixed-precision optimizer: groups in turn, each in the model's order."""
    inner, masters = state["optimizer"]["optimizer"], state["optimizer"]["fp32_from_fp16_params"]
    groups = [[n for n, t in names.items() if decays(n, t) == wanted] for wanted in (True, False)]
    found = {}
    for group, order, list_ in zip(inner["param_groups"], groups, masters, strict=True):
        for number, name, master in zip(group["params"], order, list_, strict=True):
            kept = inner["state"][number]
            found[name] = {"param": master, "exp_avg": kept["exp_avg"], "exp_avg_sq": kept["exp_avg_sq"]}
    return found, [kept.get("step") for kept in inner["state"].values()]


def decays(name, tensor):
    return tensor.dim() > 1 and not name.endswith(".bias")


def by_place(buffers, names, is_core, is_shared):
    """{name: {state: tensor}} out of flat buffers: the last parameter first, aligned and with shared embeddings apart in megatron-core."""
    buffer = next(iter(next(v for k, v in buffers.items() if k == 0).values()))
    found, at, base = {}, 0, 0
    for name, tensor in reversed(names.items()):
        if is_core:
            at = base + math.ceil((at - base) / 64) * 64
            if is_shared(name):
                base = at
        size = tensor.numel()
        found[name] = {state: buffer[state][at : at + size].view(tensor.shape) for state in STATES}
        at += size
        if is_core and is_shared(name):
            base = at
    if at != len(buffer["param"]):
        raise AssertionError(f"a buffer of {len(buffer['param'])} elements, parameters of {at}")
    return found


class Whole:
    """The whole model's masters and moments, put together from the files of a checkpoint."""

    def __init__(self, root, layout, load):
        tp, pp, cut = layout
        parts, self.steps, self.weights = {}, set(), {}
        for stage in range(pp):
            for rank in range(tp):
                state, buffers = load(root, tp, pp, rank, stage)
                self.read(state, buffers, sum(cut[:stage]), pp, parts)
        self.state = {name: {key: self.join(name, [p[key] for p in ranks]) for key in (*STATES, "weight")} for name, ranks in parts.items()}

    def read(self, state, buffers, before, pp, parts):
        names = weights(state["model"])
        is_core = "embedding.word_embeddings.weight" in names or any(n.startswith("decoder.") for n in names)
        shared = (*HEADS, "embedding.word_embeddings.weight") if pp > 1 else ()
        if buffers is None:
            found, steps = by_parameter(state, names)
        else:
            found, steps = by_place(buffers, names, is_core, lambda name: name in shared), []
        groups = state["optimizer"]["optimizer"]["param_groups"]
        steps += [group.get("step") for group in groups]
        self.steps |= {float(step) for step in steps if step is not None}
        self.decay = {bool(group["wd_mult"]): group["weight_decay"] for group in groups}
        self.group = groups[0]
        for name, kept in found.items():
            if name in HEADS:
                continue  # a copy of the embedding, which the whole model has once
            parts.setdefault(self.globally(name, before), []).append({**kept, "weight": names[name]})

    @staticmethod
    def globally(name, before):
        head, found, tail = name.partition("layers.")
        if not found:
            return name
        number, _, rest = tail.partition(".")
        return f"{head}layers.{int(number) + before}.{rest}"

    @staticmethod
    def join(name, parts):
        import torch

        if is_rows(name):
            return torch.cat(parts, 0)
        if name.endswith(COLUMNS):
            return torch.cat(parts, 1)
        for part in parts[1:]:
            if not torch.equal(part, parts[0]):
                raise AssertionError(f"ranks disagree about {name}")
        return parts[0]

    def step(self):
        """Masters and moments after one step of AdamW on gradients that depend on a parameter's name alone."""
        import torch

        (step,) = self.steps
        params = {name: torch.nn.Parameter(kept["param"].clone()) for name, kept in self.state.items()}
        groups = [{"params": [p for n, p in params.items() if decays(n, p) == d], "weight_decay": w} for d, w in self.decay.items()]
        adam = torch.optim.AdamW(groups, lr=self.group["lr"], betas=self.group["betas"], eps=self.group["eps"])
        for name, param in params.items():
            kept = self.state[name]
            adam.state[param] = {
                "step": torch.tensor(step), "exp_avg": kept["exp_avg"].clone(), "exp_avg_sq": kept["exp_avg_sq"].clone(),
            }
            dice = torch.Generator().manual_seed(sum(name.encode()) * 1009 + len(name))
            param.grad = torch.randn(param.shape, generator=dice)
        adam.step()
        return {name: (p.detach(), adam.state[p]["exp_avg"], adam.state[p]["exp_avg_sq"]) for name, p in params.items()}


class Step(Case):
    def setUp(self):
        super().setUp()
        self.torch = need_torch()

    def load(self, root, tp, pp, rank, stage):
        """One rank's files, through torch."""
        iteration = next(path for path in root.iterdir() if path.is_dir())
        directory = iteration / (f"mp_rank_{rank:02d}_{stage:03d}" if pp > 1 else f"mp_rank_{rank:02d}")
        state = self.torch.load(directory / "model_optim_rng.pt", weights_only=False)
        buffers = directory / "distrib_optim.pt"
        return state, self.torch.load(buffers, weights_only=False) if buffers.exists() else None

    def whole(self, root, layout):
        return Whole(root, layout, self.load)

    def assert_same_step(self, left, right):
        self.assertEqual(left.steps, right.steps)
        one, other = left.step(), right.step()
        self.assertEqual(set(one), set(other))
        for name, values in one.items():
            for mine, theirs in zip(values, other[name]):
                self.assertTrue(self.torch.equal(mine, theirs), name)
        for name, kept in left.state.items():
            self.assertTrue(self.torch.equal(kept["weight"], right.state[name]["weight"]), name)

    def check(self, source, layers):
        first, rest = layers
        whole = self.whole(source, (1, 1, [first + rest]))
        self.assertTrue(all(kept["exp_avg"].abs().sum() > 0 for kept in whole.state.values()))
        for tp, cut in ((2, [first, rest]), (4, [first + rest]), (1, [1] * (first + rest))):
            flags = ("--tp", tp, "--pp", len(cut), "--pp-layers", ",".join(map(str, cut)))
            for encoding in ("mixed", "distributed"):
                with self.subTest(tp=tp, cut=cut, encoding=encoding), Mount(source, *flags, "--optimizer", encoding) as path:
                    seen = self.whole(path, (tp, len(cut), cut))
                    if source.parent.parent.name == "mcore-tiny":
                        seen = self.without_padding(seen, whole)
                    self.assert_same_step(whole, seen)

    def without_padding(self, seen, whole):
        """Other layouts pad the vocabulary to other sizes, with zeros."""
        for name, kept in seen.state.items():
            size = whole.state[name]["param"].shape
            for key in kept:
                self.assertEqual(kept[key][size[0] :].abs().sum(), 0, name)
                kept[key] = kept[key][: size[0]]
        return seen

    # matrix: loads: yuan-2.0/gpt: megatron -> megatron+optimizer
    def test_legacy_gpt(self):
        self.check(FIXTURES / "gpt-tiny" / "pp1_tp1_f16", (1, 3))

    # matrix: loads: megatron-core: megatron -> megatron+optimizer
    def test_megatron_core(self):
        self.check(FIXTURES / "mcore-tiny" / "tied" / "tp1pp1_plain", (1, 3))

    def test_a_step_tells_wrong_state_from_right(self):
        """What this test is worth: moments changed about, or cut elsewhere, make another step."""
        source = FIXTURES / "gpt-tiny" / "pp1_tp1_f16"
        whole = self.whole(source, (1, 1, [4]))
        with Mount(source, "--tp", 2, "--pp", 1, "--optimizer", "distributed") as path:
            right = self.whole(path, (2, 1, [4]))
        name = "language_model/encoder/layers.2.mlp.dense_h_to_4h.weight"

        def exchanged(kept):
            kept["exp_avg"], kept["exp_avg_sq"] = kept["exp_avg_sq"].abs(), kept["exp_avg"].abs()

        def elsewhere(kept):
            kept["exp_avg"] = kept["exp_avg"].roll(1, 0)

        def of_another(kept):
            kept["param"] = wrong.state[name.replace("layers.2", "layers.1")]["param"]

        for spoil in (exchanged, elsewhere, of_another):
            wrong = copy.copy(right)
            wrong.state = {key: dict(kept) for key, kept in right.state.items()}
            self.assert_same_step(whole, wrong)
            spoil(wrong.state[name])
            with self.assertRaises(AssertionError):
                self.assert_same_step(whole, wrong)

    def test_without_the_optimizer_there_is_nothing_to_go_on_from(self):
        source = FIXTURES / "gpt-tiny" / "pp1_tp1_f16"
        out = self.materialize(source, "--tp", 2, "--optimizer", "none")
        for name in manifest.rank_files(out):
            state = self.torch.load(out / name, weights_only=False)
            self.assertEqual({"optimizer", "opt_param_scheduler"} & set(state), set())
        done = ckpt_fs("materialize", out, self.scratch / "again", "--optimizer", "mixed", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no optimizer state", done.stderr)


if __name__ == "__main__":
    unittest.main()
