"""When a process is started anew: what hangs and what went deaf, but not what waits for an API server that is down."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgefolio_operator.kube.liveness import (
    LONGEST_CYCLE_SECONDS,
    LONGEST_OUTAGE_SECONDS,
    LONGEST_SILENCE_SECONDS,
    Pulse,
    fault_of,
)

WELL = Pulse(cycle=2, answer=3, informers={"/api/v1/nodes": 40, "/api/v1/pods": 70})


def test_a_healthy_operator_lives() -> None:
    assert fault_of(WELL) is None
    assert fault_of(Pulse(cycle=0, answer=0)) is None


@pytest.mark.parametrize(
    ("pulse", "fault"),
    [
        (replace(WELL, cycle=LONGEST_CYCLE_SECONDS + 1), "no worker was free for 121 s"),
        (
            replace(WELL, informers={**WELL.informers, "/api/v1/nodes": LONGEST_SILENCE_SECONDS + 1}),
            "the informer of /api/v1/nodes was not heard for 301 s, though the API server answers",
        ),
        (replace(WELL, answer=LONGEST_OUTAGE_SECONDS + 1), "the API server did not answer for 901 s"),
    ],
)
def test_what_hangs_or_went_deaf_is_started_anew(pulse: Pulse, fault: str) -> None:
    assert fault_of(pulse) == fault


def test_an_api_server_that_is_down_is_waited_for_but_not_for_ever() -> None:
    silent = dict.fromkeys(WELL.informers, 600.0)
    assert fault_of(replace(WELL, answer=600, informers=silent)) is None
    assert fault_of(replace(WELL, answer=2, informers=silent)) is not None
    assert fault_of(replace(WELL, answer=1000, informers=silent)) is not None
