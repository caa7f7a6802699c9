"""Which plan of an entry becomes a member: the fastest that pays, else none, with the figures of the nearest."""

from __future__ import annotations

from draft_splits import planned

from edgefolio_pruner.split.result import Link, SingleNode, compared_plan
from edgefolio_pruner.stages.splits.choice import Asked, RejectedSplit, SplitChoice, Weighed, choose_splits
from edgefolio_pruner.stages.variant_selection import Candidate, Rules

PLAN = planned()[0]
SINGLES = (
    SingleNode(name="dense", accuracy_percent=90.0, milliseconds=10.0),
    SingleNode(name="pruned", accuracy_percent=88.0, milliseconds=6.0),
)
DENSE = Candidate(name="dense", accuracy_percent=90.0, latency_milliseconds=10.0, memory_bytes=0)
RULES = Rules(max_variants=5)


def candidate(accuracy: float, milliseconds: float) -> Candidate:
    return Candidate(name="split-two", accuracy_percent=accuracy, latency_milliseconds=milliseconds, memory_bytes=0)


def plan(label: str, *, accuracy: float, compute: float, singles: tuple[SingleNode, ...] = SINGLES) -> Weighed:
    """A plan of two round trips of 1 ms."""
    compared = compared_plan(
        PLAN,
        title=label,
        accuracy_percent=accuracy,
        compute_milliseconds=[compute, compute / 2],
        input_bytes=0,
        singles=singles,
        link=Link(bits_per_second=1e12, round_trip_milliseconds=1.0),
        most_loss_points=1.0,
    )
    return Weighed(label=label, compared=compared, candidate=candidate(accuracy, compared.predicted_milliseconds))


def chosen(*plans: Weighed, waits: int | None = None, rules: Rules = RULES, most: int = 2) -> SplitChoice:
    asked = Asked(name="split-two", most_loss_points=1.0, most_waits=waits, link="1Tbit/s and 1 ms")
    return choose_splits([(asked, plans)], dense=DENSE, rules=rules, most=most)


def rejected(*plans: Weighed, waits: int | None = None, rules: Rules = RULES, most: int = 2) -> RejectedSplit:
    found = chosen(*plans, waits=waits, rules=rules, most=most)
    assert found.chosen == ()
    (split,) = found.rejected
    return split


def test_the_fastest_that_pays_against_the_fastest_as_accurate() -> None:
    # 90 % competes with dense (10 ms), 89 % with dense too, and nothing below 89 % is accurate enough.
    exact, pruned = plan("exact", accuracy=90.0, compute=6.0), plan("pruned", accuracy=89.2, compute=4.0)
    lossy = plan("lossy", accuracy=88.9, compute=1.0)
    found = chosen(exact, pruned, lossy)
    assert [(split.name, split.weighed.label) for split in found.chosen] == [("split-two", "pruned")]
    assert found.rejected == ()


def test_an_int8_model_of_one_node_is_a_rival() -> None:
    int8 = SingleNode(name="dense-int8", accuracy_percent=90.0, milliseconds=4.0)
    both = {
        singles: plan("exact", accuracy=90.0, compute=5.0, singles=singles) for singles in (SINGLES, (*SINGLES, int8))
    }
    assert [each.compared.pays for each in both.values()] == [True, False]
    assert "dense-int8 on one node takes 4.00 ms" in rejected(both[*SINGLES, int8]).reason


def test_none_that_pays() -> None:
    split = rejected(plan("near", accuracy=90.0, compute=9.0), plan("far", accuracy=90.0, compute=20.0))
    assert split.reason.startswith(
        "it does not pay over 1Tbit/s and 1 ms: the nearest plan, near, is predicted to take 11.00 ms, dense on one "
        "node takes 10.00 ms; over no link with this round trip would it be faster"
    )
    assert split.accuracy_percent == 90.0


def test_none_that_is_accurate_enough() -> None:
    split = rejected(plan("a", accuracy=80.0, compute=1.0), plan("b", accuracy=85.0, compute=1.0))
    assert split.reason == "no plan is within 1 points of the dense model's 90.00 %; the nearest, b, has 85.00 %"


def test_fewer_waits_than_any_plan_has() -> None:
    fast = plan("fast", accuracy=90.0, compute=1.0)
    assert rejected(fast, waits=0).reason == "no plan has at most 0 exchanges, the fewest are 1"
    assert len(chosen(fast, waits=1).chosen) == 1


def test_the_floors_of_all_variants_hold_for_splits() -> None:
    fast = plan("fast", accuracy=89.5, compute=1.0)
    split = rejected(fast, rules=Rules(max_variants=5, min_accuracy_percent=89.9))
    assert split.reason == "its validation accuracy, 89.50 %, is below the floor of 89.9 %"


def test_the_fastest_entries_are_kept() -> None:
    entries = [
        (
            Asked(name=name, most_loss_points=1.0, most_waits=None, link=""),
            [plan("channels", accuracy=90.0, compute=compute)],
        )
        for name, compute in (("split-a", 3.0), ("split-b", 1.0), ("split-c", 2.0))
    ]
    found = choose_splits(entries, dense=DENSE, rules=RULES, most=2)
    assert [split.name for split in found.chosen] == ["split-b", "split-c"]
    assert [(split.name, split.reason) for split in found.rejected] == [
        ("split-a", "selection.maxSplits is 2, and others are faster")
    ]
    assert choose_splits(entries, dense=DENSE, rules=RULES, most=0).chosen == ()
