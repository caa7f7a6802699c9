"""Make a freshly built net look trained, so that no layer hides.

With the usual initial weights most nets prove nothing: zero-initialised scales at the end of residual branches and
uncalibrated batch norms hide whole layers, and a wrong compiler would pass. Here every scale is away from zero, every
shift is not zero, and batch-norm statistics are those of real activations.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

#: Running variances below this share of the layer's largest are raised to it: a channel that is constant on the
#: calibration batch would otherwise be scaled by 1 / sqrt(eps) and drown every rounding error of the net in its own.
_SMALLEST_VARIANCE_SHARE = 1e-2


def look_trained(module: nn.Module, example: torch.Tensor, *, seed: int) -> None:
    """Give ``module`` trained-looking parameters and calibrated batch norms, in place; it ends in evaluation mode.

    ``example`` is one batch ``[samples, channels, height, width]`` with at least 8 samples.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        done: set[int] = set()
        for part in module.modules():
            if isinstance(part, _ConvNd | nn.Linear):
                fan_in = part.weight[0].numel()
                if isinstance(part, nn.ConvTranspose2d):
                    fan_in = part.weight.numel() // part.out_channels
                _draw(part.weight, generator, scale=(1.6 / fan_in) ** 0.5)
                done.add(id(part.weight))
                if part.bias is not None:
                    _draw(part.bias, generator, scale=0.2)
                    done.add(id(part.bias))
        for name, parameter in module.named_parameters():
            if id(parameter) not in done:
                _vary(name, parameter, generator)
        _calibrate(module, example)
    module.eval()


def _draw(parameter: torch.Tensor, generator: torch.Generator, *, scale: float) -> None:
    parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype) * scale)


def _vary(name: str, parameter: torch.Tensor, generator: torch.Generator) -> None:
    """Norm scales and shifts, layer scales, and other parameters that start as a constant."""
    if parameter.numel() > 1 and float(parameter.std()) > 0.05 * float(parameter.abs().mean()):
        return  # embeddings and the like are already drawn at random
    uniform = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
    if float(parameter.abs().max()) == 0.0 and not name.endswith(("weight", "gamma", "gain", "scale")):
        varied = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
    else:
        sign = torch.where(torch.rand(parameter.shape, generator=generator) < 0.1, -1.0, 1.0)
        varied = (0.5 + uniform) * sign
    parameter.copy_(varied.to(parameter.dtype))


def _calibrate(module: nn.Module, example: torch.Tensor) -> None:
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    module.eval()
    momenta = [part.momentum for part in norms]
    for part in norms:
        part.reset_running_stats()
        part.momentum = None
        part.training = True
    module(example)
    for part, momentum in zip(norms, momenta, strict=True):
        part.momentum = momentum
        part.training = False
        assert part.running_var is not None
        part.running_var.clamp_(min=max(1e-3, _SMALLEST_VARIANCE_SHARE * float(part.running_var.max())))
