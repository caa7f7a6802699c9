"""A trace that an agent of the release before recorded (``stored/``, code of 244bc78) replays to its decisions."""

from __future__ import annotations

from pathlib import Path

from edgefolio.decision.recording.replay import replay
from edgefolio.decision.recording.traces import parse_trace


def test_every_recorded_decision_is_decided_again() -> None:
    path = Path(__file__).parent / "stored" / "failures.jsonl"
    trace = parse_trace(path.read_text(encoding="utf-8").splitlines(), name=path.name)
    result = replay(trace)
    assert trace.has_outcomes
    assert len(result.steps) == 231
    assert all(step.recorded is not None for step in result.steps)
    assert result.differences() == ()
