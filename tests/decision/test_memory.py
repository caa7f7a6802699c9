"""Memory: what is asked, what the limit and the node leave, and what a switch needs beside what is loaded."""

from __future__ import annotations

from dataclasses import replace

from building import NOW, decided, memory, observation, repeated, traffic
from simulator import MEBIBYTE

from edgefolio.decision import state_after_switch
from edgefolio.decision.types import Action, Objectives, Reason, State


def test_a_memory_objective_is_met_at_once() -> None:
    asked = Objectives(max_memory_bytes=35 * MEBIBYTE)
    state = state_after_switch(State(), variant="large", now=NOW - 1)
    decision, _ = decided(observation("large"), objectives=asked, state=state)
    assert (decision.action, decision.reason, decision.target) == (Action.SWITCH, Reason.MEMORY_EXCEEDED, "small")


def test_the_smallest_serves_where_none_is_small_enough() -> None:
    asked = Objectives(max_memory_bytes=5 * MEBIBYTE)
    decision, _ = decided(observation("large"), objectives=asked)
    assert (decision.reason, decision.target) == (Reason.MEMORY_EXCEEDED, "tiny")
    decision, _ = decided(observation("tiny"), objectives=asked)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.OBJECTIVES_NOT_MET)
    assert decision.objectives_met is False or decision.objectives_met is None


def test_an_emergency_may_use_the_headroom() -> None:
    # 970 of 1000 MiB: 30 are left, 5 % should be free.
    decision, _ = decided(observation("large", memory=memory(limit=1000, used=970)))
    assert (decision.action, decision.reason, decision.target) == (Action.SWITCH, Reason.MEMORY_EXCEEDED, "small")
    decision, _ = decided(observation("large", memory=memory(limit=1000, used=990)))
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.INSUFFICIENT_SWITCH_MEMORY)
    assert "needs 20.0 MiB beside what is loaded, 10.0 MiB are left" in decision.message


def test_a_resident_variant_needs_no_memory_to_be_taken() -> None:
    seen = observation(
        "large", resident_variants=("large", "tiny"), memory=memory(limit=1000, used=995), traffic=traffic("large")
    )
    pinned = Objectives(latency_p95_milliseconds=30.0, pinned_variant="tiny")
    decision, _ = decided(seen, objectives=pinned)
    assert (decision.action, decision.target) == (Action.SWITCH, "tiny")


def test_the_smallest_is_not_blamed_for_a_full_server() -> None:
    decision, _ = decided(observation("tiny", memory=memory(limit=1000, used=990)))
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.OBJECTIVES_MET)


def test_an_upgrade_waits_for_memory_and_says_how_much() -> None:
    seen = observation("mid", memory=memory(limit=130, used=82, node=500))
    decision, _ = repeated(seen, seconds=60)
    assert (decision.action, decision.reason, decision.target) == (
        Action.HOLD,
        Reason.INSUFFICIENT_SWITCH_MEMORY,
        "large",
    )
    assert "needs 60.0 MiB beside what is loaded, 41.5 MiB are left" in decision.message


def test_a_switch_needs_shared_memory_for_two() -> None:
    """What another version takes of it is in no profile."""
    seen = observation("mid", memory=memory(limit=150, used=82, node=500))
    assert seen.memory is not None
    fits, _ = repeated(seen, seconds=60)
    assert fits.action is Action.SWITCH
    shared = replace(seen, memory=replace(seen.memory, shared_memory_bytes=20 * MEBIBYTE))
    decision, _ = repeated(shared, seconds=60)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.INSUFFICIENT_SWITCH_MEMORY)
    assert "needs 60.0 MiB beside what is loaded, 40.5 MiB are left" in decision.message


def test_the_node_must_keep_a_reserve() -> None:
    fits, _ = repeated(observation("mid", memory=memory(node=93)), seconds=60)
    assert (fits.action, fits.target) == (Action.SWITCH, "large")
    short, _ = repeated(observation("mid", memory=memory(node=91)), seconds=60)
    assert short.reason is Reason.INSUFFICIENT_SWITCH_MEMORY
