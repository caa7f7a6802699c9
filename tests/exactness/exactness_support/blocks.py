"""Blocks of every kind that the compiler knows, of which random networks are made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Block:
    """One block: its kind, an activation, a padding mode and a kernel size."""

    kind: str
    activation: str = "relu"
    padding: str = "zeros"
    kernel: int = 3


ACTIVATIONS = {
    "relu": nn.ReLU,
    "relu_in_place": lambda: nn.ReLU(inplace=True),
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "none": nn.Identity,
}


class Layer(nn.Sequential):
    """Convolution, batch norm or bias, activation."""

    def __init__(
        self, block: Block, inputs: int, outputs: int, *, stride: int = 1, groups: int = 1, norm: bool = True
    ) -> None:
        mode = block.padding if block.kernel > 1 else "zeros"
        super().__init__(
            nn.Conv2d(
                inputs,
                outputs,
                block.kernel,
                stride,
                block.kernel // 2,
                groups=groups,
                bias=not norm,
                padding_mode=mode,
            ),
            nn.BatchNorm2d(outputs) if norm else nn.Identity(),
            ACTIVATIONS[block.activation](),
        )


class _Chain(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width + 4
        self.first = Layer(block, width, width + 4)
        self.second = Layer(Block("", block.activation), width + 4, self.outputs, norm=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


class _Residual(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.body = nn.Sequential(Layer(block, width, width), Layer(Block("", "none"), width, width))
        self.activation = ACTIVATIONS[block.activation]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(x + self.body(x))


class _PreActivation(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.norm = nn.BatchNorm2d(width)
        self.activation = ACTIVATIONS[block.activation]()
        self.body = nn.Sequential(Layer(block, width, width), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - self.body(self.activation(self.norm(x))) * 0.5


class Downsample(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width + 4
        self.body = nn.Sequential(
            Layer(block, width, self.outputs, stride=2), Layer(Block("", "none"), self.outputs, self.outputs)
        )
        self.short = nn.Sequential(nn.Conv2d(width, self.outputs, 1, 2, bias=False), nn.BatchNorm2d(self.outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.body(x) + self.short(x))


class _Depthwise(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.expand = Layer(Block("", block.activation, kernel=1), width, 2 * width)
        self.depthwise = Layer(block, 2 * width, 2 * width, groups=2 * width)
        self.project = Layer(Block("", "none", kernel=1), 2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.project(self.depthwise(self.expand(x)))


class _Grouped(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.before = Layer(Block("", block.activation, kernel=1), width, width)
        self.grouped = Layer(block, width, 2 * width, groups=4)
        self.after = Layer(Block("", "none", kernel=1), 2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.grouped(self.before(x)))


class _Concat(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width + 8
        self.first = Layer(block, width, 4)
        self.second = Layer(Block("", block.activation), width + 4, 4, norm=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([x, self.first(x)], dim=1)
        return torch.cat([self.second(x), x], dim=1)


class _Chunk(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.body = Layer(block, width // 2, width // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=1)
        return torch.cat([self.body(second), first], dim=1)


class _Split(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.sizes = [width // 4, width - width // 4]
        self.outputs = self.sizes[1]
        self.gate = Layer(block, self.sizes[0], self.sizes[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = torch.split(x, self.sizes, dim=1)
        return second * torch.sigmoid(self.gate(first))


class _Shuffle(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.first = Layer(Block("", block.activation, kernel=1), width, width, groups=2)
        self.second = Layer(block, width, width, groups=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        return self.second(x)


class _SqueezeExcite(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.body = Layer(block, width, width)
        self.reduce = nn.Conv2d(width, 4, 1)
        self.grow = nn.Conv2d(4, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        gate = self.grow(F.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(gate)


class _Eca(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.body = Layer(block, width, width)
        self.slide = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        gate = self.slide(x.mean((2, 3)).unsqueeze(1)).squeeze(1)
        return x * torch.sigmoid(gate)[:, :, None, None]


class _PixelShuffle(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.body = Layer(block, width, 4 * width)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(self.shuffle(self.body(x)), 2)


class _Transposed(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.up = nn.ConvTranspose2d(width, width, 3, 2, 1, 1, groups=2 if block.kernel == 1 else 1)
        self.down = Layer(Block("", block.activation, block.padding), width, width, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.relu(self.up(x)))


class _Shared(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.body = Layer(block, width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.body(x)) + x


class _Pad(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.mode = {"zeros": "constant"}.get(block.padding, block.padding)
        self.value = 0.5 if block.kernel == 1 else 0.0
        self.body = nn.Conv2d(width, width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "constant":
            return F.relu(self.body(F.pad(x, (1, 1, 1, 1), value=self.value)))
        return F.relu(self.body(F.pad(x, (1, 1, 1, 1), mode=self.mode)))


class _AveragePool(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.body = Layer(block, width, width)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=block.kernel == 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.body(x))


class _MaxPool(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.body = Layer(block, width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(self.body(x), 3, 1, 1)


class _Interpolate(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.mode = "nearest" if block.kernel == 1 else "bilinear"
        self.body = Layer(block, width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[2:]
        bigger = F.interpolate(x, scale_factor=2.0, mode=self.mode)
        return self.body(F.interpolate(bigger, size=size, mode=self.mode))


class _Norm(nn.Module):
    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.body = Layer(block, width, width)
        self.layer = nn.LayerNorm(width) if block.kernel == 3 else None
        self.group = nn.GroupNorm(2, width) if block.kernel != 3 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        if self.layer is not None:
            return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        assert self.group is not None
        return self.group(x)


class _Perceptron(nn.Module):
    """Linear layers over the last axis, channels last, as in ConvNeXt."""

    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        self.outputs = width
        self.grow = nn.Linear(width, 2 * width)
        self.activation = ACTIVATIONS[block.activation]()
        self.shrink = nn.Linear(2 * width, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.shrink(self.activation(self.grow(x.permute(0, 2, 3, 1)))) * self.scale
        return x + y.permute(0, 3, 1, 2)


KINDS: dict[str, type[nn.Module]] = {
    "chain": _Chain,
    "residual": _Residual,
    "pre_activation": _PreActivation,
    "downsample": Downsample,
    "depthwise": _Depthwise,
    "grouped": _Grouped,
    "concat": _Concat,
    "chunk": _Chunk,
    "split": _Split,
    "shuffle": _Shuffle,
    "squeeze_excite": _SqueezeExcite,
    "eca": _Eca,
    "pixel_shuffle": _PixelShuffle,
    "transposed": _Transposed,
    "shared": _Shared,
    "pad": _Pad,
    "average_pool": _AveragePool,
    "max_pool": _MaxPool,
    "interpolate": _Interpolate,
    "norm": _Norm,
    "perceptron": _Perceptron,
}
