"""Switch executor: carries out what the agent decided, and handles what fails of it."""

from __future__ import annotations

from edgefolio.decision import state_after_failure, state_after_switch
from edgefolio.decision.types import Decision, Reason, State
from edgefolio.manifest import Manifest
from edgefolio_edge import reasons
from edgefolio_edge.agent.cycle_result import CycleFailure, ServedVersions
from edgefolio_edge.agent.failures import SwitchFailures
from edgefolio_edge.agent.options import AgentOutputs
from edgefolio_edge.agent.portfolio_file import ObjectivesSource
from edgefolio_edge.agent.records.state_files import Recorder
from edgefolio_edge.agent.standby_keeper import StandbyKeeper
from edgefolio_edge.agent.supervisor import ServerSupervisor
from edgefolio_edge.models.model_store import ModelStore
from edgefolio_edge.models.synchronizer import Synchronizer
from edgefolio_edge.models.variants import variant_of_version
from edgefolio_edge.process.steady_clock import SteadyClock
from edgefolio_edge.triton.placement import Placement, SwitchResult


class SwitchExecutor:
    """Carries out switches and repairs of one endpoint. It holds the state that they change."""

    def __init__(
        self,
        server: ServerSupervisor,
        store: ModelStore,
        synchronizer: Synchronizer,
        portfolio: ObjectivesSource,
        *,
        outputs: AgentOutputs,
        recorder: Recorder,
        state: State,
        clock: SteadyClock,
    ) -> None:
        self._server = server
        self._store = store
        self._synchronizer = synchronizer
        self._portfolio = portfolio
        self._reporter = outputs.reporter
        self._metrics = outputs.metrics
        self._recorder = recorder
        self._clock = clock
        self._serving: tuple[int, int] | None = None
        self.failures = SwitchFailures()
        self.standby = StandbyKeeper(server, outputs=outputs)
        #: The state of the decision core.
        self.state = state
        #: Outcomes not yet in any result.
        self.failure: CycleFailure | None = None
        self.switched = False

    @property
    def has_served(self) -> bool:
        """Whether a variant was verified since the agent started."""
        return self._serving is not None

    def carry_out(self, decision: Decision, served: ServedVersions, manifest: Manifest) -> ServedVersions:
        """Carry out a switch to a variant of ``manifest``. Returns the versions served after it."""
        assert decision.target is not None
        target = Placement(manifest=manifest, variant=manifest.variant(decision.target))
        outcome: SwitchResult | None
        if decision.reason is Reason.SERVER_DEAD:
            outcome = self._repair(target)
        else:
            previous = served.active if served.active is not None and served.active.version != target.version else None
            outcome = self._switch(decision, target, previous, served, manifest)
        if outcome is None:
            return served
        now = self._clock.now()
        self._metrics.switched(succeeded=outcome.succeeded, seconds=outcome.total_milliseconds / 1e3)
        if outcome.succeeded:
            self.state = state_after_switch(self.state, variant=outcome.variant, now=now)
            self._server.observer.switched(outcome.version)
            self.switched = True
            self.failures.succeeded()
            self._reporter.event(
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
            self.verified(target, manifest)
            self.standby.switched()
            self._synchronizer.served_versions = (target.version, *served.ready)
            kept = tuple(
                version for version in served.ready if version < target.version and _stays(version, decision, manifest)
            )
            return ServedVersions(ready=(*kept, target.version), active=target, name=outcome.variant)
        self.failures.failed_beside(served.active)
        self._failed(outcome, target, served)
        return served

    def keep_standby(self, decision: Decision, served: ServedVersions, manifest: Manifest) -> ServedVersions:
        """Load, verify or unload the standby of a decision that holds. Returns the versions served then."""
        served, failed = self.standby.keep(decision, served, manifest)
        if failed is None:
            return served
        if failed.shortage or (failed.unreachable and not self._server.ended_during(failed.variant)):
            self._reporter.event(
                "standby-none", f"{failed.variant} is no standby now: {failed.cause}", variant=failed.variant
            )
            return served
        now, cause = self._clock.now(), failed.cause or "unknown"
        self.state = state_after_failure(
            self.state, variant=failed.variant, cause=cause, now=now, switching=self._portfolio.switching
        )
        self._recorder.outcome(now=now, variant=failed.variant, cause=cause)
        self._reporter.event(
            "failed",
            f"{failed.variant} is no standby: {cause}",
            variant=failed.variant,
            version=failed.version,
            restored=failed.restored,
        )
        if failed.stuck:
            # What serves is not ended for what is only kept in reserve; a switch would find the same, and restart.
            self._reporter.event("stuck", "The load of a standby hangs; the active variant serves on.")
        return served

    def _switch(
        self,
        decision: Decision,
        target: Placement,
        previous: Placement | None,
        served: ServedVersions,
        manifest: Manifest,
    ) -> SwitchResult:
        switcher = self._server.switcher
        below = self.standby.placements(served, manifest, below=target)
        kept = [placement for placement in below if _stays(placement.version, decision, manifest)]
        is_resident = previous is not None and target.version in served.ready
        if previous is not None and not is_resident and not kept and len(served.ready) > 1:
            # Its memory is needed for the load.
            switcher.release_standby(previous)
        return switcher.switch(target, previous=previous, standby=kept, is_resident=is_resident)

    def bring_back(self, served: ServedVersions, manifest: Manifest | None) -> ServedVersions:
        """After a restart: serve again what served before the switch that needed it. Then the next one is tried."""
        before = self.failures.take_served_before()
        assert before is not None
        outcome = self._server.switcher.switch(before)
        if not outcome.succeeded:
            return served
        self._server.observer.switched(outcome.version)
        self.verified(before, manifest)
        return ServedVersions.of((before.version,), manifest=manifest, store=self._store)

    def _failed(self, outcome: SwitchResult, target: Placement, served: ServedVersions) -> None:
        now = self._clock.now()
        cause = outcome.cause or "unknown"
        if outcome.unreachable:
            if not self._server.ended_during(outcome.variant):
                self._reporter.event(
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
            self.state, variant=outcome.variant, cause=cause, now=now, switching=self._portfolio.switching
        )
        self._recorder.outcome(now=now, variant=outcome.variant, cause=cause)
        message = f"{outcome.variant} is not served: {cause}"
        self.failure = CycleFailure(
            reason=reasons.LOAD_FAILED, message=message, revision=target.manifest.revision, variant=outcome.variant
        )
        self._reporter.event(
            "failed",
            message,
            variant=outcome.variant,
            version=outcome.version,
            previous=served.name,
            restored=outcome.restored,
        )
        self._reject_if_all_failed(target, cause=cause)
        if outcome.stuck:
            self._reporter.event("stuck", "A load hangs, so Triton takes no other: only a restart helps.")
            self._server.restart_or_request("A load hangs.")

    def _short(self, outcome: SwitchResult, cause: str, served: ServedVersions) -> None:
        """A resource of the machine has run out: nobody is blamed, and the next try waits longer."""
        is_first = self.failures.short(serves=bool(served.ready))
        # No revision and no variant is named: any other one would fail the same way.
        message = f"A switch to {outcome.variant} is not possible now: {cause}"
        self.failure = CycleFailure(reason=reasons.INSUFFICIENT_RESOURCES, message=message)
        if is_first:
            self._reporter.event(
                "shortage", message, variant=outcome.variant, previous=served.name, restored=outcome.restored
            )

    def _reject_if_all_failed(self, target: Placement, *, cause: str) -> None:
        """Refuse a revision when each of its variants has failed; an older one serves on, if there is one."""
        manifest = target.manifest
        if not self.failures.have_all_failed(target):
            return
        before = self.failures.served_before
        older = self._store.complete_before(manifest.revision) if before is None else before.manifest
        if older is not None and older.revision == manifest.revision:
            older = None
        problem = f"none of its variants can be served; the last one, {target.variant.name}: {cause}"
        self._synchronizer.reject(manifest.revision, problem=problem, instead=older)

    def _repair(self, target: Placement) -> SwitchResult | None:
        """A backend died: load the variant again; where that does not help, restart the server.

        ``None`` while the restart is pending: it will show whether the variant was at fault.
        """
        self._reporter.event("dead", "The server does not answer inference; it is repaired.")
        self._metrics.serving(None, None)
        self._metrics.repaired("backend")
        outcome = self._server.switcher.repair(target)
        self._server.observer.forget()
        host = self._server.host
        if outcome.succeeded or outcome.damaged:
            return outcome
        if not host.is_ours and outcome.unreachable:
            return outcome  # it ended, and its owner restarts it
        if not host.may_restart() and not self._server.health.is_enabled:
            return outcome
        why = f"It does not answer inference, and loading anew does not help: {outcome.cause}"
        return self._server.switcher.switch(target) if self._server.restart_or_request(why) else None

    def verified(self, active: Placement, manifest: Manifest | None) -> None:
        """Note that ``active`` answered an inference, while ``manifest`` is served; logged once per server start."""
        self._server.verified(active)
        self.failures.verified(active, of=manifest)
        self._metrics.serving(active.variant.name, active.version)
        first = self._serving is None or self._serving[0] != self._server.starts
        self._serving = (self._server.starts, active.version)
        if first:
            endpoint = self._server.host.endpoint
            self._reporter.event(
                "serving",
                f"{self._store.model} is served by {active.variant.name}.",
                model=self._store.model,
                variant=active.variant.name,
                version=active.version,
                http=endpoint.http,
                grpc=endpoint.grpc,
                metrics=endpoint.metrics,
                adopted=self._server.host.adopted or None,
            )


def _stays(version: int, decision: Decision, manifest: Manifest) -> bool:
    """Whether ``decision`` keeps ``version`` resident."""
    found = variant_of_version(manifest, version)
    return found is not None and decision.standby is not None and decision.standby.variant == found.name
