"""Roles of operators: the small intermediate representation of the passes.

Every node of a program with a tensor value has a :class:`Role`. All that the passes need to know of an operator is in
its role; the table that assigns roles is in :mod:`.operators.registry`.

A *slot* is one position of a value's channel description (see :mod:`.positions`); a slot holds the number of a channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from edgefolio_pruner.spatial.positions import Positions

__all__ = [
    "Attention",
    "Barrier",
    "Constant",
    "Contraction",
    "Effect",
    "Exchange",
    "Input",
    "Map",
    "Mixer",
    "Move",
    "Operand",
    "Output",
    "Role",
]


class Effect(Enum):
    """Effect of a move on a constant channel."""

    KEEPS = "keeps constants"
    PADS = "mixes constants with a padding value"
    KEEPS_ZERO = "keeps zeros only"
    BLURS = "keeps nothing"


@dataclass(frozen=True)
class Input:
    """An input of the network: its channels stay, read or not."""


@dataclass(frozen=True)
class Constant:
    """A weight or constant that is joined with activations by an operator that moves data."""


@dataclass(frozen=True)
class Move:
    """Each slot of the value takes the channel of one slot of the sources, or of several that become one channel.

    ``index`` has shape (ways, *description): positions in the concatenation of the sources' flattened descriptions;
    -1 stands for a slot filled with ``padding_value``.
    """

    sources: tuple[fx.Node, ...]
    index: Positions
    effect: Effect = Effect.KEEPS
    padding_value: float = 0.0


@dataclass(frozen=True)
class Operand:
    """One tensor operand of an elementwise function.

    ``view`` is the shape, with as many axes as the result, to which the operand is brought before it is broadcast;
    ``node`` a value of the program (a weight if it is a ``get_attr`` node).
    """

    node: fx.Node
    view: tuple[int, ...]


class Zeros(Enum):
    """How an elementwise function treats exact zeros among its operands."""

    ORDINARY = "as any value"
    ABSORB = "a zero operand makes the result zero"
    NUMERATOR = "a zero first operand makes the result zero"
    SCALE = "a zero second operand (the scale of a normalization) makes the result independent of the first"


@dataclass(frozen=True)
class Map:
    """An elementwise function of ``operands``, evaluated by ``function`` on tensors of the operands' values.

    ``finite`` tells whether every finite operand gives a finite result: only then may an unread slot hold any
    number.
    """

    operands: tuple[Operand, ...]
    function: Callable[[list[torch.Tensor]], torch.Tensor]
    zeros: Zeros = Zeros.ORDINARY
    finite: bool = True


@dataclass(frozen=True)
class Contraction:
    """A convolution, transposed convolution or linear layer: reads channels and writes new ones.

    ``columns`` (groups, inputs per group): the slots of ``source`` that each group reads. The result's slots are the
    rows in order, ``groups`` times ``outputs per group``. ``exposed`` (taps): whether the tap of the kernel ever reads
    zero padding (always true for transposed convolutions, whose taps do not reach every position).
    """

    kind: str
    source: fx.Node
    weight: fx.Node
    bias: fx.Node | None
    groups: int
    columns: Positions
    outputs_per_group: int
    exposed: NDArray[np.bool_]
    macs_per_weight: int

    @property
    def inputs_per_group(self) -> int:
        """Channels that one group reads."""
        return int(self.columns.shape[1])

    @property
    def is_depthwise(self) -> bool:
        """Whether each group reads a single channel of several."""
        return self.groups > 1 and self.columns.shape[1] == 1

    def as_matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight as (groups, outputs per group, inputs per group, taps), a view where possible."""
        if self.kind == "conv_transpose":
            arranged = weight.reshape(self.groups, self.inputs_per_group, self.outputs_per_group, -1)
            return arranged.transpose(1, 2)
        return weight.reshape(self.groups, self.outputs_per_group, self.inputs_per_group, -1)


@dataclass(frozen=True)
class Mixer:
    """A convolution along the channels of single numbers, as in efficient channel attention.

    It needs every channel of ``source`` in its place along ``axis``: those that are gone are filled in again with
    their constants, which costs next to nothing where a channel is one number. Its result has new channels.
    """

    source: fx.Node
    axis: int


@dataclass(frozen=True)
class Exchange:
    """An identity whose result has channels of its own, so that it may hold other channels than ``source`` does.

    In a network that is divided over workers, each keeps channels of its own of ``source`` and sends some of them; of
    the result it keeps what it owns and what it receives.
    """

    source: fx.Node


@dataclass(frozen=True)
class Attention:
    """Attention over flat values: each head averages its channels of ``value``, weighted by query times key.

    A channel of ``value`` is the channel in the same place of the result. A channel of ``query`` and that of ``key`` in
    the same place are one, a *pair*. All heads that stay keep equally many pairs and equally many channels.
    ``averages`` tells whether the weights always add up to one, so that constants stay what they are.
    """

    query: fx.Node
    key: fx.Node
    value: fx.Node
    mask: fx.Node | None
    heads: int
    scale: float
    causal: bool
    averages: bool

    @property
    def sources(self) -> tuple[fx.Node, fx.Node, fx.Node]:
        """Query, key and value."""
        return self.query, self.key, self.value

    def by_head(self, described: NDArray[Any], size: int) -> NDArray[Any]:
        """What is known per slot of a flat value of ``size`` channels, as (heads, channels per head)."""
        return np.broadcast_to(described.reshape(-1), (size,)).reshape(self.heads, -1)


@dataclass(frozen=True)
class Barrier:
    """An operator without a transfer function: its inputs stay whole and its value is live. ``reason`` is reported."""

    inputs: tuple[fx.Node, ...]
    reason: str


@dataclass(frozen=True)
class Output:
    """The network's outputs."""

    inputs: tuple[fx.Node, ...]


Role = Input | Constant | Move | Map | Contraction | Mixer | Attention | Exchange | Barrier | Output
