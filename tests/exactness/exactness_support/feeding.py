"""Where an output channel arrives when only the glue between the layers may carry it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from exactness_support.channels import TOLERANCE, axis, channels_first
from exactness_support.recording import Call
from exactness_support.replacing import output_tensors, replaced_layers

_CHUNK = 128


class Feeds:
    """Where an output channel arrives when only glue may carry it: all layers' outputs are held."""

    def __init__(
        self,
        module: nn.Module,
        names: dict[nn.Module, str],
        calls: list[Call],
        image: torch.Tensor,
        generator: torch.Generator,
        *,
        held: list[torch.Tensor],
    ) -> None:
        self._held = held
        self._module, self._names, self._calls, self._image, self._generator = module, names, calls, image, generator

    def of(
        self, index: int, channels: list[int], *, signs: tuple[float, ...]
    ) -> Iterator[tuple[int, list[tuple[int, int]], bool]]:
        """For each channel of call ``index``: the ``(call, column)`` it changes, and whether it changes an output.

        Each channel is raised or lowered, or both: some glue lets only one of the two through.
        """
        for start in range(0, len(channels), _CHUNK):
            chosen = channels[start : start + _CHUNK]
            columns: list[set[tuple[int, int]]] = [set() for _ in chosen]
            reaches = [False] * len(chosen)
            for sign in signs:
                self._probe(index, chosen, sign, columns, reaches)
            for position, channel in enumerate(chosen):
                yield channel, sorted(columns[position]), reaches[position]

    def _probe(
        self, index: int, chosen: list[int], sign: float, columns: list[set[tuple[int, int]]], reaches: list[bool]
    ) -> None:
        # Sample 0 of the batch is untouched; sample 1 + i has channel chosen[i] changed.
        batch = len(chosen) + 1
        position = -1

        def forward(part: nn.Module, received: torch.Tensor) -> torch.Tensor:
            nonlocal position
            position += 1
            call = self._calls[position]
            flat = channels_first(part, received)
            scale = float(flat[0].abs().max())
            moved = (flat - flat[:1]).abs().amax(dim=2) > TOLERANCE * scale
            if bool(moved.any()):
                for sample, column in moved.nonzero().tolist():
                    columns[sample - 1].add((position, column))
            # A copy: glue such as an in-place ReLU writes into it.
            held = self._held[position].expand(batch, *call.given.shape[1:]).clone()
            if position != index:
                return held
            view = held.movedim(axis(part, held), 1)
            for sample, channel in enumerate(chosen, start=1):
                # So large that no other term of a sum before a ReLU hides it.
                size = 1e3 * (1.0 + float(call.given.abs().max()))
                noise = torch.rand(view[sample, channel].shape, generator=self._generator, dtype=held.dtype)
                view[sample, channel] += sign * size * (0.5 + noise)
            return held

        with torch.no_grad(), replaced_layers(self._names, forward):
            outputs = output_tensors(self._module(self._image.expand(batch, *self._image.shape[1:])))
        for output in outputs:
            changed = (output - output[:1]).abs().reshape(batch, -1).amax(dim=1) > TOLERANCE * float(output.abs().max())
            for sample in changed.nonzero().flatten().tolist():
                reaches[sample - 1] = True
