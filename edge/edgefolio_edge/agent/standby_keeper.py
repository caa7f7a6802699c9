"""Keeper of the warm standby: loads, verifies and unloads what a decision wants beside the active variant."""

from __future__ import annotations

import contextlib
import time

from edgefolio.decision.types import Decision, StandbyReason
from edgefolio.manifest import Manifest
from edgefolio_edge.agent.cycle_result import ServedVersions
from edgefolio_edge.agent.options import AgentOutputs
from edgefolio_edge.agent.supervisor import ServerSupervisor
from edgefolio_edge.agent.turns import Turn
from edgefolio_edge.models.variants import variant_of_version
from edgefolio_edge.triton.client import ControlError
from edgefolio_edge.triton.placement import Placement, SwitchResult

#: A standby is asked for its probe this often, so that one that died is found before it is needed.
PROBE_SECONDS = 60.0
#: Pauses after a load that failed for want of room, and the longest of them.
_FIRST_PAUSE_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 600.0


class StandbyKeeper:
    """Residency of the standby of one server. It never touches the active variant."""

    def __init__(self, server: ServerSupervisor, *, outputs: AgentOutputs) -> None:
        self._server = server
        self._reporter = outputs.reporter
        self._probed_at: dict[int, float] = {}
        self._not_before = float("-inf")
        self._failures = 0
        self._turn = Turn()
        self._last_reason: tuple[StandbyReason, str | None] | None = None

    def keep(
        self, decision: Decision, served: ServedVersions, manifest: Manifest
    ) -> tuple[ServedVersions, SwitchResult | None]:
        """Make what ``decision`` wants resident; the versions served then, and how a load of it failed."""
        wanted, active = decision.standby, served.active
        if wanted is None or active is None:
            return served, None
        self._tell(decision)
        others = tuple(version for version in served.ready if version < active.version)
        target = None
        if wanted.variant is not None:
            target = Placement(manifest=manifest, variant=manifest.variant(wanted.variant))
        if target is not None and (target.version >= active.version or active.manifest.revision != manifest.revision):
            target = None
        if target is None or others or not wanted.is_scarce:
            self._turn.forget()
        if target is None or others not in ((), (target.version,)):
            return self._released(served, active) if others else served, None
        if others:
            return self._verified(served, active, target), None
        if time.monotonic() < self._not_before or (wanted.is_scarce and not self._turn.has_come(target.version)):
            return served, None
        return self._loaded(served, active, target)

    def switched(self) -> None:
        """Note a switch: a version that became a standby by it answered as the active one until then."""
        self._probed_at.clear()

    def placements(self, served: ServedVersions, manifest: Manifest, *, below: Placement) -> list[Placement]:
        """The resident variants of ``manifest`` with a lower version than ``below``."""
        found = ((version, variant_of_version(manifest, version)) for version in served.ready)
        return [
            Placement(manifest=manifest, variant=variant)
            for version, variant in found
            if variant is not None and version < below.version
        ]

    def _loaded(
        self, served: ServedVersions, active: Placement, target: Placement
    ) -> tuple[ServedVersions, SwitchResult | None]:
        outcome = self._server.switcher.load_standby(target, active=active)
        if not outcome.succeeded:
            self._failures += 1
            pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - 1, 10))
            self._not_before = time.monotonic() + pause
            return served, outcome
        self._failures = 0
        self._probed_at = {target.version: time.monotonic()}
        self._measure(target, active=active)
        self._reporter.event(
            "standby",
            f"{target.variant.name} is resident beside {active.variant.name}, verified.",
            variant=target.variant.name,
            version=target.version,
            milliseconds=round(outcome.total_milliseconds, 1),
        )
        return ServedVersions(ready=(target.version, active.version), active=active, name=served.name), None

    def _verified(self, served: ServedVersions, active: Placement, target: Placement) -> ServedVersions:
        """Ask the standby for its probe when that is due; one that does not answer is unloaded, and loaded in calm."""
        now, lost = time.monotonic(), self._server.host.endpoint.lacks_backend_of(target.version)
        due = now - self._probed_at.setdefault(target.version, now) >= PROBE_SECONDS
        cause = "its process is gone" if lost else None
        if cause is None and due:
            self._probed_at[target.version] = now
            cause = self._server.switcher.canary(target, versions=(target.version,))
            if cause is None:
                self._measure(target, active=active)
        if cause is None:
            return served
        self._reporter.event(
            "standby-lost",
            f"The standby {target.variant.name} is unloaded: {cause}.",
            variant=target.variant.name,
            version=target.version,
        )
        return self._released(served, active)

    def _measure(self, target: Placement, *, active: Placement) -> None:
        """Time the standby beside the active variant; one that does not answer now is found by the next canary."""
        with contextlib.suppress(ControlError):
            self._server.observer.probe_standby(target, active=active)

    def _released(self, served: ServedVersions, active: Placement) -> ServedVersions:
        if not self._server.switcher.release_standby(active):
            return served
        self._probed_at.clear()
        return ServedVersions(ready=(active.version,), active=active, name=served.name)

    def _tell(self, decision: Decision) -> None:
        """Log once why there is none, or which is wanted."""
        assert decision.standby is not None
        current = decision.standby.reason, decision.standby.variant
        if current == self._last_reason or decision.standby.reason is StandbyReason.NOT_CALM:
            return
        self._last_reason = current
        if decision.standby.reason in (StandbyReason.INSUFFICIENT_STANDBY_MEMORY, StandbyReason.LOAD):
            self._reporter.event(
                "standby-wanted" if decision.standby.variant else "standby-none",
                decision.standby.message,
                variant=decision.standby.variant,
                reason=decision.standby.reason.value,
            )
