"""What people say goes before what the figures say: the policy, and a pinned variant."""

from __future__ import annotations

import pytest
from building import NOW, decided, memory, observation, quarantined, repeated, traffic
from simulator import SWITCHING

from edgefolio.decision import state_after_switch
from edgefolio.decision.types import Action, Objectives, Reason, State


def test_recommend_only_says() -> None:
    switching = SWITCHING.model_copy(update={"policy": "Recommend"})
    seen = observation(traffic=traffic(factor=3))
    decision, state = repeated(seen, seconds=10, switching=switching)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.RECOMMEND_ONLY)
    assert decision.target == "small"
    assert state.upgraded_variant is None


def test_paused_holds() -> None:
    switching = SWITCHING.model_copy(update={"policy": "Paused"})
    decision, _ = repeated(observation(traffic=traffic(factor=3)), seconds=20, switching=switching)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.PAUSED)


def test_a_pin_is_obeyed_at_once_and_kept() -> None:
    pinned = Objectives(latency_p95_milliseconds=5, pinned_variant="large")
    state = state_after_switch(State(), variant="tiny", now=NOW - 1)
    decision, _ = decided(observation("tiny"), objectives=pinned, state=state)
    assert (decision.action, decision.reason, decision.target) == (Action.SWITCH, Reason.PINNED, "large")
    decision, _ = repeated(observation("large", traffic=traffic(factor=5)), objectives=pinned, seconds=20)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.PINNED)
    assert decision.objectives_met is False
    decision, _ = decided(observation(None), objectives=pinned)
    assert decision.target == "large"


@pytest.mark.parametrize("name", ["large", "nonsense"])
def test_a_pin_that_cannot_be_obeyed_says_so(name: str) -> None:
    pinned = Objectives(pinned_variant=name)
    decision, _ = decided(observation("tiny"), objectives=pinned, state=quarantined("large"))
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.PINNED)
    assert "tiny stays" in decision.message
    decision, _ = decided(
        observation("tiny", memory=memory(limit=70, used=30)), objectives=Objectives(pinned_variant="large")
    )
    assert decision.reason is Reason.INSUFFICIENT_SWITCH_MEMORY
