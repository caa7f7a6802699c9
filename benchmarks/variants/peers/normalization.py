"""Batch norms and data: statistics taken anew, and statistics taken without changing what the net computes."""

from __future__ import annotations

import copy

import torch
from torch import nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def re_estimated(module: nn.Module, images: torch.Tensor) -> nn.Module:
    """A copy whose batch norms hold the mean and variance that they see on ``images``, batch by batch."""
    module = copy.deepcopy(module)
    norms = [layer for layer in module.modules() if isinstance(layer, _NORMS)]
    for norm in norms:
        norm.reset_running_stats()
        # The plain mean over the batches, not a moving one.
        norm.momentum = None
    module.train()
    with torch.no_grad():
        for chunk in images.split(128):
            module(chunk)
    for norm in norms:
        norm.momentum = 0.1
    return module.eval()


def restated(module: nn.Module, images: torch.Tensor) -> nn.Module:
    """A copy that computes the same in evaluation mode, with the statistics of ``images`` in its batch norms.

    A refit writes its offsets into running means. In training mode these are not read, so that the first step would
    lose the refit; here scale and shift take over what the running statistics said.
    """
    module = copy.deepcopy(module).eval()
    norms = [layer for layer in module.modules() if isinstance(layer, _NORMS)]
    seen: dict[nn.Module, list[torch.Tensor]] = {norm: [] for norm in norms}

    def look(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        values = inputs[0].double().transpose(0, 1).flatten(1)
        moments = torch.stack([torch.full_like(values[:, 0], values.shape[1]), values.sum(1), values.square().sum(1)])
        seen[norm].append(moments)

    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    with torch.no_grad():
        for chunk in images.split(128):
            module(chunk)
        for hook in hooks:
            hook.remove()
        for norm in norms:
            count, total, squares = torch.stack(seen[norm]).sum(0)
            mean = total / count
            variance = (squares / count - mean.square()).clamp_min(0)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            held = norm.running_var.double() + norm.eps
            factor = norm.weight.double() / held.sqrt()
            norm.bias.add_((factor * (mean - norm.running_mean.double())).to(norm.bias.dtype))
            norm.weight.copy_(factor * (variance + norm.eps).sqrt())
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
    return module
