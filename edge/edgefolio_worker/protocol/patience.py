"""How long a split's answer is waited for before the fallback answers instead."""

from __future__ import annotations

__all__ = ["abandon_milliseconds", "probe_milliseconds"]

LEAST_MILLISECONDS = 50.0
LEAST_WITHOUT_BUDGET = 100.0


def abandon_milliseconds(predicted: float, *, budget: float | None = None, fallback: float = 0.0) -> tuple[float, bool]:
    """The abandon time, and whether a fallback that starts then is still in time. All in milliseconds.

    ``predicted`` is the split's 95th percentile as predicted, ``budget`` the latency objective, ``fallback`` the
    fallback's 95th percentile here and now. Where the budget leaves room for both, what the fallback leaves of it is
    waited. Where it does not, the fallback would be late in any case: twice the prediction. Without an objective five
    times the prediction, and at least 100 ms.
    """
    if budget is None:
        return max(LEAST_WITHOUT_BUDGET, 5 * predicted), True
    left = budget - fallback
    if left >= predicted:
        return left, True
    return max(LEAST_MILLISECONDS, 2 * predicted), False


def probe_milliseconds(predicted: float) -> float:
    """How fast a probe job must be to count as good: twice the prediction, and never asked for less than 50 ms."""
    return max(LEAST_MILLISECONDS, 2 * predicted)
