"""A stand-in for FusedAdam of Transformer Engine and Apex, which runs on GPUs use in place of torch's AdamW.

It needs CUDA, and what it saves differs: `step` is an integer of the parameter group and not a tensor of every
parameter, and groups have fewer fields (apex/optimizers/fused_adam.py,
transformer_engine/pytorch/optimizers/fused_adam.py). The arithmetic is written out.
"""

import torch


class FusedAdam(torch.optim.Optimizer):
    """The constructor's defaults, and so the fields of parameter groups, are those of the real one."""

    def __init__(
        self,
        params,
        lr=1e-3,
        bias_correction=True,
        betas=(0.9, 0.999),
        eps=1e-8,
        adam_w_mode=True,
        weight_decay=0.0,
        **_,
    ):
        assert adam_w_mode
        defaults = {
            "lr": lr,
            "bias_correction": bias_correction,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            if not group["params"]:
                continue
            group["step"] = group.get("step", 0) + 1
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                self._update(group, parameter, state["exp_avg"], state["exp_avg_sq"])

    @staticmethod
    def _update(group, parameter, first, second):
        (one, two), step, gradient = group["betas"], group["step"], parameter.grad
        first.mul_(one).add_(gradient * (1 - one))
        second.mul_(two).add_(gradient * gradient * (1 - two))
        size = (second / (1 - two**step)).sqrt_().add_(group["eps"])
        change = first / (1 - one**step) / size + group["weight_decay"] * parameter
        parameter.sub_(change.mul_(group["lr"]))


def install():
    """Make megatron-core of this process believe that Apex is there, as far as Adam goes."""
    from megatron.core import optimizer
    from megatron.core.optimizer import distrib_optimizer

    optimizer.Adam = distrib_optimizer.Adam = FusedAdam
    optimizer.USING_PYTORCH_OPTIMIZER = False
    distrib_optimizer.HAVE_APEX_OR_TE = distrib_optimizer.USING_APEX_OPTIMIZER = True
