"""Yuan-2.0 as its own convert_hf.py writes it, held against a conversion that knows nothing but names: of the rank file of one rank."""

import unittest

from support import FIXTURES, Case, Mount, need_torch

YUAN = FIXTURES / "yuan-tiny"
WHOLE = YUAN / "pp1_tp1_none"
SOURCES = (WHOLE, YUAN / "pp2b24_tp2_none", YUAN / "pp4b1221_tp4_none")

# Names that stay what they are but for what stands before them.
SAME = ("input_layernorm.weight", "post_attention_layernorm.weight")
RENAMED = {
    "self_attention.get_value.weight": "self_attn.v_proj.weight",
    "self_attention.dense.weight": "self_attn.o_proj.weight",
    "mlp.dense_4h_to_h.weight": "mlp.down_proj.weight",
}
# The script halves these without regard to heads, and its model multiplies with the activation of what it calls up_proj.
HALVED = {
    "self_attention.get_query_key.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight"),
    "mlp.dense_h_to_4h.weight": ("mlp.up_proj.weight", "mlp.gate_proj.weight"),
}


def converted(model):
    """{name: tensor}, of the dictionary in a rank file that has everything."""
    language = model["language_model"]
    words = language["embedding"]["word_embeddings"]["weight"]
    tensors = {"model.embed_tokens.weight": words, "lm_head.weight": words}
    for name, tensor in language["encoder"].items():
        if name == "final_layernorm.weight":
            tensors["model.norm.weight"] = tensor
            continue
        layers, number, rest = name.split(".", 2)
        assert layers == "layers", name
        to = f"model.layers.{number}."
        if rest in SAME:
            tensors[to + rest] = tensor
        elif rest in RENAMED:
            tensors[to + RENAMED[rest]] = tensor
        elif rest in HALVED:
            first, second = HALVED[rest]
            tensors[to + first], tensors[to + second] = tensor.chunk(2)
        else:
            assert ".lf_gate." in rest, name
            tensors[to + rest.replace("self_attention.", "self_attn.")] = tensor
    return tensors


class Yuan(Case):
    # matrix: naive: yuan: megatron -> hf
    def test_the_view_of_any_layout_is_the_conversion(self):
        torch = need_torch()
        from safetensors.torch import load_file

        (rank,) = WHOLE.glob("iter_*/mp_rank_00/model_optim_rng.pt")
        wanted = converted(torch.load(rank, weights_only=False)["model"])
        for source in SOURCES:
            with self.subTest(source=source.name), Mount(source, "--as", "hf", "--quiet") as path:
                found = load_file(path / "model.safetensors")
                self.assertEqual(sorted(found), sorted(wanted))
                for name, tensor in wanted.items():
                    self.assertTrue(torch.equal(found[name], tensor), name)


if __name__ == "__main__":
    unittest.main()
