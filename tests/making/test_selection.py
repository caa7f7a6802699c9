"""Selection: what holds for every set of candidates, and a few sets that were worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefolio_pruner.stages.variant_selection import Candidate, Rules, covers, fastest, most_accurate, select


def candidate(name: str, accuracy: float, milliseconds: float, mebibytes: float = 10) -> Candidate:
    return Candidate(
        name=name,
        accuracy_percent=accuracy,
        latency_milliseconds=milliseconds,
        memory_bytes=int(mebibytes * 2**20),
    )


@st.composite
def candidate_sets(draw: st.DrawFn) -> list[Candidate]:
    values = draw(
        st.lists(
            st.tuples(
                # Coarse grids make ties and near ties common.
                st.integers(0, 400).map(lambda tenth: 60 + tenth / 10),
                st.one_of(st.integers(1, 40).map(float), st.floats(0.1, 100)),
                st.one_of(st.integers(1, 30).map(float), st.floats(0.1, 100)),
            ),
            min_size=1,
            max_size=14,
        )
    )
    return [candidate(f"c{index}" if index else "dense", *value) for index, value in enumerate(values)]


rule_sets = st.builds(
    Rules,
    max_variants=st.integers(1, 8),
    min_accuracy_percent=st.none() | st.floats(50, 105),
    max_accuracy_loss_points=st.none() | st.floats(0, 40),
    accuracy_epsilon_points=st.sampled_from([0.0, 0.3, 1.0]),
    latency_epsilon_percent=st.sampled_from([0.0, 5.0, 30.0]),
    memory_epsilon_percent=st.sampled_from([0.0, 5.0, 30.0]),
)


def meets_floor(one: Candidate, dense: Candidate, rules: Rules) -> bool:
    above = rules.min_accuracy_percent is None or one.accuracy_percent >= rules.min_accuracy_percent - 1e-9
    loss = rules.max_accuracy_loss_points
    return above and (loss is None or one.accuracy_percent >= dense.accuracy_percent - loss - 1e-9)


@settings(max_examples=400, deadline=None)
@given(candidates=candidate_sets(), rules=rule_sets, seed=st.randoms())
def test_what_holds_for_every_choice(candidates, rules, seed):
    choice = select(candidates, dense="dense", rules=rules)
    by_name = {one.name: one for one in candidates}
    chosen = [by_name[name] for name in choice.chosen]
    # Everybody is chosen or rejected with a reason, once.
    assert sorted([*choice.chosen, *(one.name for one in choice.rejected)]) == sorted(by_name)
    assert all(one.reason for one in choice.rejected)
    assert 1 <= len(chosen) <= rules.max_variants
    assert [one.accuracy_percent for one in chosen] == sorted(one.accuracy_percent for one in chosen)
    able = [one for one in candidates if meets_floor(one, by_name["dense"], rules)]
    assert choice.accuracy_floor_met == bool(able)
    if not able:
        assert choice.chosen == ("dense",)
        return
    assert set(choice.chosen) <= {one.name for one in able}
    assert most_accurate(able) in chosen
    if rules.max_variants >= 2:
        assert fastest(able) in chosen
    left_out = {one.name for one in choice.rejected}
    for one in able:
        if one.name in left_out and rules.max_variants > len(chosen):
            assert any(covers(other, one, rules) for other in chosen)
    # The order in which candidates come makes no difference.
    shuffled = list(candidates)
    seed.shuffle(shuffled)
    assert select(shuffled, dense="dense", rules=rules) == choice


@settings(max_examples=150, deadline=None)
@given(candidates=candidate_sets(), count=st.integers(2, 5))
def test_the_spread_is_the_widest_that_there_is(candidates, count):
    rules = Rules(max_variants=count, accuracy_epsilon_points=0, latency_epsilon_percent=0, memory_epsilon_percent=0)
    front = [
        by_name
        for by_name in candidates
        if by_name.name in select(candidates, dense="dense", rules=Rules(max_variants=99, **_no_epsilon())).chosen
    ]
    chosen = set(select(candidates, dense="dense", rules=rules).chosen)
    if len(front) <= count:
        assert chosen == {one.name for one in front}
        return
    ends = {most_accurate(front), fastest(front)}

    def gap(group) -> float:
        latencies = sorted(math.log(one.latency_milliseconds) for one in group)
        return min(later - earlier for earlier, later in itertools.pairwise(latencies))

    widest = max(gap(group) for group in itertools.combinations(front, count) if ends <= set(group))
    assert gap([one for one in front if one.name in chosen]) == pytest.approx(widest)


def _no_epsilon() -> dict[str, float]:
    return {"accuracy_epsilon_points": 0, "latency_epsilon_percent": 0, "memory_epsilon_percent": 0}


def test_a_faster_one_within_the_epsilon_covers_a_slower_one():
    choice = select(
        [candidate("dense", 91, 8), candidate("slow", 90.0, 4), candidate("quick", 89.8, 2), candidate("tiny", 85, 1)],
        dense="dense",
        rules=Rules(max_variants=5),
    )
    assert choice.chosen == ("tiny", "quick", "dense")
    assert choice.rejected[0].name == "slow"
    assert "quick is as good or better" in choice.rejected[0].reason


def test_less_memory_is_a_reason_to_stay():
    candidates = [candidate("dense", 91, 8, 50), candidate("lean", 89, 8.2, 10), candidate("quick", 89.1, 2, 49)]
    assert set(select(candidates, dense="dense", rules=Rules(max_variants=5)).chosen) == {"dense", "lean", "quick"}


def test_nobody_meets_the_floor():
    candidates = [candidate("dense", 91, 8), candidate("small", 80, 2)]
    choice = select(candidates, dense="dense", rules=Rules(max_variants=5, min_accuracy_percent=99))
    assert choice.chosen == ("dense",)
    assert not choice.accuracy_floor_met
    assert [one.name for one in choice.rejected] == ["small"]


def test_the_floor_counts_from_the_dense_model():
    candidates = [candidate("dense", 91, 8), candidate("close", 88.5, 4), candidate("far", 87.9, 2)]
    choice = select(candidates, dense="dense", rules=Rules(max_variants=5, max_accuracy_loss_points=3.0))
    assert choice.chosen == ("close", "dense")
    assert "3 points below the dense model's 91.00 %" in choice.rejected[0].reason


def test_latencies_are_spread_by_their_logarithm():
    candidates = [candidate("dense", 91, 16), candidate("fast", 85, 1)]
    candidates += [
        candidate(f"at{milliseconds}", 90 - 4 / milliseconds, milliseconds) for milliseconds in (12, 8, 4, 2)
    ]
    choice = select(candidates, dense="dense", rules=Rules(max_variants=3))
    assert choice.chosen == ("fast", "at4", "dense")
