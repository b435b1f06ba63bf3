"""Runs the real megatron-core on CPU: trains tiny models in any layout, saves them, loads what others saved.

Numbers never depend on the layout: weights and gradients are made from the names of whole parameters, and
megatron-core's own sharded_state_dict says which part a rank has. So a checkpoint trained in one layout is the exact
answer for a view in that layout.

    python -m megatron_core --help                  (from tests/python, with the packages of requirements.txt)

`on_cpu` is what has to be patched where there is no GPU, `specs` names models, layouts and optimizers, `seeded` makes
the numbers, `build` the model and its optimizer, `checkpoint` (rank files) and `torch_dist` save and load as
megatron.training does (which is not on PyPI), `jobs` runs all that in as many processes as the layout has ranks,
`whole` and `compare` put parts together and tell two directories apart. `described` makes a model of a checkpoint's
args, `versions` knows what other versions of megatron-core call otherwise, `te_names` asks for what a model of
Transformer Engine's modules asks for.
"""

import os

# Vector instructions round some operations otherwise than the scalar code for what is left over at the end of a
# tensor, and where the end is depends on the layout. torch looks at this when it starts.
ENVIRONMENT = {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1", "CUDA_DEVICE_MAX_CONNECTIONS": "1"}


def environment_is_set():
    """Whether this process makes the same numbers in every layout."""
    return all(os.environ.get(name) == value for name, value in ENVIRONMENT.items())
