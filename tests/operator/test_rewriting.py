"""An unchanged status is written about every five minutes, and not for all portfolios at once."""

from __future__ import annotations

import itertools

from edgefolio_operator.reconcilers.status_resync import REWRITE_SECONDS, StatusResync


def test_a_status_is_due_at_first_and_then_every_five_minutes_with_jitter() -> None:
    now = 0.0
    rewrites = StatusResync(clock=lambda: now)
    keys = [("models", f"portfolio-{number}") for number in range(200)]
    assert all(rewrites.is_due(key) for key in keys)
    for key in keys:
        rewrites.written(key)
    due = []
    for second in range(0, 500, 10):
        now = float(second)
        due.append(sum(rewrites.is_due(key) for key in keys))
    assert due[int(0.8 * REWRITE_SECONDS / 10) - 1] == 0
    assert due[int(1.2 * REWRITE_SECONDS / 10) + 1] == 200
    # Spread over two minutes: never many at once.
    assert max(later - earlier for earlier, later in itertools.pairwise(due)) < 60
    rewrites.written(keys[0])
    assert not rewrites.is_due(keys[0])
    rewrites.forget(keys[0])
    assert rewrites.is_due(keys[0])
