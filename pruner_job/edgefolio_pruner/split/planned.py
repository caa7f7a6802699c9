"""Plans as values: with which steps, which owners and weights, and with their shards."""

from __future__ import annotations

from dataclasses import dataclass

from edgefolio_pruner.split.channels.adjusting import LayerResidual
from edgefolio_pruner.split.channels.ownership import Ownership
from edgefolio_pruner.split.channels.statistics import State
from edgefolio_pruner.split.making import MadeSplit
from edgefolio_split.executor import SplitExecutor

__all__ = ["PlannedSplit", "Recipe", "ShapedSplit"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Which of the steps are taken: all of them, unless their worth is measured."""

    restructure: bool = True
    swaps: bool = True
    second_order: bool = True
    adjust: bool = True
    relu_aware: bool = True


@dataclass(frozen=True, eq=False, kw_only=True)
class ShapedSplit:
    """Owners, transfers and weights of one plan, before there are shards: ``state`` is that of the masked net.

    ``keep`` of the dense exchange's bytes were asked for, ``dense_bytes`` is all of them and ``bytes_in`` what is sent
    into all workers, each in float32. The objective is that of restructuring, the swap loss that of the swaps.
    """

    keep: float
    ownership: Ownership
    state: State
    dense_bytes: int
    bytes_in: int
    start: str
    contiguous_objective: float
    objective: float
    swap_loss_before: float
    swap_loss: float
    residuals: tuple[LayerResidual, ...]
    exact: bool

    @property
    def loses(self) -> bool:
        """Whether anything is missing."""
        return self.bytes_in < self.dense_bytes


@dataclass(frozen=True, eq=False, kw_only=True)
class PlannedSplit:
    """One plan with its shards. By rows there is no :class:`ShapedSplit`: the weights are the dense model's."""

    shaped: ShapedSplit | None
    made: MadeSplit
    seconds: float

    @property
    def keep(self) -> float | None:
        """The part of the dense exchange's bytes that was asked for, of a plan by channels."""
        return None if self.shaped is None else self.shaped.keep

    @property
    def title(self) -> str:
        """The plan in a few words: how it divides, and the part of the dense exchange's bytes that it asks for."""
        rows = "" if self.made.plan.layout == "Channels" else "rows"
        if self.keep is None:
            return rows
        until = f"rows until {self.made.plan.rows_until}, then " if rows else ""
        return f"{until}channels, {100 * self.keep:.3g} %"

    @property
    def short_title(self) -> str:
        """As :attr:`title`, for a column of a table."""
        parts = ["" if self.made.plan.layout == "Channels" else "rows"]
        parts.append("" if self.keep is None else f"{100 * self.keep:.3g} %")
        return "+".join(part for part in parts if part)

    @property
    def bytes_in(self) -> int:
        """Bytes a sample into all workers."""
        plan = self.made.plan
        return sum(plan.bytes_into(rank) for rank in range(plan.workers))

    def executor(self) -> SplitExecutor:
        """The reference executor of its shards."""
        return SplitExecutor(self.made.plan, lambda name: self.made.files[name])
