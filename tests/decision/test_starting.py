"""Nothing serves: at the start, after a crash, or under a name that the core does not know."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from building import NOW, decided, memory, observation, quarantined, repeated, traffic
from simulator import PROFILES, SWITCHING

from edgefolio.decision import state_after_failure, state_after_switch
from edgefolio.decision.types import Action, Objectives, Reason, ServerState, State


def test_the_first_variant_is_the_most_accurate_that_fits() -> None:
    decision, _ = decided(observation(None))
    assert (decision.action, decision.reason, decision.target) == (Action.SWITCH, Reason.INITIAL, "large")
    decision, _ = decided(observation(None), objectives=Objectives(latency_p95_milliseconds=8))
    assert decision.target == "mid"


def test_a_remembered_node_is_taken_into_account_at_the_start() -> None:
    decision, _ = decided(observation(None), state=State(compute_factor=4.0, factor_updated_at=NOW))
    assert decision.target == "small"


def test_nothing_is_loaded_that_cannot_fit() -> None:
    decision, _ = decided(observation(None, memory=memory(limit=15)))
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.INSUFFICIENT_SWITCH_MEMORY)
    assert "needs 20.0 MiB, the server has 14.2 MiB" in decision.message


def test_a_dead_server_gets_its_variant_back_whatever_was_switched_just_now() -> None:
    state = state_after_switch(State(), variant="mid", now=NOW - 1)
    decision, _ = decided(observation("mid", server=ServerState.DEAD), state=state)
    assert (decision.action, decision.reason, decision.target) == (Action.SWITCH, Reason.SERVER_DEAD, "mid")


def test_a_dead_server_whose_variant_failed_gets_another_one() -> None:
    decision, _ = decided(observation("large", server=ServerState.DEAD), state=quarantined("large"))
    assert (decision.reason, decision.target) == (Reason.SERVER_DEAD, "mid")


def test_an_unknown_active_variant_is_replaced_but_not_when_paused() -> None:
    seen = observation(None, active_variant="of-another-revision", traffic=None)
    decision, _ = decided(seen)
    assert (decision.reason, decision.target) == (Reason.UNKNOWN_ACTIVE_VARIANT, "large")
    for policy, reason in (("Paused", Reason.PAUSED), ("Recommend", Reason.RECOMMEND_ONLY)):
        decision, _ = decided(seen, switching=SWITCHING.model_copy(update={"policy": policy}))
        assert (decision.action, decision.reason) == (Action.HOLD, reason)


@pytest.mark.parametrize("policy", ["Paused", "Recommend"])
@pytest.mark.parametrize("server", [ServerState.SERVING, ServerState.DEAD])
def test_every_policy_keeps_an_endpoint_serving(policy: str, server: ServerState) -> None:
    decision, _ = decided(observation(None, server=server), switching=SWITCHING.model_copy(update={"policy": policy}))
    assert decision.action is Action.SWITCH


def test_an_endpoint_that_serves_nothing_retries_quarantined_variants_soon() -> None:
    state = State()
    for profile in PROFILES:
        state = state_after_failure(state, variant=profile.name, cause="load failed", now=NOW, switching=SWITCHING)
    state = state_after_failure(state, variant="large", cause="load failed", now=NOW, switching=SWITCHING)
    decision, _ = decided(observation(None), state=state, now=NOW + 5)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.ALL_QUARANTINED)
    assert "tried again in 5 s" in decision.message
    decision, _ = decided(observation(None), state=state, now=NOW + 10)
    assert (decision.action, decision.target) == (Action.SWITCH, "tiny")
    # One that serves waits for the whole quarantine.
    decision, _ = repeated(observation("mid", traffic=traffic("mid")), state=state, seconds=59)
    assert decision.action is Action.HOLD


def test_no_usable_profile_holds() -> None:
    broken = tuple(replace(profile, mean_milliseconds=math.nan) for profile in PROFILES)
    decision, _ = decided(observation("large"), profiles=broken)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.MISSING_METRICS)
