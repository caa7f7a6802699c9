"""Random small networks: blocks of every kind, composed at will.

A :class:`Recipe` is plain data (hypothesis draws and shrinks it); :func:`build` makes the module.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import nn

from exactness_support.blocks import ACTIVATIONS, KINDS, Block, Downsample, Layer

INPUT_CHANNELS = 3
CLASSES = 5


@dataclass(frozen=True)
class Recipe:
    """A network: stem width (a multiple of 4), input size, blocks, how it ends, and how many outputs it has."""

    blocks: tuple[Block, ...]
    width: int = 8
    size: int = 8
    head: str = "pool"
    outputs: int = 1
    seed: int = 0


class Generated(nn.Module):
    """The network of a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        width = recipe.width
        self.stem = Layer(Block("", "relu"), INPUT_CHANNELS, width)
        self.blocks = nn.ModuleList()
        self.ties = nn.ModuleList()
        size = recipe.size
        for block in recipe.blocks:
            kind = KINDS["residual" if block.kind == "downsample" and size < 6 else block.kind]
            size = (size + 1) // 2 if kind is Downsample else size
            made = kind(block, width)
            width = int(made.outputs)
            self.blocks.append(made)
            # Widths stay multiples of four, which the blocks with groups need.
            self.ties.append(nn.Conv2d(width, width + -width % 4, 1) if width % 4 else nn.Identity())
            width += -width % 4
        self.head_kind = recipe.head
        self.hidden = Layer(Block("", "relu"), width, 8) if recipe.head == "flatten" else nn.Identity()
        features = 8 * size * size if recipe.head == "flatten" else width
        self.neck = nn.Sequential(nn.Linear(features, 12), nn.BatchNorm1d(12), nn.ReLU())
        self.head = nn.Linear(12, CLASSES)
        self.side = nn.Conv2d(recipe.width, 2, 1) if recipe.outputs > 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        early = x = self.stem(x)
        for block, tie in zip(self.blocks, self.ties, strict=True):
            x = tie(block(x))
        x = self.hidden(x)
        x = x.flatten(1) if self.head_kind == "flatten" else x.mean((2, 3))
        logits = self.head(self.neck(x))
        return logits if self.side is None else {"logits": logits, "side": self.side(early)}


def build(recipe: Recipe) -> Generated:
    """The network of ``recipe``, its first weights drawn from the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return Generated(recipe)


def recipes() -> st.SearchStrategy[Recipe]:
    """Recipes of two to four blocks."""
    block = st.builds(
        Block,
        kind=st.sampled_from(sorted(KINDS)),
        activation=st.sampled_from(sorted(ACTIVATIONS)),
        padding=st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]),
        kernel=st.sampled_from([3, 1]),
    )
    return st.builds(
        Recipe,
        blocks=st.lists(block, min_size=2, max_size=4).map(tuple),
        width=st.sampled_from([8, 12]),
        size=st.sampled_from([7, 8]),
        head=st.sampled_from(["pool", "pool", "flatten"]),
        outputs=st.sampled_from([1, 1, 2]),
        seed=st.integers(0, 2**31 - 1),
    )
