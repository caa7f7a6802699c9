"""The agent's control loop: sync -> verify -> observe -> decide -> switch, once per cycle.

It is level-triggered: each cycle reads what the server serves and keeps no memory of its commands. After the agent was
killed, the server restarted or the model unloaded by hand the next cycle is the same.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from edgefolio.decision import decide, profiles_from_manifest, state_after_failure, state_after_switch
from edgefolio.decision.types import Action, Decision, Observation, Reason, ServerState, State, VariantProfile
from edgefolio.errors import UserError
from edgefolio.manifest import Manifest
from edgefolio_edge import reasons
from edgefolio_edge.agent.change_log import ChangeLog
from edgefolio_edge.agent.cycle_result import CycleFailure, CycleResult, ServedVersions
from edgefolio_edge.agent.failures import SwitchFailures
from edgefolio_edge.agent.options import AgentOptions, AgentOutputs
from edgefolio_edge.agent.portfolio_file import ObjectivesSource
from edgefolio_edge.agent.state_files import Recorder, StateFile, StatusFile
from edgefolio_edge.agent.supervisor import ServerSupervisor
from edgefolio_edge.models.model_store import ModelStore, variant_of_version
from edgefolio_edge.models.synchronizer import Refusal, Synced, Synchronizer
from edgefolio_edge.triton.host import Host
from edgefolio_edge.triton.switcher import Placement, SwitchResult

#: An endpoint that serves nothing waits this long for the whole revision, then serves what is there. Variants come
#: smallest first, so that a slow link has something to serve soon.
FIRST_SYNC_SECONDS = 3.0


class Agent:
    """Agent of one endpoint: keeps the variant that fits."""

    def __init__(
        self,
        host: Host,
        store: ModelStore,
        synchronizer: Synchronizer,
        portfolio: ObjectivesSource,
        *,
        options: AgentOptions,
        outputs: AgentOutputs,
        woken: threading.Event | None = None,
    ) -> None:
        """Setting ``woken`` begins the next cycle at once, from any thread."""
        self.store = store
        self.synchronizer = synchronizer
        self.portfolio = portfolio
        self.reporter = outputs.reporter
        self.metrics = outputs.metrics
        self.dry_run = options.dry_run
        self._woken = woken or threading.Event()
        self._after_cycle = outputs.after_cycle
        self._state_file = StateFile(options.state_directory)
        self._status_file = StatusFile(options.state_directory)
        self._recorder = Recorder(options.record)
        self.state: State = self._state_file.read()
        self._clock = self._state_file.clock
        self._manifest: Manifest | None = None
        self._profiles: tuple[VariantProfile, ...] = ()
        self._changes = ChangeLog(outputs.reporter)
        self._serving: tuple[int, int] | None = None
        self._failures = SwitchFailures()
        self._available_since: float | None = None
        self._refusal: Refusal | None = None
        # Outcomes not yet in any result.
        self._failure: CycleFailure | None = None
        self._switched = False
        self.server = ServerSupervisor(
            host,
            store,
            options=options,
            outputs=outputs,
            changes=self._changes,
            switching=portfolio.switching,
        )

    def run(self, stop: threading.Event) -> None:
        """Run cycles until ``stop`` is set. An error, as of a full disk, is logged, and serving goes on."""
        self.synchronizer.start()
        try:
            while not stop.is_set():
                started = time.monotonic()
                self._woken.clear()
                try:
                    self.cycle()
                except UserError as error:
                    self._changes.error(error)
                except Exception as error:  # a fault of ours must not end what serves; the next cycle may have none
                    self._changes.fault(error)
                self._pause(stop, until=started + float(self.portfolio.switching.observe_seconds))
        finally:
            self.synchronizer.stop()
            self.server.close()
            self._status_file.remove()
            try:
                self._state_file.write(self.state, now=True)
            except UserError as error:
                self._changes.error(error)

    def _pause(self, stop: threading.Event, *, until: float) -> None:
        stop.wait(0.05)
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            # A signal sets ``stop`` alone, so it is polled.
            if self._woken.wait(min(left, 0.2)):
                return

    def cycle(self) -> None:
        """Run one cycle."""
        if self.portfolio.reread(self.reporter):
            self.server.use(self.portfolio.switching)
        synced = self.synchronizer.synced
        self._take(synced)
        if self._manifest is None or not synced.available:
            self._end_cycle(synced)
            return
        self.server.health.synced()
        served = self._served() if self.server.runs() else None
        if served is None:
            self._end_cycle(synced)
            return
        if not served.ready and self._failures.served_before is not None and not self.dry_run:
            served = self._bring_back(served)
        if served.name is None and not synced.complete and self._waits_for_first_revision():
            return
        observation = self._observe(served)
        if not served.ready or observation.server is ServerState.DEAD:
            self.server.health.fails()
        now, before = self._clock.now(), self.state
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
            note=f"{self.store.model}, revision {self._manifest.revision}",
        )
        self._changes.decision(decision, active=served.name, dry_run=self.dry_run)
        self.metrics.observed(observation, decision)
        if observation.server is ServerState.SERVING and served.active is not None:
            self._verified(served.active)
        switches = decision.action is Action.SWITCH and decision.target is not None
        if switches and not self.dry_run and self._failures.may_switch():
            served = self._act(decision, served, self._manifest)
        self._state_file.write(self.state, now=switches)
        self._end_cycle(synced, served=served, observation=observation, decision=decision)

    def _end_cycle(
        self,
        synced: Synced,
        *,
        served: ServedVersions | None = None,
        observation: Observation | None = None,
        decision: Decision | None = None,
    ) -> None:
        result = CycleResult(
            synced=synced,
            served=served,
            observation=observation,
            decision=decision,
            state=self.state,
            trouble=self.server.trouble,
            failure=self.server.failure or self._failure,
            switched=self._switched,
            clock_offset=self._clock.offset(),
            server_version=self.server.host.endpoint.version,
            largest_batch=None if synced.manifest is None else self.store.largest_batch(synced.manifest),
        )
        self.server.failure = self._failure = None
        self._switched = False
        self._after_cycle(result)
        # Last: a full disk must not silence the endpoint.
        endpoint = self.server.host.endpoint
        now = self._clock.now()
        self._status_file.write(result.status(model=self.store.model, grpc=endpoint.grpc, http=endpoint.http, now=now))

    def _take(self, synced: Synced) -> None:
        """Take the synchronizer's state; a new revision has new variants."""
        self._changes.synced(synced)
        refusal, before = synced.refusal, self._refusal
        self._refusal = refusal
        if refusal is not None and refusal != before:
            self._failure = CycleFailure(
                reason=refusal.reason, message=synced.refusal_message, revision=refusal.revision
            )
        self.metrics.refusing(refusal is not None)
        if synced.manifest is None or synced.manifest is self._manifest:
            return
        before_it, self._manifest = self._manifest, synced.manifest
        self._profiles = profiles_from_manifest(synced.manifest)
        self._failures.begin_revision()
        self._changes.bounded(synced.manifest, self.store)
        is_another = before_it is not None and before_it.revision != synced.manifest.revision
        if self._serving is not None or is_another:
            # Failures of the old revision say nothing about the new one.
            self.state = replace(self.state, quarantined=())

    def _waits_for_first_revision(self) -> bool:
        """Whether the rest of the first revision may still arrive in time."""
        now = time.monotonic()
        self._available_since = self._available_since or now
        return now - self._available_since < FIRST_SYNC_SECONDS

    def _served(self) -> ServedVersions | None:
        """The served versions; ``None`` if the server does not answer."""
        ready = self.server.ready_versions()
        if ready is None:
            return None
        self.synchronizer.served_versions = ready
        return ServedVersions.of(ready, manifest=self._manifest, store=self.store)

    def _observe(self, served: ServedVersions) -> Observation:
        assert self._manifest is not None
        known = (variant_of_version(self._manifest, version) for version in served.ready)
        resident = tuple(variant.name for variant in known if variant is not None)
        observation = self.server.observer.observe(served.active, resident=resident)
        return replace(observation, active_variant=served.name)

    def _act(self, decision: Decision, served: ServedVersions, manifest: Manifest) -> ServedVersions:
        """Carry out a switch. Returns the versions served after it."""
        assert decision.target is not None
        target = Placement(manifest=manifest, variant=manifest.variant(decision.target))
        outcome: SwitchResult | None
        if decision.reason is Reason.SERVER_DEAD:
            outcome = self._repair(target)
        else:
            previous = served.active if served.active is not None and served.active.version != target.version else None
            outcome = self.server.switcher.switch(target, previous=previous)
        if outcome is None:
            return served
        now = self._clock.now()
        self.metrics.switched(succeeded=outcome.succeeded, seconds=outcome.total_milliseconds / 1e3)
        if outcome.succeeded:
            self.state = state_after_switch(self.state, variant=outcome.variant, now=now)
            self.server.observer.switched(outcome.version)
            self._switched = True
            self._failures.succeeded()
            self.reporter.event(
                "switch",
                f"{served.name or 'nothing'} -> {outcome.variant} in {outcome.total_milliseconds:.0f} ms, verified.",
                variant=outcome.variant,
                version=outcome.version,
                previous=served.name,
                reason=decision.reason.value,
                milliseconds=round(outcome.total_milliseconds, 1),
                loadMilliseconds=round(outcome.load_milliseconds, 1),
            )
            self._recorder.outcome(now=now, variant=outcome.variant, cause=None)
            self._verified(target)
            self.synchronizer.served_versions = (target.version, *served.ready)
            return ServedVersions(ready=(target.version,), active=target, name=outcome.variant)
        self._failures.failed_beside(served.active)
        self._failed(outcome, target, served)
        return served

    def _bring_back(self, served: ServedVersions) -> ServedVersions:
        """After a restart: serve again what served before the switch that needed it. Then the next one is tried."""
        before = self._failures.take_served_before()
        assert before is not None
        outcome = self.server.switcher.switch(before)
        if not outcome.succeeded:
            return served
        self.server.observer.switched(outcome.version)
        self._verified(before)
        return ServedVersions.of((before.version,), manifest=self._manifest, store=self.store)

    def _failed(self, outcome: SwitchResult, target: Placement, served: ServedVersions) -> None:
        now = self._clock.now()
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
        if outcome.shortage:
            self._short(outcome, cause, served)
            return
        self.state = state_after_failure(
            self.state, variant=outcome.variant, cause=cause, now=now, switching=self.portfolio.switching
        )
        self._recorder.outcome(now=now, variant=outcome.variant, cause=cause)
        message = f"{outcome.variant} is not served: {cause}"
        self._failure = CycleFailure(
            reason=reasons.LOAD_FAILED, message=message, revision=target.manifest.revision, variant=outcome.variant
        )
        self.reporter.event(
            "failed",
            message,
            variant=outcome.variant,
            version=outcome.version,
            previous=served.name,
            restored=outcome.restored,
        )
        self._reject_if_all_failed(target, cause=cause)
        if outcome.stuck:
            self.reporter.event("stuck", "A load hangs, so Triton takes no other: only a restart helps.")
            self.server.restart_or_request("A load hangs.")

    def _short(self, outcome: SwitchResult, cause: str, served: ServedVersions) -> None:
        """A resource of the machine has run out: nobody is blamed, and the next try waits longer."""
        is_first = self._failures.short(serves=bool(served.ready))
        # No revision and no variant is named: any other one would fail the same way.
        message = f"A switch to {outcome.variant} is not possible now: {cause}"
        self._failure = CycleFailure(reason=reasons.INSUFFICIENT_RESOURCES, message=message)
        if is_first:
            self.reporter.event(
                "shortage", message, variant=outcome.variant, previous=served.name, restored=outcome.restored
            )

    def _reject_if_all_failed(self, target: Placement, *, cause: str) -> None:
        """Refuse a revision when each of its variants has failed; an older one serves on, if there is one."""
        manifest = target.manifest
        if not self._failures.have_all_failed(target):
            return
        before = self._failures.served_before
        older = self.store.complete_before(manifest.revision) if before is None else before.manifest
        if older is not None and older.revision == manifest.revision:
            older = None
        problem = f"none of its variants can be served; the last one, {target.variant.name}: {cause}"
        self.synchronizer.reject(manifest.revision, problem=problem, instead=older)

    def _repair(self, target: Placement) -> SwitchResult | None:
        """A backend died: load the variant again; where that does not help, restart the server.

        ``None`` while the restart is pending: it will show whether the variant was at fault.
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
            return outcome  # it ended, and its owner restarts it
        if not host.may_restart() and not self.server.health.is_enabled:
            return outcome
        why = f"It does not answer inference, and loading anew does not help: {outcome.cause}"
        return self.server.switcher.switch(target) if self.server.restart_or_request(why) else None

    def _verified(self, active: Placement) -> None:
        """``active`` answered an inference; logged once per server start."""
        self.server.verified(active)
        self._failures.verified(active, of=self._manifest)
        self.metrics.serving(active.variant.name, active.version)
        first = self._serving is None or self._serving[0] != self.server.starts
        self._serving = (self.server.starts, active.version)
        if first:
            endpoint = self.server.host.endpoint
            self.reporter.event(
                "serving",
                f"{self.store.model} is served by {active.variant.name}.",
                model=self.store.model,
                variant=active.variant.name,
                version=active.version,
                http=endpoint.http,
                grpc=endpoint.grpc,
                metrics=endpoint.metrics,
                adopted=self.server.host.adopted or None,
            )
