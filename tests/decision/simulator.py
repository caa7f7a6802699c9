"""An endpoint in virtual time: requests queue for a variant that the core chose, and the core sees what came of it.

First come, first served, by one server; service times are log-normal around the profile's mean times the
compute factor of the moment. Requests come at a rate (Poisson, or evenly paced) and from closed-loop clients that send
the next one when the last was answered. Seeded, so that a scenario always gives the same trace.
"""

from __future__ import annotations

import heapq
import json
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edgefolio.decision import decide, state_after_failure, state_after_switch
from edgefolio.decision.recording.traces import (
    DecisionRecord,
    ExpectedChange,
    cycle_line,
    failed_line,
    header_line,
    switched_line,
)
from edgefolio.decision.types import (
    Action,
    Decision,
    MemoryState,
    Objectives,
    Observation,
    ProbeResult,
    ServerState,
    State,
    TrafficWindow,
    VariantProfile,
)
from edgefolio.specification import Switching

MEBIBYTE = 2**20
#: Virtual seconds since the epoch at which every scenario starts.
START = 1_000_000.0


def profile(name: str, rank: int, accuracy: float, milliseconds: float, mebibytes: int) -> VariantProfile:
    return VariantProfile(
        name=name,
        rank=rank,
        accuracy_percent=accuracy,
        mean_milliseconds=milliseconds,
        p95_milliseconds=milliseconds * 1.2,
        load_milliseconds=150,
        memory_peak_bytes=mebibytes * MEBIBYTE,
        memory_steady_bytes=mebibytes * MEBIBYTE * 4 // 5,
    )


PROFILES = (
    profile("tiny", 1, 85.0, 2.0, 20),
    profile("small", 2, 88.0, 4.0, 30),
    profile("mid", 3, 90.0, 6.0, 40),
    profile("large", 4, 91.5, 10.0, 60),
)

#: Short enough for traces that people read; the rules are those of any other setting.
SWITCHING = Switching(
    down_after_seconds=5, up_after_seconds=30, min_dwell_seconds=10, quarantine_seconds=60, max_switches_per_hour=12
)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What happens to an endpoint; functions of the seconds since the start."""

    name: str
    note: str
    seconds: float
    objectives: Callable[[float], Objectives] = lambda _: Objectives(latency_p95_milliseconds=30.0)
    switching: Switching = SWITCHING
    profiles: tuple[VariantProfile, ...] = PROFILES
    rate: Callable[[float], float] = lambda _: 0.0
    highest_rate: float = 1.0
    paced: bool = False
    clients: Callable[[float], int] = lambda _: 0
    think_seconds: float = 0.0005
    factor: Callable[[float], float] = lambda _: 1.0
    transport_milliseconds: float = 0.5
    memory: Callable[[float, VariantProfile | None], MemoryState | None] = lambda _, __: None
    is_scraped: Callable[[float], bool] = lambda _: True
    dies_at: tuple[float, ...] = ()
    fails: Callable[[float, str], bool] = lambda _, __: False
    load_fails: Callable[[float, str], bool] = lambda _, __: False
    clock: Callable[[float], float] = lambda seconds: START + seconds
    cycle_seconds: float = 1.0
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answered request, in seconds."""

    variant: str
    finished: float
    queued: float
    computed: float
    failed: bool


