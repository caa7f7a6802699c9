"""Coverage of a Pareto front by a few of its points, found exactly. Pure.

A node whose requests may take ``b`` ms serves the most accurate variant that takes at most ``b``. For a set ``S`` of
points on the front, which always holds the fastest and the most accurate one:

    G(S) = largest ln(slower / faster) of neighbours by latency: the widest gap
    A(S) = integral over ln b of (accuracy of the best point within b - accuracy of the best of S within b):
           what the gaps lose, with every factor of latency counting alike

:func:`spread` returns the set of the smallest ``A`` among those whose ``G`` is within a tolerance of the smallest that
there is; of equals the one with the smaller ``G``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

_TOLERANCE = 1e-9


class Point(NamedTuple):
    """One variant on the front."""

    milliseconds: float
    percent: float


def spread(front: Sequence[Point], count: int, *, latency_tolerance_percent: float) -> tuple[int, ...]:
    """The places in ``front`` (by latency, each more accurate than those before) of the ``count`` that cover it best.

    ``count`` is at least 2, and less than the length of ``front``.
    """
    position = [math.log(point.milliseconds) for point in front]
    widths = [after - before for before, after in pairwise(position)]
    # Points times width from the first point on, so that one step costs a subtraction.
    area = [0.0, *accumulate(width * point.percent for width, point in zip(widths, front, strict=False))]

    def gap(before: int, after: int) -> float:
        return position[after] - position[before]

    def lost(before: int, after: int) -> float:
        return area[after] - area[before] - front[before].percent * gap(before, after)

    (narrowest, _), _ = _best_path(len(front), count, gap, lambda reached, step: max(reached, step), gap)
    bound = narrowest + math.log1p(latency_tolerance_percent / 100) + _TOLERANCE

    def lost_within_bound(before: int, after: int) -> float:
        return lost(before, after) if gap(before, after) <= bound else math.inf

    _, path = _best_path(len(front), count, lost_within_bound, lambda reached, step: reached + step, gap)
    return path


def widest_gap(chosen: Sequence[Point]) -> float:
    """``G``: the largest step in log latency between neighbours; 0 of a single point."""
    position = sorted(math.log(point.milliseconds) for point in chosen)
    return max((after - before for before, after in pairwise(position)), default=0.0)


def accuracy_lost(chosen: Sequence[Point], front: Sequence[Point]) -> float:
    """``A``: points of accuracy lost against the whole ``front``, integrated over log latency."""
    lost = 0.0
    for here, after in pairwise(front):
        serving = max(point.percent for point in chosen if point.milliseconds <= here.milliseconds)
        lost += math.log(after.milliseconds / here.milliseconds) * (here.percent - serving)
    return lost


def _best_path(
    size: int,
    count: int,
    cost: Callable[[int, int], float],
    joined: Callable[[float, float], float],
    gap: Callable[[int, int], float],
) -> tuple[tuple[float, float], tuple[int, ...]]:
    """The ``count`` of ``size`` places, with the first and the last, of the smallest ``joined`` cost of their steps.

    Dynamic programming: the best path of each length to each place. Of equal costs the narrower gap is the better.
    """
    best: dict[int, tuple[tuple[float, float], tuple[int, ...]]] = {0: ((0.0, 0.0), (0,))}
    for taken in range(2, count + 1):
        best = {
            after: min(
                ((joined(reached, cost(before, after)), max(widest, gap(before, after))), (*path, after))
                for before, ((reached, widest), path) in best.items()
                if before < after
            )
            for after in range(taken - 1, size)
        }
    return best[size - 1]
