"""Measured splits beside the models that fit one node, and whether a split pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgefolio.records.split_plan import SplitPlan
from edgefolio.shown_text import shown_rate
from edgefolio_pruner.split.planned import PlannedSplit

__all__ = [
    "ComparedPlan",
    "Link",
    "MeasuredSplit",
    "Question",
    "SingleNode",
    "SplitReport",
    "compared_plan",
    "unbeaten",
]


@dataclass(frozen=True, kw_only=True)
class Link:
    """The network between two workers: bits a second, and the round trip of a small message."""

    bits_per_second: float
    round_trip_milliseconds: float

    def milliseconds(self, size: float) -> float:
        """How long so many bytes are on the wire."""
        return 1000 * 8 * size / self.bits_per_second


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of the plans of one way to divide a model; ``most_waits`` bounds their synchronisations."""

    shares: tuple[int, ...]
    wire: Literal["Float32", "UInt8"]
    link: Link
    most_loss_points: float
    layout: Literal["Auto", "Rows", "Channels"] = "Auto"
    most_waits: int | None = None
    fine_tune_epochs: int = 0
    precision: Literal["Float32", "Int8"] = "Float32"


@dataclass(frozen=True, kw_only=True)
class SingleNode:
    """A model that fits one node; ``milliseconds`` is the median of one sample on one thread."""

    name: str
    accuracy_percent: float
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class ComparedPlan:
    """One plan, measured and compared: medians of one sample, one thread for each worker.

    ``compute_milliseconds`` is the slowest worker's, ``own_milliseconds`` that of all shards one after another on one
    node. ``predicted_milliseconds`` adds the link to the first. ``rival`` is the fastest model of one node that is at
    least as accurate, and ``least_bits_per_second`` the slowest link at which the split is faster; None if there is
    none at this round trip.
    """

    title: str
    plan: SplitPlan
    accuracy_percent: float
    compute_milliseconds: float
    own_milliseconds: float
    predicted_milliseconds: float
    bytes_in: int
    input_bytes: int
    rival: SingleNode
    least_bits_per_second: float | None
    accurate_enough: bool

    @property
    def parameters(self) -> int:
        """Of the largest shard."""
        return max(shard.parameters for shard in self.plan.shards)

    @property
    def macs(self) -> int:
        """Of the busiest worker."""
        return max(shard.macs for shard in self.plan.shards)

    @property
    def pays(self) -> bool:
        """Whether it is predicted to be faster than every model of one node that is as accurate."""
        return self.accurate_enough and self.predicted_milliseconds < self.rival.milliseconds


@dataclass(frozen=True, kw_only=True)
class MeasuredSplit(ComparedPlan):
    """A compared plan, and how it was planned."""

    planned: PlannedSplit

    @classmethod
    def of(cls, planned: PlannedSplit, compared: ComparedPlan) -> MeasuredSplit:
        """Both together."""
        return cls(**vars(compared), planned=planned)


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """All plans and all models of one node, the dense one first, on ``samples`` validation samples."""

    shares: tuple[int, ...]
    wire: str
    precision: str
    link: Link
    dense_parameters: int
    dense_macs: int
    dense_bytes: int
    singles: tuple[SingleNode, ...]
    splits: tuple[MeasuredSplit, ...]
    samples: int
    notes: tuple[str, ...]

    @property
    def best(self) -> MeasuredSplit | None:
        """Of the plans that pay the fastest."""
        paying = [split for split in self.splits if split.pays]
        return min(paying, key=lambda split: split.predicted_milliseconds, default=None)

    @property
    def verdict(self) -> str:
        """One sentence: whether a split pays, and from which link on."""
        best = self.best
        if best is not None:
            return (
                f"It pays: the plan '{best.title}' is predicted to take "
                f"{best.predicted_milliseconds:.2f} ms, {best.rival.name} on one node takes "
                f"{best.rival.milliseconds:.2f} ms; from {shown_rate(best.least_bits_per_second)} on."
            )
        near = [split for split in self.splits if split.accurate_enough and split.least_bits_per_second is not None]
        if near:
            least = min(near, key=lambda split: split.least_bits_per_second or 0.0)
            return (
                f"It does not pay over this link; the plan '{least.title}' would from "
                f"{shown_rate(least.least_bits_per_second)} on, at the same round trip."
            )
        if any(split.accurate_enough for split in self.splits):
            return "It does not pay over any link with this round trip: a model of one node is faster."
        if not self.splits:
            return "It does not pay: there is no plan."
        return "It does not pay: no plan is accurate enough."


def compared_plan(
    plan: SplitPlan,
    *,
    title: str,
    accuracy_percent: float,
    compute_milliseconds: Sequence[float],
    input_bytes: int,
    singles: Sequence[SingleNode],
    link: Link,
    most_loss_points: float,
) -> ComparedPlan:
    """A plan with what was measured of it, compared; ``compute_milliseconds`` of each worker."""
    slowest = max(compute_milliseconds)
    busiest = max(plan.bytes_into(rank) for rank in range(plan.workers))
    # The input goes out and the answer comes back once, which is one more round trip.
    trips = plan.synchronisations + 1 if plan.workers > 1 else 0
    size = busiest + input_bytes if plan.workers > 1 else 0
    fixed = slowest + trips * link.round_trip_milliseconds
    as_accurate = [single for single in singles if single.accuracy_percent >= accuracy_percent]
    rivals = as_accurate or [max(singles, key=lambda single: single.accuracy_percent)]
    rival = min(rivals, key=lambda single: single.milliseconds)
    room = rival.milliseconds - fixed
    return ComparedPlan(
        title=title,
        plan=plan,
        accuracy_percent=accuracy_percent,
        compute_milliseconds=slowest,
        own_milliseconds=sum(compute_milliseconds),
        predicted_milliseconds=fixed + link.milliseconds(size),
        bytes_in=busiest,
        input_bytes=input_bytes,
        rival=rival,
        least_bits_per_second=1000 * 8 * size / room if room > 0 else None,
        accurate_enough=accuracy_percent >= singles[0].accuracy_percent - most_loss_points,
    )


def unbeaten(splits: Sequence[MeasuredSplit]) -> list[MeasuredSplit]:
    """Without those that another one beats: as accurate, as fast and with as few weights on a node, and not equal."""
    figures = [(-split.accuracy_percent, split.predicted_milliseconds, split.parameters) for split in splits]
    return [
        split
        for split, mine in zip(splits, figures, strict=True)
        if not any(other != mine and all(o <= m for o, m in zip(other, mine, strict=True)) for other in figures)
    ]
