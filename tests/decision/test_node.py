"""What the cluster says of the node: it holds upgrades, and a shortage of memory is an emergency."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from building import NOW, by_name, decided, memory, observation, quarantined, repeated, traffic
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator import MEBIBYTE, SWITCHING

from edgefolio.decision.encoding import decoded, encoded
from edgefolio.decision.estimates.memory import needed_bytes
from edgefolio.decision.types import Action, Decision, NodeState, Objectives, Observation, Reason, State

PRESSURE = NodeState(pressures=("MemoryPressure",))


def busy(percent: float | None, **fields: Any) -> NodeState:
    return NodeState(others_cpu_percent=percent, **fields)


def said(decision: Decision) -> tuple[Action, Reason, str | None]:
    return decision.action, decision.reason, decision.target


def test_a_busy_node_holds_the_upgrade_and_says_how_busy() -> None:
    decision, _ = repeated(observation("mid", node=busy(91.4)), seconds=60)
    assert said(decision) == (Action.HOLD, Reason.NODE_BUSY, "large")
    assert "others use 91 % of the node's processors (at most 85 %)" in decision.message
    decision, _ = repeated(observation("mid", node=busy(85.0)), seconds=60)
    assert said(decision) == (Action.SWITCH, Reason.MORE_ACCURATE_FITS, "large")


@pytest.mark.parametrize("percent", [None, math.nan, -5.0, 0.0])
def test_what_is_not_known_of_the_node_changes_nothing(percent: float | None) -> None:
    decision, _ = repeated(observation("mid", node=busy(percent)), seconds=60)
    assert said(decision) == (Action.SWITCH, Reason.MORE_ACCURATE_FITS, "large")


def test_the_limit_is_the_user_s() -> None:
    lower = SWITCHING.model_copy(update={"node_busy_percent": 50})
    decision, _ = repeated(observation("mid", node=busy(60)), seconds=60, switching=lower)
    assert decision.reason is Reason.NODE_BUSY
    never = SWITCHING.model_copy(update={"node_busy_percent": 100})
    decision, _ = repeated(observation("mid", node=busy(100)), seconds=60, switching=never)
    assert decision.target == "large"


@pytest.mark.parametrize("condition", ["DiskPressure", "PIDPressure"])
def test_a_shortage_of_something_else_holds_the_upgrade(condition: str) -> None:
    decision, _ = repeated(observation("mid", node=NodeState(pressures=(condition,))), seconds=60)
    assert said(decision) == (Action.HOLD, Reason.NODE_BUSY, "large")
    assert f"the node reports {condition}" in decision.message


def test_a_busy_node_forces_nothing_down_and_keeps_nothing_up() -> None:
    calm, _ = repeated(observation("large", node=busy(100)), seconds=60)
    assert said(calm) == (Action.HOLD, Reason.OBJECTIVES_MET, None)
    slow, _ = repeated(observation("large", traffic=traffic(factor=3), node=busy(100)), seconds=60)
    assert (slow.action, slow.reason) == (Action.SWITCH, Reason.LATENCY_VIOLATED)


def test_a_busy_node_does_not_hold_what_is_asked_for_by_name_or_as_a_floor() -> None:
    decision, _ = decided(observation("tiny", node=busy(100)), objectives=Objectives(pinned_variant="large"))
    assert said(decision) == (Action.SWITCH, Reason.PINNED, "large")
    floor = Objectives(latency_p95_milliseconds=30, min_accuracy_percent=89)
    decision, _ = repeated(observation("tiny", node=busy(100)), seconds=60, objectives=floor)
    assert (decision.action, decision.reason) == (Action.SWITCH, Reason.ACCURACY_BELOW_MINIMUM)


def test_a_node_short_of_memory_gets_the_smallest_at_once() -> None:
    state = State(last_switch_at=NOW - 1, recent_switches=(NOW - 1,))
    decision, _ = decided(observation("large", node=PRESSURE), state=state)
    assert said(decision) == (Action.SWITCH, Reason.MEMORY_EXCEEDED, "tiny")
    assert "The node reports MemoryPressure and large needs 60.0 MiB; tiny needs 20.0 MiB." in decision.message
    # Also when nothing else is known: an emergency waits for no counters.
    decision, _ = decided(observation("large", node=PRESSURE, traffic=None))
    assert decision.target == "tiny"


def test_a_shortage_of_the_node_does_not_go_below_the_accuracy_minimum() -> None:
    floor = Objectives(latency_p95_milliseconds=30, min_accuracy_percent=87)
    decision, _ = decided(observation("large", node=PRESSURE), objectives=floor)
    assert decision.target == "small"
    decision, _ = repeated(observation("small", node=PRESSURE), objectives=floor, seconds=60)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.INSUFFICIENT_SWITCH_MEMORY)
    assert "the node reports MemoryPressure" in decision.message


def test_a_shortage_that_cannot_be_helped_leaves_the_other_rules_alone() -> None:
    failed = quarantined("tiny", "small", "mid")
    decision, _ = decided(observation("large", node=PRESSURE), state=failed)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.OBJECTIVES_MET)
    full = memory(node=40)
    decision, _ = decided(observation("large", node=PRESSURE, memory=full))
    assert said(decision) == (Action.HOLD, Reason.INSUFFICIENT_SWITCH_MEMORY, "tiny")
    assert "8.0 MiB are left on the node" in decision.message


def test_while_the_node_is_short_nothing_larger_is_loaded() -> None:
    decision, _ = repeated(observation("tiny", node=PRESSURE), seconds=120)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.INSUFFICIENT_SWITCH_MEMORY)
    decision, _ = decided(observation(None, node=PRESSURE))
    assert said(decision) == (Action.SWITCH, Reason.INITIAL, "tiny")
    decision, _ = decided(observation("tiny", node=PRESSURE), objectives=Objectives(pinned_variant="large"))
    assert decision.reason is Reason.INSUFFICIENT_SWITCH_MEMORY


def test_what_others_were_promised_counts_during_the_switch_only() -> None:
    seen = observation("mid", memory=memory(node=150), node=NodeState(reserved_bytes=50 * MEBIBYTE))
    fits, _ = repeated(replace(seen, node=NodeState(reserved_bytes=58 * MEBIBYTE)), seconds=60)
    assert said(fits) == (Action.SWITCH, Reason.MORE_ACCURATE_FITS, "large")
    held, _ = repeated(replace(seen, node=NodeState(reserved_bytes=59 * MEBIBYTE)), seconds=60)
    assert said(held) == (Action.HOLD, Reason.INSUFFICIENT_SWITCH_MEMORY, "large")
    assert "59.0 MiB are left on the node, 59.0 MiB are promised to other switches" in held.message


def test_an_observation_with_a_node_is_written_and_read_and_one_without_is_as_before() -> None:
    plain = observation("mid")
    assert "node" not in encoded(plain)
    for node in (PRESSURE, busy(12.5, reserved_bytes=7), NodeState()):
        seen = replace(plain, node=node)
        assert decoded(Observation, json.loads(json.dumps(encoded(seen)))) == seen


nodes = st.builds(
    NodeState,
    others_cpu_percent=st.none() | st.floats(0, 100),
    pressures=st.sets(st.sampled_from(["MemoryPressure", "DiskPressure", "PIDPressure"])).map(
        lambda s: tuple(sorted(s))
    ),
    reserved_bytes=st.integers(0, 200 * MEBIBYTE),
)


@settings(max_examples=300)
@given(
    node=nodes,
    active=st.sampled_from(["tiny", "small", "mid", "large"]),
    factor=st.floats(0.5, 5),
    left=st.integers(40, 300),
    state=st.sampled_from([State(), State(last_switch_at=NOW - 2)]),
)
def test_knowing_more_of_the_node_never_asks_more_of_it(
    node: NodeState, active: str, factor: float, left: int, state: State
) -> None:
    """With the node's word the decision is the one without it, or one that needs no more memory and no upgrade."""
    seen = observation(active, traffic=traffic(active, factor=factor), memory=memory(node=left))
    plain, _ = repeated(seen, seconds=60, state=state)
    told, _ = repeated(replace(seen, node=node), seconds=60, state=state)
    if told.action is Action.HOLD or told.target == plain.target:
        return
    assert told.target is not None
    assert needed_bytes(by_name(told.target)) <= max(
        needed_bytes(by_name(name)) for name in (active, plain.target) if name is not None
    )
    if node.others_cpu_percent is not None and node.others_cpu_percent > 85:
        assert told.reason is not Reason.MORE_ACCURATE_FITS
