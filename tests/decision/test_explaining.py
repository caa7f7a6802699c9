"""What would have to change: whatever is named as enough is enough, and the next smaller step is not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from building import NOW, memory, observation, traffic
from hypothesis import assume, given
from hypothesis import strategies as st
from simulator import MEBIBYTE, PROFILES, SWITCHING

from edgefolio.decision import decide
from edgefolio.decision.explain import ExplainedVariant, Explanation, explain_choice, explain_observed
from edgefolio.decision.types import Action, NodeState, Objectives, Observation, Quarantine, State


def explained(
    objectives: Objectives, *, factor: float = 1.0, rate: float = 0.0, mebibytes: int | None = None
) -> Explanation:
    return explain_choice(
        profiles=PROFILES,
        objectives=objectives,
        switching=SWITCHING,
        compute_factor=factor,
        arrival_rate=rate,
        memory_bytes=None if mebibytes is None else mebibytes * MEBIBYTE,
    )


def of(name: str, explanation: Explanation) -> ExplainedVariant:
    return next(entry for entry in explanation.variants if entry.profile.name == name)


@given(
    latency=st.integers(2, 60),
    network=st.integers(0, 20),
    factor=st.floats(0.3, 8),
    rate=st.floats(0, 150),
    name=st.sampled_from([profile.name for profile in PROFILES]),
)
def test_the_latency_remedies_are_enough(latency: int, network: int, factor: float, rate: float, name: str) -> None:
    asked = Objectives(latency_p95_milliseconds=latency + network, network_latency_milliseconds=network)
    entry = of(name, explained(asked, factor=factor, rate=rate))
    assume(not entry.prediction.meets_latency)
    (remedy,) = entry.remedies

    def meets(objectives: Objectives = asked, *, factor: float = factor, rate: float = rate) -> bool:
        return of(name, explained(objectives, factor=factor, rate=rate)).prediction.meets_latency

    if found := re.search(r"latencyP95Milliseconds of at least (\d+)", remedy):
        needed = int(found[1])
        assert meets(replace(asked, latency_p95_milliseconds=needed))
        assert not meets(replace(asked, latency_p95_milliseconds=needed - 1))
    if found := re.search(r"compute at most ([\d.]+)x", remedy):
        assert meets(factor=float(found[1]))
        assert not meets(factor=float(found[1]) + 0.02)
    if found := re.search(r"at most ([\d.]+) requests/s", remedy):
        utilization = of(name, explained(asked, factor=factor, rate=float(found[1]))).prediction.utilization
        assert utilization is not None
        assert utilization <= 0.85


@given(mebibytes=st.integers(1, 70), name=st.sampled_from([profile.name for profile in PROFILES]))
def test_the_memory_remedy_is_enough(mebibytes: int, name: str) -> None:
    entry = of(name, explained(Objectives(), mebibytes=mebibytes))
    assume(not entry.prediction.fits_memory)
    (remedy,) = entry.remedies
    found = re.fullmatch(r"(\d+)Mi more memory for the server", remedy)
    assert found is not None
    # Of what is given, five percent stay free.
    more = mebibytes + int(found[1]) / (1 - SWITCHING.memory_headroom_percent / 100)
    after = of(name, explained(Objectives(), mebibytes=int(more) + 1))
    assert after.prediction.fits_memory


@pytest.mark.parametrize(
    ("objectives", "name", "remedy"),
    [
        (Objectives(min_accuracy_percent=87), "tiny", ("minAccuracyPercent of at most 85",)),
        (Objectives(max_memory_bytes=10 * MEBIBYTE), "large", ("maxMemory of at least 60Mi",)),
        (
            Objectives(max_memory_bytes=10 * MEBIBYTE, min_accuracy_percent=99),
            "large",
            ("maxMemory of at least 60Mi", "minAccuracyPercent of at most 91.5"),
        ),
        (Objectives(), "large", ()),
    ],
)
def test_the_other_remedies(objectives: Objectives, name: str, remedy: tuple[str, ...]) -> None:
    assert of(name, explained(objectives)).remedies == remedy


def seen(found: Observation, objectives: Objectives, state: State | None = None) -> Explanation:
    return explain_observed(
        observation=found,
        objectives=objectives,
        profiles=PROFILES,
        switching=SWITCHING,
        state=state or State(),
        now=NOW,
    )


def test_what_is_observed_is_judged_as_the_decision_judges_it() -> None:
    asked = Objectives(latency_p95_milliseconds=20)
    found = observation("large", traffic=traffic("large", factor=3.0))
    explanation = seen(found, asked)
    state, decision = State(), None
    for second in range(SWITCHING.down_after_seconds + 1):
        decision, state = decide(
            observation=found, objectives=asked, profiles=PROFILES, switching=SWITCHING, state=state, now=NOW + second
        )
        if second == 0:
            assert decision.action is Action.HOLD, "a violation must last"
            assert {entry.prediction for entry in explanation.variants} == set(decision.predictions)
    assert decision is not None
    assert (decision.action, decision.target) == (Action.SWITCH, explanation.chosen)
    assert explanation.state.compute_factor > 2.5
    assert explanation.distrust is None


def test_stale_metrics_and_quarantine_are_said() -> None:
    state = State(quarantined=(Quarantine(variant="mid", until=NOW + 30, failures=1, cause="x"),))
    found = observation("small", traffic=traffic("small", age_seconds=99))
    explanation = seen(found, Objectives(latency_p95_milliseconds=20), state)
    assert explanation.distrust is not None
    assert of("mid", explanation).remedies == ("the end of its quarantine in 30 s",)


def test_memory_beside_what_is_loaded() -> None:
    found = observation("small", memory=memory(limit=200, used=150))
    entry = of("large", seen(found, Objectives()))
    assert entry.prediction.fits_memory
    assert entry.remedies == ("20Mi more memory while both are loaded",)


def test_a_node_that_is_short_of_memory() -> None:
    node = NodeState(others_cpu_percent=None, pressures=("MemoryPressure",), reserved_bytes=0)
    entry = of("large", seen(observation("small", node=node), Objectives()))
    assert entry.remedies == ("the end of the node's MemoryPressure",)


def test_nothing_serves_yet() -> None:
    explanation = seen(observation(None), Objectives(latency_p95_milliseconds=20))
    assert explanation.chosen == "large"
    assert explanation.distrust is None


def test_the_standby_of_the_choice_is_told() -> None:
    explanation = explain_choice(
        profiles=PROFILES, objectives=Objectives(latency_p95_milliseconds=30.0), switching=SWITCHING
    )
    assert explanation.chosen == "large"
    assert explanation.standby is not None
    assert (explanation.standby.variant, explanation.standby.message) == (
        "mid",
        "mid would be taken if the node became 2.0 times slower.",
    )
