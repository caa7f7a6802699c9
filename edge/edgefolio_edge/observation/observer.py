"""Observer of one endpoint: liveness, traffic, idle probe and memory, once per cycle."""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import replace

from edgefolio.decision.types import MemoryState, Observation, ProbeResult, Reading, ServerState, TrafficWindow
from edgefolio.shared_memory import shared_memory_bytes
from edgefolio.specification.serving import Switching
from edgefolio_edge.models.probe import batch_of
from edgefolio_edge.observation.contention import ContentionObserver
from edgefolio_edge.observation.memory import observe_memory
from edgefolio_edge.observation.traffic import TrafficObserver, difference
from edgefolio_edge.observation.triton_metrics import TritonMetrics, p95_in, pending_in
from edgefolio_edge.triton.client import CALL_SECONDS, ControlError, TritonControl, VersionStatistics
from edgefolio_edge.triton.endpoint import TritonEndpoint
from edgefolio_edge.triton.placement import Placement
from edgefolio_edge.triton.switcher import Switcher

#: Requests of one probe: the first warms caches gone cold, the rest are measured.
PROBE_REQUESTS = 4
#: Timeouts of the canary in a row that mean a hung server; a saturated one may time out once.
TIMEOUTS_UNTIL_DEAD = 2
#: A reading of the counters this young serves a cycle too.
_YOUNG_SECONDS = 0.1


