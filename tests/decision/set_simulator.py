"""A set of workers in virtual time: two entries whose requests two workers compute together, and the core that decides.

Two parts: requests one by one through both workers, which the prediction is held against; and one endpoint of the set
second by second, whose link, peer and neighbour follow functions of time.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from simulator import START, SWITCHING
from splits import SPLIT, WITH_SPLIT

from edgefolio.decision import decide, state_after_switch
from edgefolio.decision.types import (
    Action,
    Decision,
    Objectives,
    Observation,
    ServerState,
    State,
    TrafficWindow,
    VariantProfile,
    WorkerSet,
)
from edgefolio.specification import Switching

_SIGMA = 0.12


def latencies(
    *, rates: tuple[float, float], factors: tuple[float, float], round_trip: float, transfer: float, requests: int
) -> list[float]:
    """Milliseconds of the requests of entry 0, whose two workers compute for both entries.

    Poisson arrivals of ``rates`` a second. An entry has one request under way. Each worker computes the oldest job that
    has its inputs, a third of its part between two exchanges; each exchange takes ``round_trip``, and so do input and
    answer; ``transfer`` milliseconds of bytes are spread over them.
    """
    chance = random.Random(1)
    segments = 3
    hop = (round_trip * (segments - 1) + transfer / 2) / (segments - 1)
    ends = (round_trip + transfer / 2) / 2
    events: list[tuple[float, int, str, tuple[int, ...]]] = []
    queues: tuple[deque[float], deque[float]] = (deque(), deque())
    busy_entry = [False, False]
    free = [True, True]
    ready: tuple[list[tuple[float, int, int]], list[tuple[float, int, int]]] = ([], [])
    done: dict[tuple[int, int], int] = {}
    jobs: dict[int, tuple[int, float]] = {}
    answered: list[float] = []
    counted = 0

    def at(time: float, kind: str, *about: int) -> None:
        nonlocal counted
        counted += 1
        heapq.heappush(events, (time, counted, kind, about))

    def begin(entry: int, now: float) -> None:
        if busy_entry[entry] or not queues[entry]:
            return
        busy_entry[entry] = True
        job = len(jobs)
        jobs[job] = entry, queues[entry].popleft()
        for worker in (0, 1):
            at(now + ends, "ready", worker, job, 0)

    def compute(worker: int, now: float) -> None:
        if not free[worker] or not ready[worker]:
            return
        _, job, segment = heapq.heappop(ready[worker])
        free[worker] = False
        spread = math.exp(chance.gauss(0.0, _SIGMA) - _SIGMA * _SIGMA / 2)
        part = SPLIT.mean_milliseconds * factors[worker] * spread / segments
        at(now + part, "computed", worker, job, segment)

    for entry in (0, 1):
        at(1000 * chance.expovariate(rates[entry]), "arrives", entry)
    while len(answered) < requests:
        now, _, kind, about = heapq.heappop(events)
        if kind == "arrives":
            (entry,) = about
            queues[entry].append(now)
            at(now + 1000 * chance.expovariate(rates[entry]), "arrives", entry)
            begin(entry, now)
        elif kind == "ready":
            worker, job, segment = about
            heapq.heappush(ready[worker], (jobs[job][1], job, segment))
            compute(worker, now)
        elif kind == "computed":
            worker, job, segment = about
            free[worker] = True
            done[job, segment] = done.get((job, segment), 0) + 1
            if done[job, segment] == 2:
                if segment + 1 < segments:
                    for other in (0, 1):
                        at(now + hop, "ready", other, job, segment + 1)
                else:
                    at(now + ends, "answered", job)
            compute(worker, now)
        else:
            (job,) = about
            entry, arrived = jobs[job]
            busy_entry[entry] = False
            if entry == 0:
                answered.append(now - arrived)
            begin(entry, now)
    return answered


@dataclass(frozen=True, kw_only=True)
class SetScenario:
    """What happens to a set; functions of the seconds since the start.

    ``offered``: a set is there at all; ``linked``: its workers answer. ``rate`` is that of each of the two entries.
    """

    seconds: float
    objectives: Objectives
    offered: Callable[[float], bool] = lambda _: True
    linked: Callable[[float], bool] = lambda _: True
    factor: Callable[[float], float] = lambda _: 1.0
    bytes_per_second: Callable[[float], float] = lambda _: 125e6
    round_trip_milliseconds: float = 0.2
    rate: float = 4.0
    first: str = "large"
    #: Between two decisions.
    step: float = 1.0
    switching: Switching = SWITCHING
    profiles: tuple[VariantProfile, ...] = WITH_SPLIT


@dataclass(kw_only=True)
class SetRun:
    """What a scenario gave."""

    decisions: list[tuple[float, Decision]] = field(default_factory=list)
    #: (seconds, variant, mean of an answer in milliseconds, accuracy of it in percent)
    answers: list[tuple[float, str, float, float]] = field(default_factory=list)

    @property
    def switches(self) -> list[tuple[float, str, str | None]]:
        """When, why and to what it switched."""
        return [
            (at, decision.reason.value, decision.target)
            for at, decision in self.decisions
            if decision.action is Action.SWITCH
        ]

    def most_switches_in(self, seconds: float) -> int:
        """The most switches in any stretch of ``seconds``."""
        times = [at for at, _, _ in self.switches]
        return max((sum(begin <= at < begin + seconds for at in times) for begin in times), default=0)

    def served(self, begin: float, end: float) -> set[str]:
        """The variants that answered between two instants."""
        return {name for at, name, _, _ in self.answers if begin <= at < end}


def simulate_set(scenario: SetScenario) -> SetRun:
    """Run ``scenario`` second by second with the core in charge of one endpoint."""
    by_name = {entry.name: entry for entry in scenario.profiles}
    state, active, active_since, fallback = State(), scenario.first, 0.0, None
    run = SetRun()
    recent: deque[tuple[float, float, float, bool]] = deque()
    second = 0.0
    while second <= scenario.seconds:
        factor, is_linked = scenario.factor(second), scenario.linked(second) and scenario.offered(second)
        profile = by_name[active]
        by_fallback = profile.split is not None and not is_linked
        answerer = by_name[fallback or "tiny"] if by_fallback else profile
        network = _network(scenario, second) if answerer.split is not None else 0.0
        milliseconds = factor * answerer.mean_milliseconds + network
        recent.append((second, milliseconds, factor * profile.mean_milliseconds, by_fallback))
        while recent[0][0] < second - scenario.switching.window_seconds:
            recent.popleft()
        run.answers.append((second, answerer.name, milliseconds, answerer.accuracy_percent))
        observation = Observation(
            active_variant=active,
            resident_variants=(active,),
            server=ServerState.SERVING,
            traffic=_window(scenario, [row for row in recent if row[0] >= active_since]),
            worker_set=_set(scenario, second, recent, fallback) if scenario.offered(second) else None,
        )
        decision, state = decide(
            observation=observation,
            objectives=scenario.objectives,
            profiles=scenario.profiles,
            switching=scenario.switching,
            state=state,
            now=START + second,
            with_standby=True,
        )
        run.decisions.append((second, decision))
        if decision.action is Action.SWITCH:
            assert decision.target is not None
            active, active_since = decision.target, second + 1
            fallback = None if decision.fallback is None else decision.fallback.variant
            state = state_after_switch(state, variant=active, now=START + second + 0.5)
        second += scenario.step
    return run


def _network(scenario: SetScenario, second: float) -> float:
    assert SPLIT.split is not None
    sent = SPLIT.split.bytes_into_busiest + SPLIT.split.input_bytes
    return 3 * scenario.round_trip_milliseconds + 1e3 * sent / scenario.bytes_per_second(second)


def _window(scenario: SetScenario, rows: list[tuple[float, float, float, bool]]) -> TrafficWindow:
    count = max(1, round(scenario.rate * scenario.step * len(rows)))
    mean = sum(row[1] for row in rows) / max(1, len(rows)) or 1.0
    window = TrafficWindow(
        seconds=scenario.step * max(1, len(rows)),
        requests=count,
        failures=0,
        executions=count,
        mean_compute_milliseconds=mean,
        mean_queue_milliseconds=0.0,
        mean_total_milliseconds=mean + 0.5,
        in_flight=scenario.rate * mean / 1000,
        age_seconds=0.0,
    )
    return window if rows else replace(window, requests=0, executions=0)


def _set(
    scenario: SetScenario, second: float, rows: deque[tuple[float, float, float, bool]], fallback: str | None
) -> WorkerSet:
    counted = round(scenario.rate * scenario.step * len(rows))
    fallen = round(scenario.rate * scenario.step * sum(row[3] for row in rows))
    return WorkerSet(
        variant=SPLIT.name,
        rank=0,
        workers=2,
        is_ready=scenario.linked(second),
        age_seconds=0.0,
        reason="" if scenario.linked(second) else "the link is down",
        round_trip_milliseconds=scenario.round_trip_milliseconds,
        bytes_per_second=scenario.bytes_per_second(second),
        compute_factor=scenario.factor(second),
        arrival_rate=2 * scenario.rate,
        own_compute_milliseconds=rows[-1][2] if fallback is not None else None,
        own_jobs=counted if fallback is not None else 0,
        split_answers=counted - fallen,
        fallback_answers=fallen,
        fallback=fallback,
    )
