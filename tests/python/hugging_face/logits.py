"""Logits of model directories, computed in float32 whatever the weights are."""

import json
import sys
import warnings

import torch
import transformers


def logits(directory, tokens):
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        directory, attn_implementation="eager", torch_dtype=torch.float32, output_loading_info=True
    )
    problems = {what: names for what, names in loading.items() if names}
    # A key that is missing is filled with random numbers and a warning that nobody reads.
    assert not problems, f"{directory}: {problems}"
    with torch.no_grad():
        return model.eval()(tokens).logits


def main():
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    for directory, tokens, out in json.load(open(sys.argv[1])):
        torch.save(logits(directory, torch.load(tokens)), out)
    print(transformers.__version__)


if __name__ == "__main__":
    main()
