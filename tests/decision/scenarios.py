"""The situations that are kept as traces. ``python tests/decision/scenarios.py`` writes them anew, for review."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).parent))

from simulator import MEBIBYTE, SWITCHING, Scenario, simulate

from edgefolio.decision.types import MemoryState, Objectives, VariantProfile

Value = TypeVar("Value")
TRACES = Path(__file__).parent / "traces"


def between(start: float, end: float, inside: float, outside: float = 1.0) -> Callable[[float], float]:
    return lambda seconds: inside if start <= seconds < end else outside


def constant(value: Value) -> Callable[[float], Value]:
    return lambda _: value


def objectives(milliseconds: float | None = 30.0, **others: float) -> Objectives:
    return Objectives(latency_p95_milliseconds=milliseconds, **others)


def squeezed(seconds: float, active: VariantProfile | None) -> MemoryState:
    """1,000 MiB of limit; from 60 s another tenant takes the node's memory, from 150 s the server's own grows."""
    loaded = active.memory_steady_bytes if active else 0
    base = (400 if seconds < 150 or seconds > 200 else 910) * MEBIBYTE
    node = (400 if seconds < 60 or seconds > 110 else 75) * MEBIBYTE
    return MemoryState(
        limit_bytes=1000 * MEBIBYTE, working_set_bytes=base + loaded, node_available_bytes=node, age_seconds=0.0
    )


def changing_objectives(seconds: float) -> Objectives:
    if seconds < 30:
        return objectives(30)
    if seconds < 60:
        return objectives(12)
    if seconds < 90:
        return objectives(12, min_accuracy_percent=89)
    if seconds < 120:
        return objectives(12, min_accuracy_percent=99)
    if seconds < 180:
        return objectives(30, max_memory_bytes=35 * MEBIBYTE)
    return objectives(None)


SCENARIOS = (
    Scenario(
        name="step",
        note="20 requests/s; at 40 s other work slows the node threefold, at 120 s it ends.",
        seconds=200,
        rate=constant(20),
        highest_rate=20,
        factor=between(40, 120, 3.0),
    ),
    Scenario(
        name="ramp",
        note="From 5 to 110 requests/s in 150 s, and down again.",
        seconds=360,
        rate=lambda seconds: 5 + 105 * max(0.0, 1 - abs(seconds - 150) / 150),
        highest_rate=110,
        cycle_seconds=2,
    ),
    Scenario(
        name="spikes",
        note="Every 40 s the node is four times slower for 2 s: too short to act on.",
        seconds=160,
        rate=constant(20),
        highest_rate=20,
        factor=lambda seconds: 4.0 if 20 <= seconds % 40 < 22 else 1.0,
        switching=SWITCHING.model_copy(update={"down_after_seconds": 10}),
    ),
    Scenario(
        name="diurnal",
        note="A day in 40 minutes: 2 requests/s at night, 90 at noon.",
        seconds=2400,
        rate=lambda seconds: 46 - 44 * math.cos(2 * math.pi * seconds / 2400),
        highest_rate=90,
        cycle_seconds=10,
        switching=SWITCHING.model_copy(
            update={"up_after_seconds": 120, "down_after_seconds": 20, "window_seconds": 20, "stale_after_seconds": 40}
        ),
    ),
    Scenario(
        name="flapping",
        note="The node is slow for 45 s and quick for 45 s, in turns: each step up waits longer than the one before.",
        seconds=720,
        rate=constant(20),
        highest_rate=20,
        factor=lambda seconds: 3.0 if seconds % 90 < 45 else 1.0,
        cycle_seconds=3,
    ),
    Scenario(
        name="missing-metrics",
        note="The node slows down at 40 s, just when the counters cannot be read any more; from 80 s they can.",
        seconds=120,
        rate=constant(20),
        highest_rate=20,
        factor=between(40, 200, 3.0),
        is_scraped=lambda seconds: not 40 <= seconds < 80,
    ),
    Scenario(
        name="memory-squeeze",
        note="Slow from 20 to 50 s; from 60 s the node has no memory for a larger variant; from 150 s the limit nears.",
        seconds=260,
        rate=constant(20),
        highest_rate=20,
        factor=between(20, 50, 3.0),
        memory=squeezed,
    ),
    Scenario(
        name="dead-stub",
        note="The process that computes dies at 20 s; at 60 s again, and then large fails to load for a while.",
        seconds=200,
        rate=constant(20),
        highest_rate=20,
        dies_at=(20, 60),
        load_fails=lambda seconds, variant: variant == "large" and 60 <= seconds < 100,
    ),
    Scenario(
        name="closed-loop",
        note="4 clients that ask again at once, then 1, then 12: a rate at full load says nothing of the demand.",
        seconds=240,
        clients=lambda seconds: 4 if seconds < 80 else 1 if seconds < 160 else 12,
        objectives=constant(objectives(25)),
    ),
    Scenario(
        name="saturation",
        note="60 requests/s; from 30 to 70 s 700, which no variant can answer.",
        seconds=200,
        rate=between(30, 70, 700.0, 60.0),
        highest_rate=700,
    ),
    Scenario(
        name="idle",
        note="40 requests/s on a slow node; at 60 s the traffic ends, at 90 s the node is quick again.",
        seconds=240,
        rate=between(0, 60, 40.0, 0.0),
        highest_rate=40,
        factor=between(10, 90, 3.0),
    ),
    Scenario(
        name="clock-jump",
        note="The clock goes back an hour at 44 s, amid a violation, and forward a day at 100 s.",
        seconds=180,
        rate=constant(20),
        highest_rate=20,
        factor=between(40, 90, 3.0),
        clock=lambda seconds: (
            1_000_000.0 + seconds - (3600 if seconds >= 44 else 0) + (86_400 if seconds >= 100 else 0)
        ),
    ),
    Scenario(
        name="objective-changed",
        note="30 ms; 12 ms; and at least 89 %; and at least 99 %; 30 ms and at most 35 MiB; nothing asked.",
        seconds=240,
        rate=constant(15),
        highest_rate=15,
        objectives=changing_objectives,
    ),
    Scenario(
        name="failures",
        note="From 20 to 60 s the large variant fails every request; from 150 s all do (clients send nonsense).",
        seconds=230,
        rate=constant(20),
        highest_rate=20,
        fails=lambda seconds, variant: (20 <= seconds < 60 and variant == "large") or seconds >= 150,
    ),
    Scenario(
        name="trickle",
        note="One request in 2 s on a node that is eight times slower from 20 s: evidence comes slowly, but it comes.",
        seconds=120,
        rate=constant(0.5),
        highest_rate=0.5,
        paced=True,
        factor=between(20, 500, 8.0),
    ),
    Scenario(
        name="paced",
        note="Evenly paced 120 requests/s: no queue, but more than the largest variant could ever answer.",
        seconds=300,
        rate=constant(120),
        highest_rate=120,
        paced=True,
        factor=between(0, 60, 2.0),
        cycle_seconds=2,
    ),
)


def write() -> None:
    TRACES.mkdir(exist_ok=True)
    for scenario in SCENARIOS:
        run = simulate(scenario)
        (TRACES / f"{scenario.name}.jsonl").write_text(run.text(), encoding="utf-8")
        print(f"{scenario.name}: {len(run.lines)} lines, {len(run.text()) // 1024} KB, switches {run.switches}")


if __name__ == "__main__":
    write()
