"""The agent: sync -> verify -> observe -> decide -> switch, once per cycle, always from what is.

Nothing here remembers what the server was told before: each cycle reads what it serves. An agent that was killed, a
server that was restarted or a person who unloaded the model all lead to the same next cycle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgefolio.decision import decide, profiles_from_manifest, state_after_failure, state_after_switch
from edgefolio.decision.types import Action, Decision, Observation, Reason, ServerState, State, VariantProfile
from edgefolio.errors import UserError
from edgefolio.manifest import Manifest
from edgefolio_edge.agent_metrics import AgentMetrics
from edgefolio_edge.following import Asked
from edgefolio_edge.hosting import Host
from edgefolio_edge.observing.observer import Observer
from edgefolio_edge.processor import processor_model
from edgefolio_edge.remembering import Recorder, StateFile, StatusFile
from edgefolio_edge.reporting import Reporter
from edgefolio_edge.store import ModelStore, variant_of_version
from edgefolio_edge.switching import Placement, Switcher, SwitchOutcome
from edgefolio_edge.syncing import Synced, Synchronizer
from edgefolio_edge.telling import Teller
from edgefolio_edge.triton.server import STOP_SECONDS

#: A server that runs but answers no control call for this many cycles is restarted, if it is ours.
SILENT_CYCLES_UNTIL_RESTART = 3


#: A server whose load hangs would use up all the time it is given to stop, and users wait for the next one.
QUICK_STOP_SECONDS = 1.0
#: So long an endpoint that serves nothing waits for the whole revision; then what is there must do. Variants come
#: smallest first, so that a slow link has something to serve soon.
FIRST_SYNC_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What the endpoint serves. ``active`` is ``None`` if it serves nothing, or nothing that is known here."""

    ready: tuple[int, ...]
    active: Placement | None
    name: str | None


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """How one cycle ended. ``decision`` and ``observation`` are ``None`` where there was nothing to decide on."""

    synced: Synced
    sight: Sight | None
    observation: Observation | None
    decision: Decision | None
    state: State


