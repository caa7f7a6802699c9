"""Edgefolio as a policy: its own decision core, observed and obeyed as the agent does it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.violations.endpoint import TICK_SECONDS, Command, Endpoint
from benchmarks.violations.stories import Story

from edgefolio.decision import decide, state_after_switch
from edgefolio.decision.estimates.computing import variability_of
from edgefolio.decision.evidence import SURE, verdict_of, with_readings
from edgefolio.decision.types import (
    Action,
    MemoryState,
    Objectives,
    Observation,
    ProbeResult,
    Reading,
    ServerState,
    State,
    TrafficWindow,
    VariantProfile,
)
from edgefolio.specification import Switching

MEBIBYTE = 2**20
PROBE_SECONDS = 60.0


class Edgefolio:
    """The core with ``switching`` (default settings), a cycle each second and a reading every quarter."""

    def __init__(self, switching: Switching | None = None, *, reads: bool = True) -> None:
        """``reads`` is false for an agent that knows the window alone, as the release before."""
        self._switching = switching or Switching()
        self._reads = reads

    def start(self, _story: Story, variants: Sequence[VariantProfile], objective: float) -> str:
        """The most accurate variant, as after a calm."""
        self._profiles = tuple(variants)
        self._objectives = Objectives(latency_p95_milliseconds=objective)
        self._state = State()
        self._readings: deque[Reading] = deque(maxlen=round(self._switching.window_seconds / TICK_SECONDS))
        self._new: list[Reading] = []
        self._cycle_at = 0.0
        self._probe: tuple[str, float, float, float] | None = None
        self._active: str | None = None
        return max(variants, key=lambda variant: variant.rank).name

    def act(self, endpoint: Endpoint) -> Command:
        """A reading, and a decision each second or as soon as a violation is sure."""
        if endpoint.active != self._active:
            if self._active is not None:
                self._state = state_after_switch(self._state, variant=endpoint.active, now=endpoint.switched_at)
            self._active = endpoint.active
            self._readings.clear()
            self._new.clear()
        self._readings.append(endpoint.reading)
        self._new.append(endpoint.reading)
        if endpoint.is_loading or (endpoint.now - self._cycle_at < 1.0 and not self._is_sure(endpoint)):
            return Command()
        self._cycle_at = endpoint.now
        decision, self._state = decide(
            observation=self._observation(endpoint),
            objectives=self._objectives,
            profiles=self._profiles,
            switching=self._switching,
            state=self._state,
            now=endpoint.now,
            with_standby=True,
        )
        self._new.clear()
        standby = decision.standby
        beside = None if standby is None else (standby.variant,) if standby.variant is not None else ()
        return Command(serve=decision.target if decision.action is Action.SWITCH else None, beside=beside)

    def _is_sure(self, endpoint: Endpoint) -> bool:
        if not self._reads:
            return False
        active = endpoint.variants[endpoint.active]
        budget, needed = endpoint.objective, self._switching.min_requests
        before = self._state.latency_test
        variability = variability_of(self._state, active)
        after = with_readings(before, self._new, profile=active, budget=budget, variability=variability)
        was, now = (verdict_of(test, budget=budget, min_requests=needed, sure=SURE) for test in (before, after))
        return now.is_sure and not was.is_sure

    def _observation(self, endpoint: Endpoint) -> Observation:
        resident = sorted(endpoint.resident, key=lambda name: endpoint.variants[name].rank)
        used = sum(endpoint.variants[name].memory_steady_bytes for name in resident)
        room = 1024 if endpoint.story.has_room(endpoint.now) else 40
        return Observation(
            active_variant=endpoint.active,
            resident_variants=tuple(resident),
            server=ServerState.SERVING,
            traffic=self._window(),
            standby_probe=self._standby_probe(endpoint, resident),
            memory=MemoryState(
                limit_bytes=None,
                working_set_bytes=used,
                node_available_bytes=room * MEBIBYTE,
                age_seconds=0.0,
            ),
        )

    def _standby_probe(self, endpoint: Endpoint, resident: list[str]) -> ProbeResult | None:
        """The standby's probe, taken once it is loaded and every minute."""
        standby = next((name for name in resident if name != endpoint.active), None)
        if standby is None:
            self._probe = None
        elif self._probe is None or self._probe[0] != standby or endpoint.now - self._probe[2] >= PROBE_SECONDS:
            self._probe = standby, endpoint.probed(standby), endpoint.now, endpoint.probed(endpoint.active)
        if self._probe is None:
            return None
        name, milliseconds, at, beside = self._probe
        return ProbeResult(
            variant=name,
            compute_milliseconds=milliseconds,
            age_seconds=endpoint.now - at,
            beside_milliseconds=beside,
        )

    def _window(self) -> TrafficWindow | None:
        if len(self._readings) < 2:
            return None
        seconds = TICK_SECONDS * len(self._readings)
        count = sum(reading.requests for reading in self._readings)

        def mean(name: str) -> float:
            return sum(getattr(entry, name) * entry.requests for entry in self._readings) / max(1, count)

        window = TrafficWindow(
            seconds=seconds,
            requests=count,
            failures=0,
            executions=count,
            mean_compute_milliseconds=mean("mean_compute_milliseconds"),
            mean_queue_milliseconds=mean("mean_queue_milliseconds"),
            mean_total_milliseconds=mean("mean_total_milliseconds"),
            in_flight=count * mean("mean_total_milliseconds") / 1000 / seconds,
            age_seconds=0.0,
        )
        return replace(window, readings=tuple(self._new)) if self._reads else window
