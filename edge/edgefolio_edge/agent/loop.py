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
from edgefolio_edge.agent.change_log import Teller
from edgefolio_edge.agent.event_log import Reporter
from edgefolio_edge.agent.metrics import AgentMetrics
from edgefolio_edge.agent.state_files import Recorder, StateFile, StatusFile
from edgefolio_edge.health_files import Health
from edgefolio_edge.models.model_store import ModelStore, variant_of_version
from edgefolio_edge.models.synchronizer import Synced, Synchronizer
from edgefolio_edge.portfolio_file import Asked
from edgefolio_edge.triton.host import Host
from edgefolio_edge.triton.supervisor import KeptServer
from edgefolio_edge.triton.switcher import Placement, SwitchOutcome

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
    """How one cycle ended. ``decision`` and ``observation`` are ``None`` where there was nothing to decide on.

    ``trouble`` says why the server cannot be worked with.
    """

    synced: Synced
    sight: Sight | None
    observation: Observation | None
    decision: Decision | None
    state: State
    trouble: str | None = None


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
        health: Health | None = None,
        after_cycle: Callable[[Cycle], None] = lambda _cycle: None,
    ) -> None:
        self.store = store
        self.synchronizer = synchronizer
        self.portfolio = portfolio
        self.reporter = reporter
        self.metrics = metrics
        self.dry_run = dry_run
        self._woken = threading.Event()
        self._after_cycle = after_cycle
        self._state_file = StateFile(state_directory)
        self._status_file = StatusFile(state_directory)
        self._recorder = Recorder(record)
        self.state: State = self._state_file.read()
        self._manifest: Manifest | None = None
        self._profiles: tuple[VariantProfile, ...] = ()
        self._teller = Teller(reporter)
        self._serving: tuple[int, int] | None = None
        self._available_since: float | None = None
        self.server = KeptServer(
            host,
            store,
            reporter=reporter,
            teller=self._teller,
            metrics=metrics,
            health=health or Health(),
            switching=portfolio.switching,
            memory_limit_bytes=memory_limit_bytes,
            is_only_watched=dry_run,
        )

    def wake(self) -> None:
        """Begin the next cycle at once: something is asked that was not before. From any thread."""
        self._woken.set()

    def run(self, stop: threading.Event) -> None:
        """Cycle until ``stop`` is set. What a user must mend meanwhile, as a full disk, is said; serving goes on."""
        self.synchronizer.start()
        try:
            while not stop.is_set():
                started = time.monotonic()
                self._woken.clear()
                try:
                    self.cycle()
                except UserError as error:
                    self._teller.error(error)
                self._pause(stop, until=started + float(self.portfolio.switching.observe_seconds))
        finally:
            self.synchronizer.stop()
            self.server.close()
            self._status_file.remove()
            try:
                self._state_file.write(self.state, now=True)
            except UserError as error:
                self._teller.error(error)

    def _pause(self, stop: threading.Event, *, until: float) -> None:
        stop.wait(0.05)
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            # A signal sets ``stop``, and nothing else: it is looked at often.
            if self._woken.wait(min(left, 0.2)):
                return

    def cycle(self) -> Decision | None:
        """One cycle. Returns the decision, ``None`` if there was nothing to decide on."""
        if self.portfolio.reread(self.reporter):
            self.server.use(self.portfolio.switching)
        synced = self.synchronizer.synced
        self._take(synced)
        if self._manifest is None or not synced.available:
            self._end_cycle(synced)
            return None
        self.server.health.synced()
        sight = self._look() if self.server.runs() else None
        if sight is None:
            self._end_cycle(synced)
            return None
        if sight.name is None and not synced.complete and self._waits_for_more():
            return None
        observation = self._observe(sight)
        if not sight.ready or observation.server is ServerState.DEAD:
            self.server.health.fails()
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
            Cycle(
                synced=synced,
                sight=sight,
                observation=observation,
                decision=decision,
                state=self.state,
                trouble=self.server.trouble,
            )
        )

    def _take(self, synced: Synced) -> None:
        """Follow the synchronizer: another revision has other variants."""
        self._teller.synced(synced)
        self.metrics.refusing(synced.refusal is not None)
        if synced.manifest is None or synced.manifest is self._manifest:
            return
        self._manifest = synced.manifest
        self._profiles = profiles_from_manifest(synced.manifest)
        if self._serving is not None:
            # Other bytes: what failed before says nothing of them.
            self.state = replace(self.state, quarantined=())

    def _waits_for_more(self) -> bool:
        """Whether the rest of the first revision may still come in time."""
        now = time.monotonic()
        self._available_since = self._available_since or now
        return now - self._available_since < FIRST_SYNC_SECONDS

    def _look(self) -> Sight | None:
        """What the server serves; ``None`` if it does not answer."""
        ready = self.server.ready_versions()
        if ready is None:
            return None
        self.synchronizer.served_versions = ready
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
        observation = self.server.observer.look(sight.active, resident=resident)
        return replace(observation, active_variant=sight.name)

    def _act(self, decision: Decision, sight: Sight, manifest: Manifest) -> Sight:
        """Carry a switch out and return what is served after it."""
        assert decision.target is not None
        target = Placement(manifest=manifest, variant=manifest.variant(decision.target))
        outcome: SwitchOutcome | None
        if decision.reason is Reason.SERVER_DEAD:
            outcome = self._repair(target)
        else:
            previous = sight.active if sight.active is not None and sight.active.version != target.version else None
            outcome = self.server.switcher.switch(target, previous=previous)
        if outcome is None:
            return sight
        now = time.time()
        self.metrics.switched(succeeded=outcome.succeeded, seconds=outcome.total_milliseconds / 1e3)
        if outcome.succeeded:
            self.state = state_after_switch(self.state, variant=outcome.variant, now=now)
            self.server.observer.switched(outcome.version)
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
            self.synchronizer.served_versions = (target.version, *sight.ready)
            return Sight(ready=(target.version,), active=target, name=outcome.variant)
        self._failed(outcome, sight)
        return sight

    def _failed(self, outcome: SwitchOutcome, sight: Sight) -> None:
        now = time.time()
        cause = outcome.cause or "unknown"
        if outcome.unreachable:
            if not self.server.ended_during(outcome.variant):
                self.reporter.event(
                    "interrupted",
                    f"The server ended while {outcome.variant} was loaded: {cause}",
                    variant=outcome.variant,
                    version=outcome.version,
                )
                return
            cause = f"the server ends each time it is loaded: {cause}"
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
            self.server.restart_or_ask("A load hangs.")

    def _repair(self, target: Placement) -> SwitchOutcome | None:
        """A backend died: load anew; where that does not help, the server is restarted.

        ``None`` while the restart is still to come: it will show whether the variant was at fault.
        """
        self.reporter.event("dead", "The server does not answer inference; it is repaired.")
        self.metrics.serving(None, None)
        self.metrics.repaired("backend")
        outcome = self.server.switcher.repair(target)
        self.server.observer.forget()
        host = self.server.host
        if outcome.succeeded or outcome.damaged:
            return outcome
        if not host.is_ours and outcome.unreachable:
            return outcome  # it ended, and whoever runs it starts it again
        if not host.may_restart() and not self.server.health.is_told:
            return outcome
        why = f"It does not answer inference, and loading anew does not help: {outcome.cause}"
        return self.server.switcher.switch(target) if self.server.restart_or_ask(why) else None

    def _is_serving(self, active: Placement) -> None:
        """``active`` was verified by inference: say so once in each life of the server."""
        self.server.has_verified()
        self.metrics.serving(active.variant.name, active.version)
        first = self._serving is None or self._serving[0] != self.server.lives
        self._serving = (self.server.lives, active.version)
        if first:
            endpoint = self.server.host.endpoint
            self.reporter.event(
                "serving",
                f"{self.store.served_as} is served by {active.variant.name}.",
                model=self.store.served_as,
                variant=active.variant.name,
                version=active.version,
                http=endpoint.http,
                grpc=endpoint.grpc,
                metrics=endpoint.metrics,
                adopted=self.server.host.adopted or None,
            )

    def _write_status(self, decision: Decision | None, sight: Sight | None, synced: Synced) -> None:
        status: dict[str, Any] = {
            "model": self.store.served_as,
            "revision": None if synced.manifest is None else synced.manifest.revision,
            "activeVariant": None if sight is None else sight.name,
            "residentVersions": [] if sight is None else list(sight.ready),
            "endpoint": {"grpc": self.server.host.endpoint.grpc, "http": self.server.host.endpoint.http},
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
