"""Events are capped: so many at once, so many a second after that, for each object and for all together."""

from __future__ import annotations

from edgefolio_operator.kube.event_recorder import Budget


def test_a_budget_is_spent_and_comes_back() -> None:
    budget = Budget(burst=3, per_second=0.5, now=100)
    assert budget.is_whole(100)
    assert [budget.spend(100) for _ in range(4)] == [True, True, True, False]
    assert not budget.is_whole(101)
    assert not budget.spend(101)
    assert budget.spend(102)
    assert not budget.spend(102)
    assert budget.is_whole(108)
    # And it never holds more than it may.
    assert [budget.spend(10_000) for _ in range(4)] == [True, True, True, False]
