"""Selection: what holds for every set of candidates, and a few sets that were worked out by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefolio.manifest import Accuracy
from edgefolio_pruner.stages.coverage import Point, accuracy_lost, spread, widest_gap
from edgefolio_pruner.stages.variant_selection import (
    Candidate,
    Rules,
    fastest,
    front_of,
    most_accurate,
    select,
    stands_in,
    ties_and_is_faster,
)


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
    found = [candidate(f"c{index}" if index else "dense", *value) for index, value in enumerate(values)]
    half = draw(st.none() | st.sampled_from([0.0, 0.2, 0.7, 5.0]))
    if half is None:
        return found
    return [replace(one, accuracy_interval=(one.accuracy_percent - half, one.accuracy_percent + half)) for one in found]


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
    # The best of the portfolio is the most accurate, or ties with it directly: no chain of ties leads away from it.
    best, target = most_accurate(chosen), most_accurate(able)
    assert best == target or ties_and_is_faster(best, target, rules)
    if rules.max_variants >= 2:
        assert fastest(able) in chosen
    left_out = {one.name for one in choice.rejected}
    for one in able:
        if one.name in left_out and rules.max_variants > len(chosen):
            assert any(stands_in(other, one, rules) for other in chosen)
    # The order in which candidates come makes no difference.
    shuffled = list(candidates)
    seed.shuffle(shuffled)
    assert select(shuffled, dense="dense", rules=rules) == choice


@settings(max_examples=200, deadline=None)
@given(candidates=candidate_sets(), count=st.integers(2, 5), tolerance=st.sampled_from([0.0, 5.0, 30.0]))
def test_no_other_set_covers_the_front_better(candidates, count, tolerance):
    front = [Point(one.latency_milliseconds, one.accuracy_percent) for one in front_of(candidates)]
    if len(front) <= count:
        return
    chosen = [front[place] for place in spread(front, count, latency_tolerance_percent=tolerance)]
    groups = [
        (front[0], *inner, front[-1]) for inner in itertools.combinations(front[1:-1], count - 2)
    ]  # every set with both ends
    narrowest = min(map(widest_gap, groups))
    assert widest_gap(chosen) <= narrowest + math.log1p(tolerance / 100) + 1e-8
    allowed = [group for group in groups if widest_gap(group) <= narrowest + math.log1p(tolerance / 100)]
    least = min(accuracy_lost(group, front) for group in allowed)
    assert accuracy_lost(chosen, front) == pytest.approx(least, abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(candidates=candidate_sets(), count=st.integers(1, 6))
def test_a_portfolio_that_is_full_of_fronts_holds_front_only(candidates, count):
    rules = Rules(max_variants=count, accuracy_epsilon_points=0, latency_epsilon_percent=0, memory_epsilon_percent=0)
    chosen = set(select(candidates, dense="dense", rules=rules).chosen)
    front = {one.name for one in front_of(candidates)}
    if len(front) >= count > 1:
        assert chosen <= front
    elif count > 1:
        assert {(one.accuracy_percent, one.latency_milliseconds) for one in candidates if one.name in chosen} >= {
            (one.accuracy_percent, one.latency_milliseconds) for one in candidates if one.name in front
        }


def test_a_crowded_front_is_spread():
    """Three of five lay between 12.4 and 14.0 ms and none between 5.3 and 12.4, where candidates were."""
    rules = Rules(max_variants=5)
    crowd = [candidate("dense", 92.4, 14.0), candidate("a", 92.0, 13.2), candidate("b", 91.6, 12.4)]
    between = [candidate("c", 91.2, 9.6), candidate("d", 90.7, 7.1)]
    fast = [candidate("e", 89.0, 5.3), candidate("f", 84.0, 2.2)]
    chosen = select([*crowd, *between, *fast], dense="dense", rules=rules).chosen
    assert chosen == ("f", "e", "d", "c", "dense")


def test_of_sets_with_equal_gaps_the_one_that_loses_less_accuracy():
    # The widest gap, from 1 to 4 ms, is there in any case: what is spread inside it makes no difference.
    candidates = [candidate("fast", 60, 1), candidate("dense", 92, 8)]
    candidates += [candidate("steep", 90, 4), candidate("flat", 90.5, 4.4), candidate("late", 91, 7.5)]
    rules = Rules(max_variants=3, latency_epsilon_percent=0)
    assert select(candidates, dense="dense", rules=rules).chosen == ("fast", "steep", "dense")


def measured(name: str, correct: int, milliseconds: float, *, samples: int = 6000) -> Candidate:
    accuracy = Accuracy.from_counts(correct=correct, samples=samples)
    return replace(
        candidate(name, accuracy.percent, milliseconds),
        accuracy_interval=(accuracy.low_percent, accuracy.high_percent),
    )


def test_where_accuracy_intervals_overlap_the_faster_one_wins():
    candidates = [measured("dense", 5526, 14.0), measured("a", 5514, 13.2), measured("b", 5490, 12.4)]
    candidates += [measured("small", 5300, 3.0)]
    choice = select(candidates, dense="dense", rules=Rules(max_variants=5))
    assert choice.chosen == ("small", "b")
    assert {one.name: "intervals overlap" in one.reason for one in choice.rejected} == {"dense": True, "a": True}


def test_a_chain_of_overlaps_does_not_walk_away_from_the_most_accurate():
    # Each overlaps with the next, and is a little slower; the first and the last are 6 points apart.
    candidates = [measured("dense", 5500, 20.0)]
    candidates += [measured(f"step{step}", 5500 - 30 * step, 20.0 * 0.85**step) for step in range(1, 13)]
    rules = Rules(max_variants=16)
    choice = select(candidates, dense="dense", rules=rules)
    by_name = {one.name: one for one in candidates}
    # The best ties with the dense model itself (half a point below; a whole one would be more than three epsilons);
    # nothing is left out in favour of what is itself left out.
    assert choice.chosen[-1] == "step1"
    for rejected in choice.rejected:
        assert any(stands_in(by_name[name], by_name[rejected.name], rules) for name in choice.chosen)


def test_how_far_a_tie_reaches_is_the_users_word_for_no_difference():
    # 0.5 points apart, with intervals that overlap.
    candidates = [measured("dense", 5500, 20.0), measured("half", 5470, 10.0)]
    for epsilon, chosen in ((0.3, ("half",)), (0.1, ("half", "dense"))):
        rules = Rules(max_variants=5, accuracy_epsilon_points=epsilon)
        assert select(candidates, dense="dense", rules=rules).chosen == chosen


def test_few_samples_prove_no_tie():
    # 13 samples: the interval of 10 of 13 reaches from 50 to 92 %. That does not make it as good as 13 of 13.
    candidates = [measured("dense", 13, 8.0, samples=13), measured("small", 10, 2.0, samples=13)]
    assert select(candidates, dense="dense", rules=Rules(max_variants=5)).chosen == ("small", "dense")


def test_an_epsilon_of_nothing_says_that_every_difference_counts():
    candidates = [measured("dense", 5526, 14.0), measured("a", 5520, 7.0)]
    rules = Rules(max_variants=5, accuracy_epsilon_points=0)
    assert select(candidates, dense="dense", rules=rules).chosen == ("a", "dense")


def test_a_class_that_is_lost_is_no_variant():
    candidates = [
        replace(candidate("dense", 97.0, 8), lowest_recall_percent=80.0, lowest_class="rare"),
        replace(candidate("small", 96.4, 2), lowest_recall_percent=66.0, lowest_class="rare"),
    ]
    rules = Rules(max_variants=5, min_class_recall_percent=70)
    choice = select(candidates, dense="dense", rules=rules)
    assert choice.chosen == ("dense",)
    assert choice.accuracy_floor_met
    assert "66.00 % of the validation samples of class 'rare'" in choice.rejected[0].reason
    assert "70 %" in choice.rejected[0].reason


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
