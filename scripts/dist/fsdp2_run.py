"""A transformers model under FSDP2 on gloo ranks, for scripts that save or load one.

What a model holds before loading is NaN, so that what was not loaded shows.
"""

import tempfile
from types import SimpleNamespace

import common

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import state_dict as by_name
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import AutoConfig, AutoModelForCausalLM

BATCH, LENGTH = 4, 12
RATES = {"lr": 1e-3, "betas": (0.9, 0.95), "weight_decay": 0.1}
# Of an optimizer that is to be loaded: what the checkpoint has takes their place, and where it does not that shows in the next step.
OTHER_RATES = {"lr": 1.0, "betas": (0.5, 0.5), "eps": 0.5, "weight_decay": 0.5}


class Run:
    """A rank's part of a sharded model, and its AdamW."""

    def __init__(self, config, seed=None, dtype=None):
        """`config` is a directory with config.json, which says `dtype` too; weights are random numbers from `seed`, or NaN without."""
        self.config = AutoConfig.from_pretrained(config)
        torch.manual_seed(seed or 0)
        self.model = AutoModelForCausalLM.from_config(self.config, dtype=dtype or self.config.dtype or torch.float32)
        if seed is None:
            for parameter in self.model.parameters():
                parameter.data.fill_(torch.nan)
        mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
        for layer in self.model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), **(OTHER_RATES if seed is None else RATES))

    def step(self, number):
        """One step on made tokens, each rank with its share of the batch; on made gradients where FSDP2 does not compute on CPUs."""
        (self._compute if hasattr(torch.cpu.Stream, "record_event") else self._make)(number)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _make(self, number):
        dice = torch.Generator().manual_seed(number)
        for parameter in self.model.parameters():
            gradient = torch.randn(parameter.shape, generator=dice).to(parameter.dtype)
            parameter.grad = distribute_tensor(gradient, parameter.device_mesh, parameter.placements)

    def _compute(self, number):
        ranks, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        dice = torch.Generator().manual_seed(number)
        tokens = torch.randint(self.config.vocab_size, (ranks * BATCH, LENGTH), generator=dice)[rank * BATCH : (rank + 1) * BATCH]
        self.model(input_ids=tokens, labels=tokens).loss.backward()

    def state(self, has_optimizer=True):
        """What is saved, and what is loaded into."""
        model = by_name.get_model_state_dict(self.model)
        return model, by_name.get_optimizer_state_dict(self.model, self.optimizer) if has_optimizer else None

    def whole(self, has_optimizer=True):
        """{name: whole tensor}, and {name: value} of what is no tensor; every rank must call it."""
        model, optimizer = self.state(has_optimizer)
        tensors = {f"model.{name}": full(tensor) for name, tensor in model.items()}
        for name, states in optimizer["state"].items() if has_optimizer else ():
            tensors |= {f"optim.state.{name}.{kind}": full(tensor) for kind, tensor in states.items()}
        groups = optimizer["param_groups"] if has_optimizer else []
        return tensors, {f"param_groups.{at}": group for at, group in enumerate(groups)}


def full(tensor):
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu().clone()


def save_dcp(run, directory):
    model, optimizer = run.state()
    dcp.save({"model": model, "optim": optimizer}, checkpoint_id=directory)


def load_dcp(run, directory, keys, has_optimizer):
    """`keys`: what the model's and the optimizer's part are called; an empty one for parts that are at the root."""
    model, optimizer = run.state(has_optimizer)
    asked = {}
    for key, part in zip(keys, (model, optimizer)):
        asked |= {} if part is None else {key: part} if key else part
    dcp.load(asked, checkpoint_id=directory)
    take(run, model, optimizer)


def load_of_megatron(run, directory):
    """A run of Megatron: 32-bit weights from its masters, and the optimizer's state. It does not have settings by name, so they stay."""
    model, optimizer = run.state()
    states = {name: states | {"master": model[name]} for name, states in optimizer["state"].items()}
    dcp.load({"optim": {"state": states}}, checkpoint_id=directory)
    optimizer["state"] = {name: {kind: of[kind] for kind in of if kind != "master"} for name, of in states.items()}
    take(run, {name: states[name]["master"] for name in model}, optimizer)


def take(run, model, optimizer):
    by_name.set_model_state_dict(run.model, model)
    if optimizer:
        by_name.set_optimizer_state_dict(run.model, run.optimizer, optimizer)


def accelerate():
    """accelerate's plugin for FSDP2, and what its functions ask of an accelerator; a real one does not shard on a CPU."""
    from accelerate import PartialState
    from accelerate.utils import FullyShardedDataParallelPlugin

    PartialState(cpu=True)  # its log asks for it
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type="SHARDED_STATE_DICT", reshard_after_forward=True)
    distributed = torch.distributed
    accelerator = SimpleNamespace(
        wait_for_everyone=distributed.barrier,
        num_processes=distributed.get_world_size(),
        process_index=distributed.get_rank(),
        is_main_process=distributed.get_rank() == 0,
        is_fsdp2=True,
    )
    return plugin, accelerator


def save_accelerate(run, directory):
    from accelerate.utils.fsdp_utils import save_fsdp_model, save_fsdp_optimizer

    plugin, accelerator = accelerate()
    save_fsdp_model(plugin, accelerator, run.model, directory)
    save_fsdp_optimizer(plugin, accelerator, run.optimizer, run.model, directory)


def load_accelerate(run, directory, has_optimizer):
    from accelerate.utils.fsdp_utils import load_fsdp_model, load_fsdp_optimizer

    plugin, accelerator = accelerate()
    load_fsdp_model(plugin, accelerator, run.model, directory)
    if has_optimizer:
        load_fsdp_optimizer(plugin, accelerator, run.optimizer, run.model, directory)


def is_accelerate(directory):
    return (directory / "pytorch_model_fsdp_0").is_dir()


def on_ranks(world, function, *arguments, name):
    """`function(results, *arguments)` on each rank; `results` is a directory, and what rank 0 put there with `keep` is returned."""
    import ranks

    with tempfile.TemporaryDirectory() as results:
        ranks.run(world, function, results, *arguments, name=name, timeout=300)
        return torch.load(f"{results}/kept.pt", weights_only=False)


def keep(results, **values):
    if torch.distributed.get_rank() == 0:
        torch.save(values, f"{results}/kept.pt")


def write(path, whole):
    tensors, said = whole
    common.write(path, tensors, said | common.versions())
