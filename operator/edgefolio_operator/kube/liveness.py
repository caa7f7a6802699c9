"""Liveness of the operator: detects a hung process. Pure.

A new process helps where this one hangs, or where one of its links died without a word. It does not help while the API
server is down: then the probe waits for a quarter of an hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: A cycle takes seconds.
LONGEST_CYCLE_SECONDS = 120.0
#: A healthy watch sends a bookmark once a minute; a dead one is detected and restarted after a minute and a half.
LONGEST_SILENCE_SECONDS = 300.0
#: The lease is renewed every few seconds: a recent answer proves that the API server is up.
ANSWERED_SECONDS = 60.0
#: After this long without an answer the fault may be in this process.
LONGEST_OUTAGE_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """Seconds since a worker was free, the API server answered, and each informer received."""

    cycle: float
    answer: float
    informers: Mapping[str, float] = field(default_factory=dict)


def fault_of(pulse: Pulse) -> str | None:
    """Why the process should be restarted; ``None`` while it is alive."""
    if pulse.cycle > LONGEST_CYCLE_SECONDS:
        return f"no worker was free for {pulse.cycle:.0f} s"
    if pulse.answer > LONGEST_OUTAGE_SECONDS:
        return f"the API server did not answer for {pulse.answer:.0f} s"
    path, silence = max(pulse.informers.items(), key=lambda item: item[1], default=("", 0.0))
    if silence > LONGEST_SILENCE_SECONDS and pulse.answer <= ANSWERED_SECONDS:
        return f"the informer of {path} was not heard for {silence:.0f} s, though the API server answers"
    return None
