"""The few places where megatron-core insists on CUDA or Transformer Engine, each made to work without.

Nothing here changes what is computed or saved; the most that differs from a GPU run is the content of random states.
"""

import contextlib
import functools
import logging
import multiprocessing
import struct
import warnings

import torch
from torch.overrides import TorchFunctionMode


class _CpuDevice(TorchFunctionMode):
    """`device="cuda"` written out in a call (optimizer.py, clip_grads.py) means the CPU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if str(kwargs.get("device", "")).startswith("cuda"):
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


class _Generator:
    """CUDA's default generator as far as its state goes: 8 bytes of seed, 8 bytes of Philox offset."""

    def __init__(self):
        self.manual_seed(0)

    def manual_seed(self, seed):
        self.state = torch.tensor(list(struct.pack("<QQ", seed, 0)), dtype=torch.uint8)

    def get(self, *_, **__):
        return self.state.clone()

    def set(self, state, *_, **__):
        self.state = state.clone()


@contextlib.contextmanager
def _uncoalesced(*_, **__):
    """gloo cannot coalesce collectives; one at a time gives the same."""
    yield None


def _type_of(self, *args, **kwargs):
    """Optimizers compare `param.type()` with 'torch.cuda.BFloat16Tensor' and raise at anything else."""
    with torch._C.DisableTorchFunction():  # else torch calls this function again, by its name
        answer = _tensor_type(self, *args, **kwargs)
    return answer if args or kwargs else answer.replace("torch.", "torch.cuda.", 1)


_tensor_type = torch.Tensor.type


def _set_states(self, parameter, tensors):
    """Load a distributed optimizer also with torch's Adam; megatron-core can with Transformer Engine's or Apex's alone.

    torch's has `step` in every parameter's state. load_parameter_state wants it from the file, which has it in the
    groups, and load_state_dict has set it already, but to one tensor for all, which then counts every parameter's step.
    And masters of a model in float32 are views of its weights, which may be written only without gradients.
    """
    group, order = self.model_param_group_index_map[parameter]
    state = self.optimizer.state[self.optimizer.param_groups[group]["params"][order]]
    if "step" in state:
        state["step"] = state["step"].clone()
        tensors = {**tensors, "step": state["step"]}
    with torch.no_grad():
        _set_states_of_core(self, parameter, tensors)


def _quantize_nothing(parameters, *_, **__):
    assert not parameters, "there are no parameters in float8 here"


def install():
    """Patch torch and megatron-core in this process."""
    warnings.filterwarnings("ignore")
    # Says for every weight that the CPU's random state changed where CUDA's should.
    logging.getLogger("megatron.core.tensor_parallel.random").setLevel(logging.ERROR)
    generator = _Generator()
    torch.cuda.synchronize = lambda *_: None
    torch.cuda.manual_seed = generator.manual_seed
    torch.cuda.get_rng_state = generator.get
    torch.cuda.set_rng_state = generator.set
    # Devices of buffers and of initialised weights; a device is all that megatron-core does with it.
    torch.cuda.current_device = lambda: torch.device("cpu")
    torch.Tensor.cuda = lambda self, *_, **__: self
    torch.Tensor.type = _type_of
    _CpuDevice().__enter__()

    from megatron.core.dist_checkpointing.strategies import filesystem_async
    from megatron.core.distributed import param_and_grad_buffer
    from megatron.core.optimizer import distrib_optimizer
    from megatron.core.tensor_parallel import random
    from megatron.core.transformer import dot_product_attention, multi_latent_attention, multi_token_prediction

    global _set_states_of_core
    _set_states_of_core = distrib_optimizer.DistributedOptimizer._set_main_param_and_optimizer_states
    distrib_optimizer.DistributedOptimizer._set_main_param_and_optimizer_states = _set_states
    random._get_cuda_rng_state = generator.get
    random._set_cuda_rng_state = generator.set
    param_and_grad_buffer._coalescing_manager = _uncoalesced

    # Writing a checkpoint wants a process that is started anew, which imports everything once more.
    queue = functools.cache(lambda: multiprocessing.get_context("fork").Manager().Queue())
    filesystem_async._get_write_results_queue = queue

    # 0.12 calls this for no parameters at all, and Transformer Engine is what raises then.
    if hasattr(distrib_optimizer, "quantize_param_shard"):
        distrib_optimizer.quantize_param_shard = _quantize_nothing
    # The unreleased megatron-core asks whether a linear layer is of a class that there is with Transformer Engine alone.
    if hasattr(multi_token_prediction, "is_inference_column_parallel_linear"):
        multi_token_prediction.is_inference_column_parallel_linear = lambda module: False

    # Multi-latent attention asks whether its layers are Transformer Engine's, and passes sizes that only Transformer
    # Engine's attention knows. Attention itself holds no parameters.
    multi_latent_attention.TELinear = type("TELinear", (), {})
    init = dot_product_attention.DotProductAttention.__init__
    dot_product_attention.DotProductAttention.__init__ = (
        lambda self, *args, k_channels=None, v_channels=None, **kwargs: init(self, *args, **kwargs)
    )
