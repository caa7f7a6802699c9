"""The core is total over all values that its types allow: no number, name or text makes it raise."""

from __future__ import annotations

import dataclasses
import json
import math
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from building import by_name, traffic
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import switchings

from edgefolio.decision import decide, state_after_failure, state_after_switch, state_from_json, state_to_json
from edgefolio.decision.explain import explain_choice, explain_observed
from edgefolio.decision.state import shifted
from edgefolio.decision.types import (
    Objectives,
    Observation,
    Reading,
    ServerState,
    State,
    TrafficWindow,
    VariantProfile,
)

#: Ordinary values too, so that the rules are reached.
INTEGERS = st.one_of(
    st.sampled_from([10, 50, 1000, 2**20]),
    st.sampled_from([0, 1, -1, 2**31, 2**53, 2**63, -(2**63), 10**308, 10**309, 10**400, -(10**400)]),
    st.integers(),
)
FLOATS = st.one_of(
    st.sampled_from([0.5, 2.0, 10.0, 50.0, 1000.0]),
    st.sampled_from([0.0, -0.0, 1.0, 5e-324, 1e-300, 1e300, 1.7976931348623157e308, math.inf, -math.inf, math.nan]),
    st.floats(),
)
TEXTS = st.one_of(st.sampled_from(["a", "a", "a", "b", "", "MemoryPressure", "\n", "x" * 10_000]), st.text(max_size=5))


def any_of(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a type of the decision."""
    if get_origin(hint) in (Union, UnionType):
        return st.one_of(*(st.none() if part is NoneType else any_of(part) for part in get_args(hint)))
    if get_origin(hint) is tuple:
        return st.lists(any_of(get_args(hint)[0]), max_size=4).map(tuple)
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(hint, **{field.name: any_of(hints[field.name]) for field in dataclasses.fields(hint)})
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    # A caller that reads JSON may hand over whole numbers where a float is meant.
    return {bool: st.booleans(), int: INTEGERS, float: FLOATS | INTEGERS, str: TEXTS}[hint]


PROFILES = st.lists(any_of(VariantProfile), max_size=4).map(tuple)


@settings(max_examples=300, deadline=None)
@given(
    seen=any_of(Observation),
    objectives=any_of(Objectives),
    profiles=PROFILES,
    switching=switchings,
    state=any_of(State),
    now=FLOATS | INTEGERS,
)
def test_it_decides(seen, objectives, profiles, switching, state, now) -> None:
    arguments = {
        "observation": seen,
        "objectives": objectives,
        "profiles": profiles,
        "switching": switching,
        "now": now,
    }
    decision, after = decide(**arguments, state=state)
    assert decision.message
    if decision.target is not None:
        assert decision.target in {profile.name for profile in profiles}
    decide(**{**arguments, "now": 5.0}, state=after)
    explain_observed(**arguments, state=state)
    text = state_to_json(after)
    json.loads(text, parse_constant=lambda word: 1 / 0)
    for name in {"a", *(profile.name for profile in profiles)}:
        state_after_failure(after, variant=name, cause="it failed", now=now, switching=switching)
        state_after_switch(after, variant=name, now=now)


@settings(max_examples=300, deadline=None)
@given(
    seen=any_of(Observation),
    window=any_of(TrafficWindow),
    readings=st.lists(any_of(Reading), min_size=1, max_size=4).map(tuple),
    budget=FLOATS | INTEGERS,
    switching=switchings,
    state=any_of(State),
)
def test_it_decides_on_any_readings_of_a_variant_that_serves(seen, window, readings, budget, switching, state) -> None:
    served = {"active_variant": "large", "resident_variants": ("large", "small"), "server": ServerState.SERVING}
    calm = traffic("large", readings=readings)
    for traffic_seen in (calm, dataclasses.replace(window, readings=readings)):
        arguments = {
            "observation": dataclasses.replace(seen, **served, traffic=traffic_seen),
            "objectives": Objectives(latency_p95_milliseconds=budget),
            "profiles": (by_name("large"), by_name("small")),
            "switching": switching,
        }
        decision, after = decide(**arguments, state=state, now=5.0)
        assert decision.message
        decide(**arguments, state=after, now=6.0)


@settings(max_examples=200, deadline=None)
@given(
    profiles=PROFILES,
    objectives=any_of(Objectives),
    switching=switchings,
    factor=FLOATS | INTEGERS,
    rate=FLOATS | INTEGERS,
    transport=FLOATS | INTEGERS,
    memory=INTEGERS | st.none(),
    active=st.none() | TEXTS,
)
def test_it_explains(profiles, objectives, switching, factor, rate, transport, memory, active) -> None:
    explain_choice(
        profiles=profiles,
        objectives=objectives,
        switching=switching,
        compute_factor=factor,
        arrival_rate=rate,
        transport_milliseconds=transport,
        memory_bytes=memory,
        active=active,
    )


@settings(max_examples=300, deadline=None)
@given(
    text=st.one_of(st.text(max_size=50), st.sampled_from(["[" * 100_000, '{"a":' * 50_000, "9" * 5000, "NaN", "null"]))
)
def test_any_text_is_a_state_or_a_value_error(text: str) -> None:
    try:
        state_from_json(text)
    except ValueError:
        return


@settings(max_examples=200, deadline=None)
@given(state=any_of(State))
def test_any_state_is_written_and_read(state: State) -> None:
    shifted(state, 60.0)
    text = state_to_json(state)
    try:
        again = state_from_json(text)
    except ValueError:
        return  # a number beyond what a state holds
    assert state_to_json(again) == state_to_json(again)
