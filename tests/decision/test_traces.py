"""Recorded situations: the core decides as reviewed, and a simulated endpoint under its control goes the same way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scenarios import SCENARIOS, TRACES
from simulator import SWITCHING, Scenario, simulate

from edgefolio.decision.encoding import encoded
from edgefolio.decision.recording.replay import replay
from edgefolio.decision.recording.traces import DecisionRecord, cycle_line, header_line, parse_trace
from edgefolio.decision.types import Action, Objectives
from edgefolio.errors import UserError

MEMORY = {"limitBytes": 10, "workingSetBytes": 1, "nodeAvailableBytes": None}
FILES = sorted(TRACES.glob("*.jsonl"))


def test_every_situation_is_kept() -> None:
    assert {path.stem for path in FILES} == {scenario.name for scenario in SCENARIOS}
    assert len(FILES) >= 12


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_core_decides_a_trace_as_reviewed(path: Path) -> None:
    trace = parse_trace(path.read_text(encoding="utf-8").splitlines(), name=path.name)
    result = replay(trace)
    assert trace.expected
    assert result.differences() == ()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_simulated_endpoint_goes_the_way_of_its_trace(scenario: Scenario) -> None:
    path = TRACES / f"{scenario.name}.jsonl"
    trace = parse_trace(path.read_text(encoding="utf-8").splitlines())
    assert tuple(simulate(scenario).changes) == trace.expected


def lines_of(name: str) -> list[str]:
    return (TRACES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()


def test_a_replay_finds_a_changed_expectation() -> None:
    lines = lines_of("step")
    index = next(number for number, line in enumerate(lines) if "LatencyViolated" in line)
    document = json.loads(lines[index])
    document["expected"]["target"] = "tiny"
    lines[index] = json.dumps(document)
    differences = replay(parse_trace(lines)).differences()
    assert len(differences) == 1
    assert "expected 46 s: Switch LatencyViolated -> tiny, got 46 s: Switch LatencyViolated -> small" in differences[0]


def test_a_replay_finds_a_missing_change_at_the_end() -> None:
    differences = replay(parse_trace(lines_of("step")[:-1])).differences()
    assert len(differences) == 1
    assert "expected none" in differences[0]


def test_recorded_decisions_are_compared_cycle_by_cycle() -> None:
    run = simulate(SCENARIOS[0])
    trace = parse_trace(run.lines)
    lines = [run.lines[0]]
    decisions = iter(run.decisions)
    for line in run.lines[1:]:
        document = json.loads(line)
        if "observation" in document:
            _, decision = next(decisions)
            record = DecisionRecord.of(decision)
            document["decision"] = {"action": record.action, "reason": record.reason, "target": record.target}
        lines.append(json.dumps(document))
    assert replay(parse_trace(lines)).differences() == ()
    other = SWITCHING.model_copy(update={"down_after_seconds": 9})
    header = header_line(profiles=trace.profiles, switching=other)
    assert replay(parse_trace([header, *lines[1:]])).differences()


def test_without_outcomes_a_switch_is_taken_to_succeed_at_once() -> None:
    trace = parse_trace(lines_of("step"))
    events = [event for event in trace.events if hasattr(event, "observation")]
    lines = [header_line(profiles=trace.profiles, switching=trace.switching)]
    for event in events:
        lines.append(cycle_line(now=event.now, observation=event.observation, objectives=event.objectives))
    result = replay(parse_trace(lines))
    assert result.state.recent_switches
    assert result.switches == sum(step.decision.action is Action.SWITCH for step in result.steps) > 0


def test_a_trace_says_everything_again_when_it_is_read() -> None:
    trace = parse_trace(lines_of("closed-loop"))
    cycle = trace.events[20]
    line = cycle_line(now=cycle.now, observation=cycle.observation, objectives=Objectives(latency_p95_milliseconds=1))
    again = parse_trace([lines_of("closed-loop")[0], line]).events[0]
    assert again.observation == cycle.observation
    assert again.objectives == Objectives(latency_p95_milliseconds=1)
    assert encoded(again.observation) == encoded(cycle.observation)


def test_fields_that_earlier_versions_recorded_are_passed_over() -> None:
    cycle = json.loads(lines_of("closed-loop")[20]) | {"objectives": {"latencyP95Milliseconds": 1}}
    read = parse_trace([lines_of("closed-loop")[0], json.dumps(cycle)]).events[0]
    assert "batch" in cycle["observation"]["traffic"]
    cycle["observation"] |= {"instances": 1, "memory": {"ageSeconds": 0, "instanceOverheadBytes": 5} | MEMORY}
    again = parse_trace([lines_of("closed-loop")[0], json.dumps(cycle)]).events[0]
    assert again.observation.traffic == read.observation.traffic
    assert again.observation.memory.limit_bytes == MEMORY["limitBytes"]


@pytest.mark.parametrize(
    ("lines", "field", "text"),
    [
        ([], "trace", "empty"),
        (["no JSON"], "trace, line 1", "Expecting value"),
        (["[1]"], "trace, line 1", "not a JSON object"),
        (['{"trace": "other/v9"}'], "trace, line 1", "other/v9"),
        (['{"trace": "edgefolio.dev/decision-trace/v1"}'], "trace, line 1", "'profiles' is missing"),
        (
            ['{"trace": "edgefolio.dev/decision-trace/v1", "profiles": [], "switching": {"minDwellSeconds": -1}}'],
            "trace, line 1",
            "minDwellSeconds",
        ),
        (
            ['{"trace": "edgefolio.dev/decision-trace/v1", "profiles": [{"name": "a", "rank": "x"}]}'],
            "trace, line 1",
            "VariantProfile.rank",
        ),
        (["HEADER", '{"now": 1, "observation": {}}'], "trace, line 2", "must hold objectives"),
        (["HEADER", '{"now": 1, "objectives": {"latency": 3}, "observation": {}}'], "trace, line 2", "'latency'"),
        (["HEADER", '{"now": "soon", "switched": "a"}'], "trace, line 2", "soon"),
        (["HEADER", '{"expected": {"at": 1, "action": "Wait", "reason": "Initial"}}'], "trace, line 2", "Wait"),
    ],
)
def test_a_broken_trace_is_refused_with_its_line(lines: list[str], field: str, text: str) -> None:
    lines = [lines_of("step")[0] if line == "HEADER" else line for line in lines]
    with pytest.raises(UserError) as caught:
        parse_trace(lines)
    assert caught.value.field == field
    assert text in caught.value.problem
