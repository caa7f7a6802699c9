"""What a claim gives for one network and seed, and its mean over the seeds with an interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.variants.tables.goals import Goal
from scipy import stats

LEAST_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured value. ``spread`` is its 10th and 90th percentile within the run, where it is a ratio of times."""

    claim: str
    measure: str
    net: str
    seed: int
    value: float
    spread: tuple[float, float] | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The row for JSON; what is absent is left out."""
        document: dict[str, Any] = {
            "claim": self.claim,
            "measure": self.measure,
            "net": self.net,
            "seed": self.seed,
            "value": round(self.value, 4),
        }
        if self.spread is not None:
            document["spread"] = [round(bound, 4) for bound in self.spread]
        if self.detail:
            document["detail"] = dict(self.detail)
        return document

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Row:
        """The row that :meth:`document` wrote."""
        spread = document.get("spread")
        return cls(**{**document, "spread": None if spread is None else (spread[0], spread[1])})


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One goal on one network, over its seeds."""

    values: tuple[float, ...]
    seeds: tuple[int, ...]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % interval (Student's t); None for one seed."""
        count = len(self.values)
        if count < 2:
            return None
        quantile = float(stats.t.ppf(0.975, count - 1))
        return quantile * statistics.stdev(self.values) / math.sqrt(count)

    @property
    def complete(self) -> bool:
        """Whether there are enough seeds to claim it."""
        return len(self.values) >= LEAST_SEEDS


def cell(rows: Iterable[Row], goal: Goal, net: str) -> Cell | None:
    """The values of ``goal`` on ``net``, by seed; None if it was not measured."""
    found = sorted(
        (row.seed, row.value) for row in rows if (row.claim, row.measure, row.net) == (goal.claim, goal.measure, net)
    )
    if not found:
        return None
    return Cell(values=tuple(value for _, value in found), seeds=tuple(seed for seed, _ in found))


def ratio(slow: Sequence[float], fast: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """How often ``fast`` fits into ``slow``: median, and 10th and 90th percentile, of the ratios within the rounds."""
    ratios = sorted(one / other for one, other in zip(slow, fast, strict=True))
    last = len(ratios) - 1
    return statistics.median(ratios), (ratios[round(0.1 * last)], ratios[round(0.9 * last)])
