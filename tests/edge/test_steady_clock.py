"""The clock of the decision's timers: no step of the wall clock moves it, and it goes on over restarts and reboots."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefolio.decision import state_after_failure, state_after_switch
from edgefolio.decision.state import shifted
from edgefolio.decision.types import FittingVariant, Quarantine, State, UpgradeBackoff
from edgefolio.specification.serving import Switching
from edgefolio_edge.agent.records.state_files import StateFile
from edgefolio_edge.process.steady_clock import SteadyClock

STEPS = st.floats(-60 * 365 * 86_400.0, 60 * 365 * 86_400.0)
YEARS_56 = 56 * 365 * 86_400.0


class Machine:
    """A machine whose wall clock is set, and which is booted again."""

    def __init__(self) -> None:
        self.since_boot = 20.0
        self.step = YEARS_56
        self.boot = "first"

    def passes(self, seconds: float) -> None:
        self.since_boot += seconds

    def reboot(self, *, step: float) -> None:
        self.boot, self.since_boot, self.step = "second", 5.0, step

    def clock(self, stored: object = None) -> SteadyClock:
        return SteadyClock(
            stored, wall=lambda: self.since_boot + self.step, elapsed=lambda: self.since_boot, boot=self.boot
        )


@given(steps=st.lists(st.tuples(STEPS, st.floats(0.1, 1000.0)), max_size=8))
def test_no_step_moves_it_and_its_offset_tells_the_wall_clock(steps: list[tuple[float, float]]) -> None:
    machine = Machine()
    clock = machine.clock()
    for step, seconds in steps:
        before = clock.now()
        machine.step = step
        machine.passes(seconds)
        assert clock.now() - before == pytest.approx(seconds, abs=1e-3)
        assert clock.now() + clock.offset() == pytest.approx(machine.since_boot + step, abs=1.001)
        # The agent is killed and started again.
        clock = machine.clock(json.loads(json.dumps(clock.reading())))
        assert clock.now() - before == pytest.approx(seconds, abs=1e-3)


@given(step=STEPS)
def test_after_a_reboot_time_goes_on_and_never_back(step: float) -> None:
    machine = Machine()
    clock = machine.clock()
    machine.passes(1000)
    reading, before = clock.reading(), clock.now()
    machine.reboot(step=step)
    assert machine.clock(reading).now() >= before


@pytest.mark.parametrize(
    "stored",
    [
        *(None, 1, "x", [], {}, {"boot": "first"}, {"boot": "first", "sinceBoot": 1, "time": "now"}),
        *(
            {"boot": "first", "sinceBoot": 1, "time": value}
            for value in (float("nan"), float("inf"), 10**400, -1, True)
        ),
        {"boot": "first", "sinceBoot": -1e300, "time": 1.0},
        {"boot": 1, "sinceBoot": 1.0, "time": 1.0},
    ],
)
def test_a_damaged_reading_is_ignored(stored: object) -> None:
    assert Machine().clock(stored).now() == YEARS_56 + 20


def test_every_time_of_a_state_is_shifted_for_its_reader() -> None:
    state = State(
        fitting=(FittingVariant(variant="a", since=1000.0),),
        recent_switches=(1000.0,),
        quarantined=(Quarantine(variant="a", until=1000.0, failures=1, cause=""),),
        upgrade_backoffs=(UpgradeBackoff(variant="a", until=1000.0, bounces=1),),
        **dict.fromkeys(_time_fields(), 1000.0),
    )
    assert json.dumps(dataclasses.asdict(shifted(state, 500.0))) == json.dumps(dataclasses.asdict(state)).replace(
        "1000.0", "1500.0"
    )


def _time_fields() -> dict[str, Any]:
    return dict.fromkeys(field.name for field in dataclasses.fields(State) if field.name.endswith(("_at", "_since")))


@given(time=st.floats(), step=st.floats(-1e12, 1e12))
def test_whatever_a_damaged_file_holds_can_be_shown(time: float, step: float) -> None:
    state = State(last_switch_at=time, recent_switches=(time,))
    after = shifted(state, step)
    assert after.last_switch_at is None or 0 <= after.last_switch_at < 253_402_300_800
    assert 0 <= after.recent_switches[0] < 253_402_300_800


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "", "{", "null", "[]", '{"lastSwitchAt": {}}', "\ud800", "x" * (5 << 20)]
)
def test_a_damaged_state_file_counts_as_absent(tmp_path: Path, text: str) -> None:
    (tmp_path / "decision.json").write_text(text, errors="surrogatepass")
    assert StateFile(tmp_path).read() == State()


def test_what_a_killed_agent_was_writing_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".decision.json.0123456789abcdef.partial").write_text("{")
    StateFile(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_quarantine_and_dwell_go_on_after_a_restart_in_the_same_boot(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    now = file.clock.now()
    state = state_after_switch(State(), variant="a", now=now)
    state = state_after_failure(state, variant="b", cause="", now=now, switching=Switching())
    file.write(state, now=True)
    again = StateFile(tmp_path)
    assert again.read() == state
    assert 0 <= again.clock.now() - now < 60
