"""What the layers receive and give in a run, and which of it differs between inputs and is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from exactness_support.channels import TOLERANCE, axis, channels_first, varying
from exactness_support.replacing import output_tensors, replaced_layers

_DISTURBED_RUNS = 8
#: Interventions spent on telling unread columns from columns that only look so; after them the rest count as read.
_SEARCHES = 60


@dataclass
class Call:
    """One call of one layer: what it received and gave, and which columns and channels of that are live and read."""

    module: nn.Module
    received: torch.Tensor
    given: torch.Tensor
    live_columns: torch.Tensor
    live_channels: torch.Tensor
    read_columns: torch.Tensor
    read_channels: torch.Tensor


def record(
    module: nn.Module, names: dict[nn.Module, str], inputs: torch.Tensor, generator: torch.Generator
) -> list[Call]:
    """The layers' calls in the order in which they come, after experiments on what is live and read."""
    calls = _run_with_gradients(module, names, inputs, generator)
    for call in calls:
        call.live_columns = varying(call.module, call.received)
        call.live_channels = varying(call.module, call.given)
    # A ReLU that is off for these inputs is not off for all: what is live is disturbed, to see what else moves.
    for _ in range(_DISTURBED_RUNS):
        live = [call.live_columns for call in calls]
        for call, other in zip(calls, _run_with_gradients(module, names, inputs, generator, noise=live), strict=True):
            call.live_columns = call.live_columns | varying(other.module, other.received)
            call.live_channels = call.live_channels | varying(other.module, other.given)
    # A gradient at a point where a ReLU is off or a gate is saturated says nothing: look from other points too.
    everything = [torch.ones_like(call.live_columns) for call in calls]
    for _ in range(_DISTURBED_RUNS):
        runs = _run_with_gradients(module, names, inputs, generator, noise=everything)
        for call, other in zip(calls, runs, strict=True):
            call.read_columns |= other.read_columns
            call.read_channels |= other.read_channels
    _confirm_unread(module, names, calls, inputs, generator)
    return calls


def _run_with_gradients(
    module: nn.Module,
    names: dict[nn.Module, str],
    inputs: torch.Tensor,
    generator: torch.Generator,
    *,
    noise: list[torch.Tensor] | None = None,
) -> list[Call]:
    """One run; ``read_*`` is where a gradient arrives.

    ``noise`` tells for each call which of its input columns are disturbed: each sample by another share of the input's
    size, from 1 % to a hundredfold. ``received`` is what arrived before that.
    """
    calls: list[Call] = []
    tracked: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(part: nn.Module, received: torch.Tensor) -> torch.Tensor:
        arrived = received.detach()
        # A new tensor even without noise: another reader's gradient must not be counted here.
        received = received.clone()
        if noise is not None:
            size = 10 ** (4 * torch.rand(len(received), generator=generator, dtype=received.dtype) - 2)
            size = size * (0.1 + float(arrived.abs().max()))
            disturbance = torch.randn(received.shape, generator=generator, dtype=received.dtype)
            disturbance = disturbance * size.reshape(-1, *[1] * (received.ndim - 1))
            shape = [1] * received.ndim
            shape[axis(part, received)] = -1
            received = received + disturbance * noise[len(calls)].reshape(shape)
        received.retain_grad()
        given = type(part).forward(part, received)
        given.retain_grad()
        tracked.append((received, given))
        none = torch.zeros(0, dtype=torch.bool)
        calls.append(Call(part, arrived, given.detach(), none, none, none, none))
        return given.clone()  # glue such as an in-place ReLU may write into it

    with replaced_layers(names, forward):
        outputs = output_tensors(module(inputs.clone().requires_grad_(True)))
    loss = torch.stack(
        [(output * torch.randn(output.shape, generator=generator, dtype=output.dtype)).sum() for output in outputs]
    ).sum()
    loss.backward()
    for call, (received, given) in zip(calls, tracked, strict=True):
        call.read_columns = _has_gradient(call.module, received)
        call.read_channels = _has_gradient(call.module, given)
    module.zero_grad(set_to_none=True)
    return calls


def _has_gradient(part: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    gradient = tensor.grad if tensor.grad is not None else torch.zeros_like(tensor)
    return channels_first(part, gradient).abs().amax(dim=(0, 2)) > 0


def _confirm_unread(
    module: nn.Module,
    names: dict[nn.Module, str],
    calls: list[Call],
    inputs: torch.Tensor,
    generator: torch.Generator,
) -> None:
    """Large interventions on the columns without a gradient; those that change an output are read after all."""
    with torch.no_grad():
        expected = output_tensors(module(inputs))

    def changes(chosen: dict[int, torch.Tensor]) -> bool:
        for scale in (1.0, 30.0):
            position = -1

            def forward(part: nn.Module, received: torch.Tensor, scale: float = scale) -> torch.Tensor | None:
                nonlocal position
                position += 1
                if position not in chosen:
                    return None
                shape = [1] * received.ndim
                shape[axis(part, received)] = -1
                mask = chosen[position].to(received.dtype).reshape(shape)
                size = scale * (1.0 + float(received.abs().max()))
                noise = torch.randn(received.shape, generator=generator, dtype=received.dtype) * size
                return type(part).forward(part, received + mask * noise)

            with torch.no_grad(), replaced_layers(names, forward):
                got = output_tensors(module(inputs))
            for one, other in zip(expected, got, strict=True):
                if float((one - other).abs().max()) > TOLERANCE * float(one.abs().max()):
                    return True
        return False

    left = _SEARCHES

    def search(chosen: dict[int, torch.Tensor]) -> None:
        nonlocal left
        left -= 1
        total = sum(int(mask.sum()) for mask in chosen.values())
        if total == 0 or (left >= 0 and not changes(chosen)):
            return
        if total == 1 or left < 0:
            for index, mask in chosen.items():
                calls[index].read_columns |= mask
            return
        for half in _halves(chosen, total):
            search(half)

    search({index: ~call.read_columns for index, call in enumerate(calls) if not bool(call.read_columns.all())})


def _halves(chosen: dict[int, torch.Tensor], total: int) -> Iterator[dict[int, torch.Tensor]]:
    columns = [(index, int(column)) for index, mask in chosen.items() for column in mask.nonzero()]
    for part in (columns[: total // 2], columns[total // 2 :]):
        half: dict[int, torch.Tensor] = {}
        for index, column in part:
            half.setdefault(index, torch.zeros_like(chosen[index]))[column] = True
        yield half