@dataclass(kw_only=True)
class Run:
    """What a scenario gave."""

    lines: list[str]
    decisions: list[tuple[float, Decision]] = field(default_factory=list)
    active: list[tuple[float, str | None]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    @property
    def switches(self) -> list[tuple[float, str, str | None]]:
        return [
            (at, decision.reason.value, decision.target)
            for at, decision in self.decisions
            if decision.action is Action.SWITCH
        ]

    @property
    def changes(self) -> list[ExpectedChange]:
        found: list[ExpectedChange] = []
        for at, decision in self.decisions:
            record = DecisionRecord.of(decision)
            if not found or found[-1].decision != record:
                found.append(ExpectedChange(at=at, decision=record))
        return found

    def text(self) -> str:
        return "".join([*self.lines, *(_expected_line(change) for change in self.changes)])

    def active_at(self, seconds: float) -> str | None:
        return next((name for at, name in reversed(self.active) if at <= seconds), None)


class Server:
    """Requests in, answers out; the variant is read when a request starts to be computed."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.random = random.Random(scenario.seed)
        self.variant: VariantProfile | None = None
        self.answers: deque[Answer] = deque()
        self.waiting: deque[tuple[float, bool]] = deque()
        self.now = 0.0
        self._events: list[tuple[float, int, str, bool]] = []
        self._count = 0
        self._busy = False
        self._clients = 0
        self._at(self._next_arrival(0.0), "arrives", False)

    def run_until(self, seconds: float) -> None:
        wanted = self.scenario.clients(self.now)
        while self._clients < wanted:
            self._clients += 1
            self._at(self.now, "arrives", True)
        while self._events and self._events[0][0] <= seconds:
            self.now, _, kind, closed = heapq.heappop(self._events)
            if kind == "arrives":
                self._arrive(closed)
            else:
                self._busy = False
            self._start()
        self.now = seconds
        self._start()

    def _arrive(self, closed: bool) -> None:
        if closed and self._clients > self.scenario.clients(self.now):
            self._clients -= 1
            return
        if not closed:
            self._at(self._next_arrival(self.now), "arrives", False)
            if not self.scenario.paced and self.random.random() >= self._rate(self.now) / self.scenario.highest_rate:
                return
            if self.scenario.paced and self._rate(self.now) == 0:
                return
        self.waiting.append((self.now, closed))

    def _start(self) -> None:
        if self._busy or self.variant is None or not self.waiting:
            return
        arrived, closed = self.waiting.popleft()
        sigma = 0.12
        spread = math.exp(self.random.gauss(0.0, sigma) - sigma * sigma / 2)
        computed = self.variant.mean_milliseconds * self.scenario.factor(self.now) * spread / 1000
        finished = self.now + computed
        self.answers.append(
            Answer(
                variant=self.variant.name,
                finished=finished,
                queued=self.now - arrived,
                computed=computed,
                failed=self.scenario.fails(self.now, self.variant.name),
            )
        )
        self._busy = True
        self._at(finished, "is free", False)
        if closed:
            pause = self.scenario.think_seconds + self.scenario.transport_milliseconds / 1000
            self._at(finished + pause, "arrives", True)

    def _rate(self, seconds: float) -> float:
        return self.scenario.rate(seconds)

    def _next_arrival(self, seconds: float) -> float:
        if self.scenario.paced:
            return seconds + 1 / max(self._rate(seconds), 0.1)
        return seconds + self.random.expovariate(self.scenario.highest_rate)

    def _at(self, seconds: float, kind: str, closed: bool) -> None:
        self._count += 1
        heapq.heappush(self._events, (seconds, self._count, kind, closed))


def simulate(scenario: Scenario, *, state: State | None = None) -> Run:
    """Run ``scenario`` with the core in charge."""
    state = state or State()
    server = Server(scenario)
    run = Run(
        lines=[header_line(profiles=scenario.profiles, switching=scenario.switching, state=state, note=scenario.note)]
    )
    by_name = {entry.name: entry for entry in scenario.profiles}
    seconds, active_since, dead = 0.0, 0.0, False
    scraped: tuple[float, TrafficWindow] | None = None
    objectives_before: Objectives | None = None
    deaths = list(scenario.dies_at)
    while seconds <= scenario.seconds:
        server.run_until(seconds)
        if deaths and seconds >= deaths[0]:
            deaths.pop(0)
            dead = True
        now, active = scenario.clock(seconds), server.variant
        if active is not None and scenario.is_scraped(seconds):
            scraped = seconds, _window(server, active.name, scenario, since=active_since)
        observation = Observation(
            active_variant=active.name if active else None,
            resident_variants=(active.name,) if active else (),
            server=ServerState.DEAD if dead else ServerState.SERVING,
            traffic=_aged(scraped, seconds) if active else None,
            probe=_probe(scenario, active, seconds),
            memory=scenario.memory(seconds, active),
        )
        objectives = scenario.objectives(seconds)
        decision, state = decide(
            observation=observation,
            objectives=objectives,
            profiles=scenario.profiles,
            switching=scenario.switching,
            state=state,
            now=now,
        )
        run.lines.append(
            cycle_line(
                now=now, observation=observation, objectives=None if objectives == objectives_before else objectives
            )
        )
        objectives_before = objectives
        # On the endpoint's own clock, which is all that a trace knows.
        run.decisions.append((round(now - scenario.clock(0), 6), decision))
        run.active.append((seconds, observation.active_variant))
        if decision.action is Action.SWITCH:
            assert decision.target is not None
            # The old variant serves on while the new one loads.
            server.run_until(seconds + 0.2)
            loaded = scenario.clock(seconds + 0.2)
            if scenario.load_fails(seconds, decision.target):
                state = state_after_failure(
                    state, variant=decision.target, cause="load failed", now=loaded, switching=scenario.switching
                )
                run.lines.append(failed_line(now=loaded, variant=decision.target, cause="load failed"))
            else:
                server.variant, active_since, scraped, dead = by_name[decision.target], seconds + 0.2, None, False
                state = state_after_switch(state, variant=decision.target, now=loaded)
                run.lines.append(switched_line(now=loaded, variant=decision.target))
        seconds = round(seconds + scenario.cycle_seconds, 6)
    run.answers = list(server.answers)
    return run


def _window(server: Server, variant: str, scenario: Scenario, *, since: float) -> TrafficWindow:
    end = server.now
    start = max(since, end - scenario.switching.window_seconds, 0.0)
    seconds = max(end - start, 0.001)
    # Computed when it starts, answered when it finishes: those still to come stay out of the window.
    found = [
        entry for entry in _last(server.answers, start) if entry.variant == variant and start < entry.finished <= end
    ]
    good = [entry for entry in found if not entry.failed]
    count = len(good)

    def mean(values: list[float]) -> float:
        return _rounded(1000 * sum(values) / count) if count else 0.0

    queue, compute = mean([entry.queued for entry in good]), mean([entry.computed for entry in good])
    total = _rounded(queue + compute + scenario.transport_milliseconds) if count else 0.0
    return TrafficWindow(
        seconds=_rounded(seconds),
        requests=count,
        failures=len(found) - count,
        executions=count,
        mean_compute_milliseconds=compute,
        mean_queue_milliseconds=queue,
        mean_total_milliseconds=total,
        in_flight=_rounded(count * total / 1000 / seconds),
        age_seconds=0.0,
    )


def _last(answers: deque[Answer], start: float) -> list[Answer]:
    found = []
    for entry in reversed(answers):
        if entry.finished <= start:
            break
        found.append(entry)
    return found[::-1]


def _aged(scraped: tuple[float, TrafficWindow] | None, seconds: float) -> TrafficWindow | None:
    if scraped is None:
        return None
    at, window = scraped
    return TrafficWindow(**{**vars(window), "age_seconds": round(seconds - at, 3)})


def _probe(scenario: Scenario, active: VariantProfile | None, seconds: float) -> ProbeResult | None:
    interval = scenario.switching.probe_interval_seconds
    if active is None or seconds < interval or scenario.rate(seconds) > 0 or scenario.clients(seconds) > 0:
        return None
    at = seconds - seconds % interval
    return ProbeResult(
        variant=active.name,
        compute_milliseconds=_rounded(active.mean_milliseconds * scenario.factor(at)),
        age_seconds=round(seconds - at, 3),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _expected_line(change: ExpectedChange) -> str:
    """The line of a trace that demands a change of the decision."""
    record = change.decision
    document: dict[str, object] = {"at": change.at, "action": record.action.value, "reason": record.reason.value}
    if record.target is not None:
        document["target"] = record.target
    return json.dumps({"expected": document}, separators=(",", ":"), ensure_ascii=False) + "\n"