class Agent:
    """Keeps the variant that fits on one endpoint."""

    def __init__(
        self,
        host: Host,
        store: ModelStore,
        synchronizer: Synchronizer,
        portfolio: Asked,
        *,
        reporter: Reporter,
        metrics: AgentMetrics,
        state_directory: Path,
        record: Path | None = None,
        dry_run: bool = False,
        memory_limit_bytes: int | None = None,
        after_cycle: Callable[[Cycle], None] = lambda _cycle: None,
    ) -> None:
        self.host = host
        self.store = store
        self.synchronizer = synchronizer
        self.portfolio = portfolio
        self.reporter = reporter
        self.metrics = metrics
        self.dry_run = dry_run
        self._memory_limit_bytes = memory_limit_bytes
        self._after_cycle = after_cycle
        self._state_file = StateFile(state_directory)
        self._status_file = StatusFile(state_directory)
        self._recorder = Recorder(record)
        self.state: State = self._state_file.read()
        self._processor = processor_model()
        self._manifest: Manifest | None = None
        self._profiles: tuple[VariantProfile, ...] = ()
        self._teller = Teller(reporter)
        self._serving: tuple[int, int] | None = None
        self._lives = 0
        self._silent_cycles = 0
        self._started = time.monotonic()
        self._connect()

    def _connect(self) -> None:
        """Make new clients: the server is another one, or the first."""
        self._lives += 1
        endpoint = self.host.endpoint
        self.control = endpoint.control()
        self.switcher = Switcher(self.control, self.store, warm_up=not endpoint.has_our_backend)
        self.observer = Observer(
            endpoint,
            self.control,
            self.switcher,
            memory_limit_bytes=self._memory_limit_bytes,
            switching=self.portfolio.switching,
        )

    def run(self, stop: threading.Event) -> None:
        """Cycle until ``stop`` is set. What a user must mend meanwhile, as a full disk, is said; serving goes on."""
        self.synchronizer.start()
        try:
            while not stop.is_set():
                started = time.monotonic()
                try:
                    self.cycle()
                except UserError as error:
                    self._teller.error(error)
                length = float(self.portfolio.switching.observe_seconds)
                stop.wait(max(0.05, started + length - time.monotonic()))
        finally:
            self.synchronizer.stop()
            self.control.close()
            self._status_file.remove()
            try:
                self._state_file.write(self.state, now=True)
            except UserError as error:
                self._teller.error(error)

    def cycle(self) -> Decision | None:
        """One cycle. Returns the decision, ``None`` if there was nothing to decide on."""
        if self.portfolio.reread(self.reporter):
            self.observer.use(self.portfolio.switching)
        synced = self.synchronizer.synced
        self._take(synced)
        if not self._server_runs() or self._manifest is None or not synced.available:
            self._end_cycle(synced)
            return None
        sight = self._look()
        if sight is None:
            self._end_cycle(synced)
            return None
        if sight.name is None and not synced.complete and time.monotonic() - self._started < FIRST_SYNC_SECONDS:
            return None
        observation = self._observe(sight)
        now, before = time.time(), self.state
        profiles = tuple(profile for profile in self._profiles if profile.name in synced.available)
        decision, self.state = decide(
            observation=observation,
            objectives=self.portfolio.objectives,
            profiles=profiles,
            switching=self.portfolio.switching,
            state=before,
            now=now,
        )
        self._recorder.cycle(
            profiles=profiles,
            switching=self.portfolio.switching,
            before=before,
            now=now,
            observation=observation,
            objectives=self.portfolio.objectives,
            decision=decision,
            note=f"{self.store.served_as}, revision {self._manifest.revision}",
        )
        self._teller.decision(decision, active=sight.name, dry_run=self.dry_run)
        self.metrics.observed(observation, decision)
        if observation.server is ServerState.SERVING and sight.active is not None:
            self._is_serving(sight.active)
        switches = decision.action is Action.SWITCH and decision.target is not None
        if switches and not self.dry_run:
            sight = self._act(decision, sight, self._manifest)
        self._state_file.write(self.state, now=switches)
        self._end_cycle(synced, sight=sight, observation=observation, decision=decision)
        return decision

    def _end_cycle(
        self,
        synced: Synced,
        *,
        sight: Sight | None = None,
        observation: Observation | None = None,
        decision: Decision | None = None,
    ) -> None:
        self._write_status(decision, sight, synced)
        self._after_cycle(
            Cycle(synced=synced, sight=sight, observation=observation, decision=decision, state=self.state)
        )

    def _take(self, synced: Synced) -> None:
        """Follow the synchronizer: another revision has other variants."""
        self._teller.synced(synced)
        self.metrics.refusing(synced.refusal is not None)
        if synced.manifest is None or synced.manifest is self._manifest:
            return
        self._manifest = synced.manifest
        self._profiles = profiles_from_manifest(synced.manifest, cpu_model=self._processor, threads=self.store.threads)
        if self._lives and self._serving is not None:
            # Other bytes: what failed before says nothing of them.
            self.state = replace(self.state, quarantined=())

    def _server_runs(self) -> bool:
        if self.host.is_alive():
            return True
        self.metrics.serving(None, None)
        if not self.host.may_restart() or self.dry_run:
            return False
        self.reporter.event("died", "Triton died; it is started again.", log=self.host.log_tail() or None)
        return self._restart()

    def _restart(self, *, seconds: float = STOP_SECONDS) -> bool:
        """Start our server anew; the old one gets ``seconds`` to stop. ``False``, and the error said, if that fails."""
        self.metrics.repaired("server")
        self.metrics.serving(None, None)
        self.control.close()
        try:
            self.host.restart(seconds=seconds)
        except UserError as error:
            self._teller.error(error)
            return False
        self._connect()
        return True

    def _look(self) -> Sight | None:
        """What the server serves; ``None`` if it runs but does not answer."""
        ready = self.observer.ready_versions()
        if ready is None:
            self._silent_cycles += 1
            if self._silent_cycles == 1:
                self.reporter.event("silent", "The server does not answer the control calls.")
            if self._silent_cycles >= SILENT_CYCLES_UNTIL_RESTART and self.host.may_restart() and not self.dry_run:
                self._silent_cycles = 0
                self._restart(seconds=QUICK_STOP_SECONDS)
            return None
        self._silent_cycles = 0
        if not ready or self._manifest is None:
            return Sight(ready=ready, active=None, name=None)
        version = ready[-1]
        variant = variant_of_version(self._manifest, version)
        if variant is not None:
            return Sight(ready=ready, active=Placement(manifest=self._manifest, variant=variant), name=variant.name)
        older = self.store.manifest_of_version(version)
        found = variant_of_version(older, version) if older is not None else None
        if older is None or found is None:
            return Sight(ready=ready, active=None, name=f"version {version}")
        # Another revision's variant may have the name of one of this revision, and is another model all the same.
        name = f"{found.name} of revision {older.revision}"
        return Sight(ready=ready, active=Placement(manifest=older, variant=found), name=name)

    def _observe(self, sight: Sight) -> Observation:
        assert self._manifest is not None
        known = (variant_of_version(self._manifest, version) for version in sight.ready)
        resident = tuple(variant.name for variant in known if variant is not None)
        observation = self.observer.look(sight.active, resident=resident)
        return replace(observation, active_variant=sight.name)

    def _act(self, decision: Decision, sight: Sight, manifest: Manifest) -> Sight:
        """Carry a switch out and return what is served after it."""
        assert decision.target is not None
        target = Placement(manifest=manifest, variant=manifest.variant(decision.target))
        if decision.reason is Reason.SERVER_DEAD:
            outcome = self._repair(target)
        else:
            previous = sight.active if sight.active is not None and sight.active.version != target.version else None
            outcome = self.switcher.switch(target, previous=previous)
        now = time.time()
        self.metrics.switched(succeeded=outcome.succeeded, seconds=outcome.total_milliseconds / 1e3)
        if outcome.succeeded:
            self.state = state_after_switch(self.state, variant=outcome.variant, now=now)
            self.observer.switched(outcome.version)
            self.reporter.event(
                "switch",
                f"{sight.name or 'nothing'} -> {outcome.variant} in {outcome.total_milliseconds:.0f} ms, verified.",
                variant=outcome.variant,
                version=outcome.version,
                previous=sight.name,
                reason=decision.reason.value,
                milliseconds=round(outcome.total_milliseconds, 1),
                loadMilliseconds=round(outcome.load_milliseconds, 1),
            )
            self._recorder.outcome(now=now, variant=outcome.variant, cause=None)
            self._is_serving(target)
            self.store.forget_older_than(manifest.revision, served_versions=(target.version, *sight.ready))
            return Sight(ready=(target.version,), active=target, name=outcome.variant)
        self._failed(outcome, sight)
        return sight

    def _failed(self, outcome: SwitchOutcome, sight: Sight) -> None:
        now = time.time()
        cause = outcome.cause or "unknown"
        if not outcome.unreachable:
            self.state = state_after_failure(
                self.state, variant=outcome.variant, cause=cause, now=now, switching=self.portfolio.switching
            )
            self._recorder.outcome(now=now, variant=outcome.variant, cause=cause)
        self.reporter.event(
            "failed",
            f"{outcome.variant} is not served: {cause}",
            variant=outcome.variant,
            version=outcome.version,
            previous=sight.name,
            restored=outcome.restored,
        )
        if outcome.stuck:
            self.reporter.event("stuck", "A load hangs, so Triton takes no other: only a restart helps.")
            if self.host.may_restart():
                self._restart(seconds=QUICK_STOP_SECONDS)

    def _repair(self, target: Placement) -> SwitchOutcome:
        """A backend died: load anew; where that does not help and the server is ours, restart it."""
        self.reporter.event("dead", "The server does not answer inference; it is repaired.")
        self.metrics.serving(None, None)
        self.metrics.repaired("backend")
        outcome = self.switcher.repair(target)
        if not outcome.succeeded and self.host.may_restart():
            if not self._restart():
                return replace(outcome, unreachable=True)
            outcome = self.switcher.switch(target)
        self.observer.forget()
        return outcome

    def _is_serving(self, active: Placement) -> None:
        """``active`` was verified by inference: say so once in each life of the server."""
        self.host.is_healthy_again()
        self.metrics.serving(active.variant.name, active.version)
        first = self._serving is None or self._serving[0] != self._lives
        self._serving = (self._lives, active.version)
        if first:
            endpoint = self.host.endpoint
            self.reporter.event(
                "serving",
                f"{self.store.served_as} is served by {active.variant.name}.",
                model=self.store.served_as,
                variant=active.variant.name,
                version=active.version,
                http=endpoint.http,
                grpc=endpoint.grpc,
                metrics=endpoint.metrics,
                adopted=self.host.adopted or None,
            )

    def _write_status(self, decision: Decision | None, sight: Sight | None, synced: Synced) -> None:
        status: dict[str, Any] = {
            "model": self.store.served_as,
            "revision": None if synced.manifest is None else synced.manifest.revision,
            "activeVariant": None if sight is None else sight.name,
            "residentVersions": [] if sight is None else list(sight.ready),
            "endpoint": {"grpc": self.host.endpoint.grpc, "http": self.host.endpoint.http},
            "conditions": {
                "RevisionRefused": None if synced.refusal is None else synced.refusal.problem,
                "RepositoryUnreachable": synced.unreachable,
                "ObjectivesMet": None if decision is None else decision.objectives_met,
            },
            "quarantined": [entry.variant for entry in self.state.quarantined if entry.until > time.time()],
        }
        if decision is not None:
            status["decision"] = {"action": decision.action.value, "reason": decision.reason.value}
        self._status_file.write(status)
