"""The agent's control loop: sync -> verify -> observe -> decide -> switch, once per cycle.

It is level-triggered: each cycle reads what the server serves and keeps no memory of its commands. After the agent was
killed, the server restarted or the model unloaded by hand the next cycle is the same.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from edgefolio.decision import decide, profiles_from_manifest
from edgefolio.decision.choice import latency_budget
from edgefolio.decision.estimates.computing import variability_of
from edgefolio.decision.evidence import READING_SECONDS, threshold, verdict_of, with_readings
from edgefolio.decision.profiles import rescaled
from edgefolio.decision.types import Action, Decision, Observation, ServerState, VariantProfile
from edgefolio.errors import UserError
from edgefolio.manifest import Manifest
from edgefolio_edge.agent.cycle_result import CycleFailure, CycleResult, ServedVersions
from edgefolio_edge.agent.options import AgentOptions, AgentOutputs
from edgefolio_edge.agent.portfolio_file import ObjectivesSource
from edgefolio_edge.agent.records.change_log import ChangeLog
from edgefolio_edge.agent.records.state_files import Recorder, StateFile, StatusFile
from edgefolio_edge.agent.supervisor import ServerSupervisor
from edgefolio_edge.agent.switch_executor import SwitchExecutor
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.node_profiles import HeldProfile
from edgefolio_edge.models.sync_state import Refusal, Synced
from edgefolio_edge.models.synchronizer import Synchronizer
from edgefolio_edge.models.variants import variant_of_version
from edgefolio_edge.triton.host import Host

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
        state = self._state_file.read()
        # Once the state is read: its clock goes on where the stored one stood.
        self._clock = self._state_file.clock
        self._manifest: Manifest | None = None
        self._profile: HeldProfile | None = None
        self._profiles: tuple[VariantProfile, ...] = ()
        self._changes = ChangeLog(outputs.reporter)
        self._active_name: str | None = None
        self._available_since: float | None = None
        self._refusal: Refusal | None = None
        self.server = ServerSupervisor(
            host,
            store,
            options=options,
            outputs=outputs,
            changes=self._changes,
            switching=portfolio.switching,
        )
        self._switches = SwitchExecutor(
            self.server,
            store,
            synchronizer,
            portfolio,
            outputs=outputs,
            recorder=self._recorder,
            state=state,
            clock=self._clock,
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
                self._state_file.write(self._switches.state, now=True)
            except UserError as error:
                self._changes.error(error)

    def _pause(self, stop: threading.Event, *, until: float) -> None:
        stop.wait(0.05)
        read_at = time.monotonic()
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            # A signal sets ``stop`` alone, so it is polled.
            due = read_at + READING_SECONDS - time.monotonic()
            if self._woken.wait(max(0.0, min(left, due))):
                return
            if time.monotonic() >= read_at + READING_SECONDS:
                read_at = time.monotonic()
                if self.portfolio.is_changed or self._sees_violation():
                    return

    def _sees_violation(self) -> bool:
        """Whether a violation has become sure since the last cycle: then the next one begins at once."""
        active = next((profile for profile in self._profiles if profile.name == self._active_name), None)
        readings = self.server.observer.read_between() if active is not None else ()
        if active is None or not readings:
            return False
        budget, needed = latency_budget(self.portfolio.objectives), self.portfolio.switching.min_requests
        before = self._switches.state.latency_test
        variability = variability_of(self._switches.state, active)
        after = with_readings(before, readings, profile=active, budget=budget, variability=variability)
        sure = threshold(self.server.observer.contention.last)
        was, now = (verdict_of(test, budget=budget, min_requests=needed, sure=sure) for test in (before, after))
        return now.is_sure and not was.is_sure

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
        if not served.ready and self._switches.failures.served_before is not None and not self.dry_run:
            served = self._switches.bring_back(served, self._manifest)
        if served.name is None and not synced.complete and self._waits_for_first_revision():
            return
        observation = self._observe(served)
        if not served.ready or observation.server is ServerState.DEAD:
            self.server.health.fails()
        self._active_name = served.name
        now, before = self._clock.now(), self._switches.state
        profiles = tuple(profile for profile in self._profiles if profile.name in synced.available)
        decision, self._switches.state = decide(
            observation=observation,
            objectives=self.portfolio.objectives,
            profiles=profiles,
            switching=self.portfolio.switching,
            state=before,
            now=now,
            with_standby=True,
        )
        decision = replace(decision, profile="" if self._profile is None else self._profile.evidence)
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
            self._switches.verified(served.active, self._manifest)
        switches = decision.action is Action.SWITCH and decision.target is not None
        if switches and not self.dry_run and self._switches.failures.may_switch():
            served = self._switches.carry_out(decision, served, self._manifest)
        elif not switches and not self.dry_run and observation.server is ServerState.SERVING:
            served = self._switches.keep_standby(decision, served, self._manifest)
        self._state_file.write(self._switches.state, now=switches)
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
            state=self._switches.state,
            trouble=self.server.trouble,
            failure=self.server.failure or self._switches.failure,
            switched=self._switches.switched,
            clock_offset=self._clock.offset(),
            server_version=self.server.host.endpoint.version,
            largest_batch=None if synced.manifest is None else self.store.largest_batch(synced.manifest),
        )
        self.server.failure = self._switches.failure = None
        self._switches.switched = False
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
            self._switches.failure = CycleFailure(
                reason=refusal.reason, message=synced.refusal_message, revision=refusal.revision
            )
        self.metrics.refusing(refusal is not None)
        if synced.manifest is None:
            return
        if synced.manifest is self._manifest:
            self._take_profile(synced)
            return
        before_it, self._manifest = self._manifest, synced.manifest
        self._profile, self._profiles = synced.profile, _profiles_of(synced)
        self._changes.profile(synced.profile)
        self._switches.failures.begin_revision()
        self._changes.bounded(synced.manifest, self.store)
        is_another = before_it is not None and before_it.revision != synced.manifest.revision
        if self._switches.has_served or is_another:
            # Failures of the old revision say nothing about the new one.
            self._switches.state = replace(self._switches.state, quarantined=())

    def _take_profile(self, synced: Synced) -> None:
        """Take another profile of the same revision; the compute factor is brought to it."""
        if synced.profile == self._profile:
            return
        before, profiles = self._profiles, _profiles_of(synced)
        self._profile, self._profiles = synced.profile, profiles
        self._changes.profile(synced.profile)
        if profiles != before:
            self._switches.state = rescaled(
                self._switches.state, before=before, after=profiles, active=self._active_name
            )

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


def _profiles_of(synced: Synced) -> tuple[VariantProfile, ...]:
    """The profiles that decisions rest on: measured on such a node where there are any, else the manifest's."""
    assert synced.manifest is not None
    return profiles_from_manifest(synced.manifest, measured=None if synced.profile is None else synced.profile.profile)