class Observer:
    """Observes one endpoint. Not to be shared between threads."""

    def __init__(
        self,
        endpoint: TritonEndpoint,
        control: TritonControl,
        switcher: Switcher,
        *,
        memory_limit_bytes: int | None = None,
        switching: Switching,
    ) -> None:
        self.endpoint = endpoint
        self.control = control
        self.switcher = switcher
        self.memory_limit_bytes = memory_limit_bytes
        self.switching = switching
        self.traffic = TrafficObserver(window_seconds=switching.window_seconds)
        self.contention = ContentionObserver(None if endpoint.process is None else endpoint.process.pid)
        self._model = switcher.store.model
        self._answered_at: float | None = None
        self._timeouts = 0
        self._probe: tuple[str, float, float] | None = None
        self._probed_at: float | None = None
        self._standby_probe: ProbeResult | None = None
        self._standby_probed_at = 0.0
        self._version: int | None = None
        self._metrics = None if endpoint.metrics is None else TritonMetrics(endpoint.metrics)
        self._scraped: tuple[float, str] = (float("-inf"), "")

    def close(self) -> None:
        """Close the connection to the server's metrics."""
        if self._metrics is not None:
            self._metrics.close()

    def use(self, switching: Switching) -> None:
        """Apply other switching rules from now on."""
        self.switching = switching
        self.traffic.window_seconds = switching.window_seconds

    def forget(self) -> None:
        """Reset: after a restart or a repair earlier readings do not count."""
        self.traffic.reset()
        self._answered_at = None
        self._timeouts = 0
        self._version = None

    def switched(self, version: int) -> None:
        """Note a verified switch to ``version``: the endpoint answers, and its counters begin."""
        self.traffic.reset()
        self._version = version
        self._answered_at = time.monotonic()
        self._timeouts = 0
        self._probe = None
        self._read_counters(version)

    def ready_versions(self) -> tuple[int, ...]:
        """Versions that the server reports ready. Raises :class:`ControlError` if it does not answer, or refuses us.

        A server without a free file descriptor cannot read its model repository for this; its counters say as much.
        """
        try:
            return self.control.ready_versions(self._model)
        except ControlError as error:
            if error.unreachable or error.timed_out or error.refused:
                raise
            return tuple(sorted(entry.version for entry in self.control.statistics(self._model)))

    def read_between(self) -> tuple[Reading, ...]:
        """Read the counters between two cycles if there is traffic; all readings since the last cycle.

        One call to the server and one to its metrics, which tell how many requests wait: see ``benchmarks.violations``
        for their cost.
        """
        if self._version is None or not self.traffic.is_in_use:
            return ()
        self._read_counters(self._version, pending=True)
        return self.traffic.readings()

    def observe(self, active: Placement | None, *, resident: tuple[str, ...]) -> Observation:
        """Observe the endpoint, whose active version is ``active`` (``None``: it serves nothing of ours)."""
        if active is None:
            self.forget()
            return Observation(
                active_variant=None, resident_variants=resident, server=ServerState.SERVING, memory=self._memory()
            )
        if active.version != self._version:
            # Switched from outside: another version's counters begin, and its answers are unverified.
            self._version = active.version
            self.traffic.reset()
        read_at = self.traffic.read_at
        if read_at is None or time.monotonic() - read_at > _YOUNG_SECONDS:
            self._read_counters(active.version, pending=self.traffic.is_in_use)
        state = self._liveness(active)
        if state is ServerState.SERVING:
            self._probe_when_idle(active)
        window = self._window(active)
        self.traffic.take()
        return Observation(
            active_variant=active.variant.name,
            resident_variants=resident,
            server=state,
            traffic=window,
            probe=self._probe_result(active),
            standby_probe=self._standby_probe_result(),
            memory=self._memory(active),
            contention=self.contention.observe(),
        )

    def _read_counters(self, version: int, *, pending: bool = False) -> VersionStatistics | None:
        try:
            found = [entry for entry in self.control.statistics(self._model) if entry.version == version]
        except ControlError:
            return None
        if not found:
            return None
        waiting = pending_in(self._metrics_text(), model=self._model, version=version) if pending else None
        self.traffic.add(found[0], at=time.monotonic(), pending=waiting)
        return found[0]

    def _metrics_text(self) -> str:
        if self._metrics is None:
            return ""
        if time.monotonic() - self._scraped[0] > _YOUNG_SECONDS:
            text = self._metrics.text()
            self._scraped = time.monotonic(), text
        return self._scraped[1]

    def _liveness(self, active: Placement) -> ServerState:
        """Liveness by inference: a user's since the last cycle, else the agent's own where in doubt."""
        now = time.monotonic()
        latest = self.traffic.latest()
        missing_stub = self.endpoint.lacks_backend_of(active.version)
        if latest is not None and latest.successes > 0 and not missing_stub:
            self._answered_at, self._timeouts = now, 0
            return ServerState.SERVING
        doubtful = missing_stub or (latest is not None and latest.failures > 0)
        recent = self._answered_at is not None and now - self._answered_at < self.switching.probe_interval_seconds
        if recent and not doubtful:
            return ServerState.SERVING
        return self._ask_for_inference(active)

    def _ask_for_inference(self, active: Placement) -> ServerState:
        before = self._read_counters(active.version)
        try:
            inputs = batch_of(active.manifest, active.variant.probe, samples=1)
            self.control.infer(self._model, inputs, version=active.version, seconds=CALL_SECONDS)
        except ControlError as error:
            if error.timed_out:
                self._timeouts += 1
                return ServerState.DEAD if self._timeouts >= TIMEOUTS_UNTIL_DEAD else ServerState.UNKNOWN
            return ServerState.DEAD
        self._answered_at, self._timeouts = time.monotonic(), 0
        after = self._counters_of(active.version)
        if before is not None and after is not None:
            self.traffic.exclude(before, after, own_requests=1)
        return ServerState.SERVING

    def _probe_when_idle(self, active: Placement) -> None:
        window = self.traffic.window(now=time.monotonic())
        idle = window is not None and window.requests == 0 and window.failures == 0
        due = self._probed_at is None or time.monotonic() - self._probed_at >= self.switching.probe_interval_seconds
        # A smaller batch than the profile's says nothing about it.
        bounded = self.switcher.store.largest_batch(active.manifest) < active.manifest.request_batch_size
        if not idle or not due or bounded:
            return
        self._probed_at = time.monotonic()
        try:
            found = self._timed(active)
        except ControlError:
            self._answered_at = None  # the next cycle asks again and judges
            return
        if found is None:
            return
        (first, last), compute = found
        alone = self.traffic.exclude(first, last, own_requests=PROBE_REQUESTS)
        self._answered_at = time.monotonic()
        if alone and compute:
            self._probe = (active.variant.name, statistics.median(compute), time.monotonic())

    def _timed(self, placement: Placement) -> tuple[tuple[VersionStatistics, VersionStatistics], list[float]] | None:
        """The counters before and after some requests of the profile's batch, and the times in the model.

        ``None`` if the counters could not be read; no times where users asked as well. Raises :class:`ControlError`.
        """
        inputs = batch_of(placement.manifest, placement.variant.probe, samples=placement.manifest.request_batch_size)
        readings = [self._counters_of(placement.version)]
        for _ in range(PROBE_REQUESTS):
            self.control.infer(self._model, inputs, version=placement.version)
            readings.append(self._counters_of(placement.version))
        complete = [reading for reading in readings if reading is not None]
        if len(complete) != len(readings):
            return None
        pairs = itertools.pairwise(complete[1:])
        deltas = [difference(later, earlier) for earlier, later in pairs]
        # Where a user's request came in between, the two cannot be told apart.
        compute = [delta.compute_nanoseconds / 1e6 for delta in deltas if delta.successes == 1]
        return (complete[0], complete[-1]), compute

    def probe_standby(self, standby: Placement, *, active: Placement) -> None:
        """Measure the ``standby`` and just after it the ``active`` variant, for the next observations.

        How much the two differ shows only if both are asked in the same way. Raises ControlError.
        """
        if self.switcher.store.largest_batch(standby.manifest) < standby.manifest.request_batch_size:
            return
        found = self._timed(standby)
        beside = self._timed(active)
        if beside is not None:
            self.traffic.exclude(*beside[0], own_requests=PROBE_REQUESTS)
        if found is None or beside is None or not found[1] or not beside[1]:
            return
        self._standby_probed_at = time.monotonic()
        self._standby_probe = ProbeResult(
            variant=standby.variant.name,
            compute_milliseconds=statistics.median(found[1]),
            age_seconds=0.0,
            beside_milliseconds=statistics.median(beside[1]),
        )

    def _standby_probe_result(self) -> ProbeResult | None:
        probe, age = self._standby_probe, time.monotonic() - self._standby_probed_at
        return None if probe is None else replace(probe, age_seconds=age)

    def _counters_of(self, version: int) -> VersionStatistics | None:
        try:
            return next((entry for entry in self.control.statistics(self._model) if entry.version == version), None)
        except ControlError:
            return None

    def _probe_result(self, active: Placement) -> ProbeResult | None:
        return None if self._probe is None or self._probe[0] != active.variant.name else _result(self._probe)

    def _window(self, active: Placement) -> TrafficWindow | None:
        window = self.traffic.window(now=time.monotonic())
        if window is not None and window.requests:
            p95 = p95_in(self._metrics_text(), model=self._model, version=active.version)
            window = replace(window, p95_milliseconds=p95)
        if window is not None and window.failures and self.endpoint.is_short_of_shared_memory(active.manifest):
            # Large batches fail with any variant: no evidence against this one.
            return replace(window, failures=0)
        return window

    def _memory(self, active: Placement | None = None) -> MemoryState:
        memory = observe_memory(self.endpoint.process, limit_bytes=self.memory_limit_bytes)
        store = self.switcher.store
        if active is None or store.shared_memory_bytes is None:
            return memory
        batch = min(active.manifest.request_batch_size, store.largest_batch(active.manifest))
        needed = shared_memory_bytes(signature=active.manifest.signature, batch=batch, resident=1)
        return replace(memory, shared_memory_bytes=needed)


def _result(probe: tuple[str, float, float] | None) -> ProbeResult | None:
    if probe is None:
        return None
    variant, compute, at = probe
    return ProbeResult(variant=variant, compute_milliseconds=compute, age_seconds=time.monotonic() - at)
