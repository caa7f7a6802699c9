"""A score with its 95 % interval, and what it is in percent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgefolio.errors import UserError
from edgefolio.manifest import Accuracy

_DEVIATIONS = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class Score:
    """The value of a metric in its own unit, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def jackknife(value: float, without: Sequence[float]) -> Score:
    """``value`` with the interval that the values without each group of samples give."""
    groups = len(without)
    if groups < 2:
        return Score(value=value, low=value, high=value)
    mean = math.fsum(without) / groups
    spread = math.sqrt((groups - 1) / groups * math.fsum((one - mean) ** 2 for one in without))
    return Score(value=value, low=value - _DEVIATIONS * spread, high=value + _DEVIATIONS * spread)


def share_percent(score: Score, *, samples: int) -> Accuracy:
    """A share (0 to 1) in percent."""
    percent, low, high = (100 * min(1.0, max(0.0, number)) for number in (score.value, score.low, score.high))
    return Accuracy(percent=percent, low_percent=min(low, percent), high_percent=max(high, percent), samples=samples)


def percent_of_dense(score: Score, dense: Score, *, higher_is_better: bool, samples: int) -> Accuracy:
    """A score in percent of the dense model's: of errors the inverse ratio, so that more is better. At most 100."""

    def percent(number: float) -> float:
        if higher_is_better:
            return 100 * min(1.0, max(0.0, number / dense.value))
        if number <= dense.value:
            return 100.0
        return 100 * max(0.0, dense.value) / number

    ends = (percent(score.low), percent(score.high))
    own = percent(score.value)
    return Accuracy(percent=own, low_percent=min(*ends, own), high_percent=max(*ends, own), samples=samples)


def require_comparable(dense: Score, *, higher_is_better: bool, field: str, value: str) -> None:
    """Raise :class:`UserError` for ``field`` if nothing can be said in percent of the dense model's score."""
    if (higher_is_better and dense.value > 0) or (not higher_is_better and dense.value >= 0):
        return
    raise UserError(
        f"the dense model's score is {dense.value:g}, and scores are compared in percent of it.",
        field=field,
        value=value,
        remedy="Return a number above 0 for it: a share with direction Higher, or an error with direction Lower.",
    )
