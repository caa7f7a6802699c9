"""Settings of operators that move a window over maps: strides, dilations and padding, also by ``auto_pad``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from edgefolio_pruner.onnx_source.graph import Node

__all__ = ["Window", "padded", "window_of"]


@dataclass(frozen=True, kw_only=True)
class Window:
    """``before`` and ``after`` are the amounts of padding of each axis; ``same`` says by which side auto_pad pads."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    same: str | None

    @property
    def even(self) -> bool:
        """Whether both sides are padded alike, by amounts that are known without samples."""
        return self.same is None and self.before == self.after

    def amounts(self, sizes: Any) -> list[tuple[int, int]]:
        """Padding before and after, for maps of these sizes."""
        if self.same is None:
            return list(zip(self.before, self.after, strict=True))
        found = []
        for size, kernel, stride, dilation in zip(sizes, self.kernel, self.stride, self.dilation, strict=True):
            total = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
            less, more = total // 2, total - total // 2
            found.append((less, more) if self.same == "SAME_UPPER" else (more, less))
        return found


def window_of(node: Node, kernel: tuple[int, ...]) -> Window:
    """The window that the attributes of ``node`` describe."""
    axes = len(kernel)
    pads = tuple(node.attributes.get("pads", [0] * (2 * axes)))
    automatic = node.attributes.get("auto_pad", "NOTSET")
    if automatic == "VALID":
        pads = (0,) * (2 * axes)
    return Window(
        kernel=kernel,
        stride=tuple(node.attributes.get("strides", [1] * axes)),
        dilation=tuple(node.attributes.get("dilations", [1] * axes)),
        before=pads[:axes],
        after=pads[axes:],
        same=automatic if automatic in ("SAME_UPPER", "SAME_LOWER") else None,
    )


def padded(value: torch.Tensor, amounts: list[tuple[int, int]], fill: float = 0.0) -> torch.Tensor:
    """``value`` with the last axes padded."""
    if not any(one for pair in amounts for one in pair):
        return value
    return functional.pad(value, [one for pair in reversed(amounts) for one in pair], value=fill)
