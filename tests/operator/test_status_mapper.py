"""The one mapper between the decision's values and what is stored: every field survives, and no stored byte changes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefolio.contract.endpoint_report import (
    DECISION,
    OBSERVATION,
    PROFILE,
    STATE,
    observation_of,
    profile_of,
    report_of_decision,
    report_of_observation,
    state_of,
    variant_status_of,
)
from edgefolio.contract.status_mapper import StatusMapper
from edgefolio.decision import types
from edgefolio.decision.encoding import decoded, encoded
from edgefolio.decision.types import Decision, Observation, State, TrafficWindow, VariantProfile
from edgefolio.specification.conditions import StatusRecord
from edgefolio.specification.endpoint import EndpointStatus, TrafficReport
from edgefolio.specification.portfolio_status import VariantStatus
from edgefolio.specification.validation.base import DecimalString

#: Written by the version before this mapper, and how that version read it again 100 s later.
STORED = [json.loads(line) for line in (Path(__file__).parent / "stored_statuses.jsonl").read_text().splitlines()]
VALUES = [entry for entry in vars(types).values() if dataclasses.is_dataclass(entry)]
#: Bounds that every number in a status keeps: ranks, counts of failures, factors, instants.
SCALARS: dict[type, st.SearchStrategy[Any]] = {
    float: st.integers(1, 10_000).map(float),
    int: st.integers(1, 99),
    bool: st.booleans(),
    str: st.sampled_from(["dense", "small", "a-b_c"]),
}


def drawn(hint: Any, without: Mapping[Any, tuple[str, ...]] = MappingProxyType({})) -> st.SearchStrategy[Any]:
    """Any value of a field: drawn by its type, so that a field that is added is tested without a word here.

    ``without`` names, by the type of a part, the fields that are left as they are.
    """
    if get_origin(hint) in (Union, UnionType):
        (inner,) = (argument for argument in get_args(hint) if argument is not NoneType)
        return st.none() | drawn(inner, without)
    if get_origin(hint) is tuple:
        return st.lists(drawn(get_args(hint)[0], without), max_size=3).map(tuple)
    if dataclasses.is_dataclass(hint):
        return values_of(hint, without=without.get(hint, ()))
    return st.sampled_from(hint) if issubclass(hint, Enum) else SCALARS[hint]


def values_of(
    kind: Any,
    *,
    without: tuple[str, ...] = (),
    parts_without: Mapping[Any, tuple[str, ...]] = MappingProxyType({}),
    **fixed: Any,
) -> st.SearchStrategy[Any]:
    fields = {name: drawn(hint, parts_without) for name, hint in get_type_hints(kind).items() if name not in without}
    return st.builds(kind, **fields, **{name: st.just(value) for name, value in fixed.items()})


MAPPERS = [entry for mapper in (PROFILE, OBSERVATION, STATE) for entry in (mapper, *mapper.parts)]
#: What of an observation stands beside its report, and what of the reports is not of the value.
BESIDE = {"active_variant": "dense", "resident_variants": ("dense",)}
NOW = "2027-01-15T08:00:00Z"
REQUIRED = {"time": NOW, "valid_until": NOW, "action": "Hold", "reason": "Pinned", "decided_by": "Agent"}


@pytest.mark.parametrize("mapper", MAPPERS, ids=lambda mapper: mapper.value.__name__)
@settings(deadline=None)
@given(data=st.data())
def test_every_field_survives_the_way_through_the_status(mapper: StatusMapper[Any, Any], data: st.DataObject) -> None:
    rest = {name: value for name, value in BESIDE.items() if name in mapper.unreported}
    parts = {part.value: part.unreported for part in mapper.parts}
    value = data.draw(values_of(mapper.value, without=mapper.unreported, parts_without=parts, **rest))
    needed = {name: word for name, word in REQUIRED.items() if name in mapper.report.model_fields}
    report = mapper.report(**(needed | mapper.written(value)))
    stored = report.model_dump_json(by_alias=True, exclude_none=True)
    assert mapper.read(mapper.report.model_validate_json(stored), **rest) == value


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
@settings(deadline=None)
@given(data=st.data())
def test_every_field_survives_the_way_through_a_trace(kind: Any, data: st.DataObject) -> None:
    value = data.draw(values_of(kind))
    assert decoded(kind, json.loads(json.dumps(encoded(value), allow_nan=False))) == value


def test_every_value_of_the_decision_is_told_about() -> None:
    mapped = {mapper.value for mapper in (*MAPPERS, DECISION)}
    told = {kind.__name__ for kind in VALUES} - {kind.__name__ for kind in mapped}
    # What is asked, what the cluster says of a node, and what only the core remembers.
    told -= {"Computing", "LatencyTest", "OwnFactor", "FittingVariant", "TrafficBefore"}
    # What the agent alone sees, as it changes within a second.
    told -= {"Reading", "Contention", "Signal"}
    # Of splits: no agent of a cluster serves one.
    told -= {"SplitProfile", "WorkerSet", "Fallback"}
    assert told == {"Objectives", "NodeState", "Prediction", "Standby"}


def test_a_new_signal_is_one_field_on_each_side() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Window(TrafficWindow):
        dropped_percent: float | None = None

    class WindowReport(TrafficReport):
        dropped_percent: DecimalString | None = None

    renamed = {"seconds": "window_seconds"}
    with pytest.raises(TypeError, match="dropped_percent"):
        StatusMapper(Window, TrafficReport, renamed=renamed, unreported=("readings",))
    mapper = StatusMapper(Window, WindowReport, renamed=renamed, unreported=("readings",))
    window = Window(
        seconds=5,
        requests=1,
        failures=0,
        executions=1,
        mean_compute_milliseconds=1,
        mean_queue_milliseconds=0,
        mean_total_milliseconds=1,
        in_flight=0.5,
        age_seconds=0,
        dropped_percent=12.5,
    )
    report = mapper.report_of(window)
    assert report.model_dump(by_alias=True)["droppedPercent"] == "12.5"
    assert mapper.read(report) == window


def text(model: StatusRecord, *, as_before: str) -> str:
    """``model`` as it is written, without fields that were added since ``as_before`` was."""
    document = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(_common(document, json.loads(as_before)), separators=(",", ":"))


def _common(new: Any, old: Any) -> Any:
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: _common(value, old[key]) for key, value in new.items() if key in old}
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [_common(*pair) for pair in zip(new, old, strict=True)]
    return new


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: f"{stored['now']:.0f}")
def test_what_is_written_is_what_the_version_before_wrote(stored: dict[str, Any]) -> None:
    observation, state = decoded(Observation, stored["observation"]), decoded(State, stored["state"])
    status = EndpointStatus(
        active_variant=observation.active_variant,
        resident_variants=observation.resident_variants,
        observation=report_of_observation(observation, now=stored["now"], valid_seconds=60),
        decision=report_of_decision(decoded(Decision, stored["decision"]), state, decided_by_agent=stored["agent"]),
    )
    assert text(status, as_before=stored["status"]) == stored["status"]
    variant = variant_status_of(decoded(VariantProfile, stored["profile"]))
    assert text(variant, as_before=stored["variant"]) == stored["variant"]
    (stored["observation"].get("traffic") or {}).pop("batch", None)
    for value, recorded in ((observation, "observation"), (state, "state")):
        assert json.dumps(encoded(value)) == json.dumps(stored[recorded])


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: f"{stored['now']:.0f}")
def test_what_the_version_before_wrote_is_read_as_it_was(stored: dict[str, Any]) -> None:
    status = EndpointStatus.model_validate_json(stored["status"])
    read = stored["read"]
    assert observation_of(status, now=stored["now"] + 100) == decoded(Observation, read["observation"])
    assert state_of(status.decision) == decoded(State, read["state"])
    assert profile_of(VariantStatus.model_validate_json(stored["variant"])) == decoded(VariantProfile, read["profile"])
