"""Status writer of the agent: writes on changes that matter to a decision, and before the last report expires.

A cycle a second on many nodes must not become a write a second. Changes of figures within a dead band are not reported;
until ``validUntil`` no report means no change. An order that changes nothing else is acknowledged with the next report,
which it brings forward by a random time: otherwise all nodes of a site would answer a changed objective in the same
second.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from edgefolio.components import triton_release, triton_warning
from edgefolio.contract.endpoint_report import report_of_decision, report_of_observation
from edgefolio.contract.node_profiles import processor_report
from edgefolio.decision.state import shifted
from edgefolio.decision.types import Decision, Observation, Reason, ServerState, StandbyReason, TrafficWindow
from edgefolio.processor import this_processor
from edgefolio.shared_memory import shared_memory_bytes
from edgefolio.specification.conditions import Condition, ConditionValue, Failure, time_text, truncated, with_condition
from edgefolio.specification.endpoint import DecisionReport, EndpointStatus, SwitchReport
from edgefolio.specification.portfolio_status import ProcessorReport
from edgefolio_edge import reasons
from edgefolio_edge.agent.cycle_result import CycleFailure, CycleResult
from edgefolio_edge.cluster.orders import Orders
from edgefolio_edge.models.sync_state import Synced

#: Validity of a report; the next one comes after about half of it.
VALID_SECONDS = 60.0
#: Least interval of two reports, unless the served variant changed.
MIN_SECONDS = 2.0
#: Deadline for acknowledging an order.
ACKNOWLEDGE_SECONDS = 10.0
#: Longest back-off while reports do not arrive.
LONGEST_PAUSE_SECONDS = 15.0
#: Relative change of a figure up to which it counts as unchanged.
_RELATIVE_DEADBAND = 0.2


class StatusWriter:
    """Writes the endpoint's status when it is due."""

    def __init__(
        self,
        orders: Orders,
        write: Callable[[dict[str, Any]], bool],
        *,
        clock: Callable[[], float],
        elapsed: Callable[[], float] = time.monotonic,
        switches: Callable[[], tuple[SwitchReport, ...]] = lambda: (),
    ) -> None:
        """``write`` returns whether the report arrived. ``clock`` gives the seconds since the epoch that people read,
        ``elapsed`` those of a clock that nobody sets: it says when a report is due."""
        self._orders = orders
        self._write = write
        self._switches = switches
        self._clock = clock
        self._elapsed = elapsed
        self._failure: Failure | None = None
        self._conditions: tuple[Condition, ...] = ()
        self._reported: tuple[object, ...] | None = None
        self._generation: int | None = None
        self._traffic: TrafficWindow | None = None
        self._reported_at = float("-inf")
        self._next_at = float("-inf")
        self._failures = 0
        self._failed_at = 0.0
        self._heard_at: float | None = None

    def failed(self, failure: CycleFailure) -> None:
        """Report ``failure`` with the next cycle."""
        self._failure = Failure(
            location="",
            reason=failure.reason,
            message=truncated(failure.message),
            revision=failure.revision,
            variant=failure.variant,
            time=time_text(self._clock()),
        )

    def after_cycle(self, cycle: CycleResult) -> None:
        """Report ``cycle`` if it is due."""
        now = self._elapsed()
        facts = self._facts(cycle)
        self._schedule_acknowledgement(now)
        reported = None if self._reported is None else self._reported[:2]
        urgent = reported != facts[:2]
        changed = facts != self._reported or self._traffic_changed(cycle.observation)
        due = now >= self._next_at or (changed and (urgent or now - self._reported_at >= MIN_SECONDS))
        if not due or self._backs_off(now):
            return
        if self._write(self._status(cycle, self._clock()).model_dump(mode="json", by_alias=True, exclude_none=True)):
            self._reported = facts
            self._traffic = cycle.observation.traffic if cycle.observation is not None else None
            self._reported_at = now
            self._next_at = now + VALID_SECONDS * random.uniform(0.4, 0.6)
            self._failures = 0
        else:
            self._failures += 1
            self._failed_at, self._heard_at = now, self._orders.heard_at

    def _schedule_acknowledgement(self, now: float) -> None:
        """Bring the next report forward if there is a new order."""
        generation = self._orders.order.generation if self._orders.order is not None else None
        if generation != self._generation:
            self._generation = generation
            self._next_at = min(self._next_at, now + ACKNOWLEDGE_SECONDS * random.uniform(0.2, 1.0))

    def _backs_off(self, now: float) -> bool:
        """Exponential back-off: whether the last report did not arrive and the API server has not answered since."""
        if not self._failures or self._orders.heard_at != self._heard_at:
            return False
        return now - self._failed_at < min(2.0 ** (self._failures - 1), LONGEST_PAUSE_SECONDS)

    def _facts(self, cycle: CycleResult) -> tuple[object, ...]:
        """The facts whose change is reported at once."""
        active = cycle.served.active if cycle.served is not None else None
        decision = cycle.decision
        return (
            active.variant.name if active is not None else None,
            active.manifest.revision if active is not None else None,
            cycle.observation.server if cycle.observation is not None else None,
            decision.objectives_met if decision is not None else None,
            decision.reason if decision is not None and self._orders.is_autonomous else None,
            cycle.state.last_switch_at,
            decision.standby.reason if decision is not None and decision.standby is not None else None,
            cycle.state.quarantined,
            cycle.synced.available,
            cycle.synced.refusal,
            cycle.synced.unreachable is None,
            _digest(cycle.synced),
            cycle.trouble is None,
            self._orders.is_autonomous,
            self._failure,
        )

    def _traffic_changed(self, observation: Observation | None) -> bool:
        """Whether the traffic differs from the reported one by more than the dead band."""
        new, old = observation.traffic if observation is not None else None, self._traffic
        if new is None or old is None:
            return (new is None) != (old is None)
        return (
            (new.requests == 0) != (old.requests == 0)
            or _differs(new.requests / max(new.seconds, 1e-9), old.requests / max(old.seconds, 1e-9))
            or (new.requests > 0 and _differs(new.mean_compute_milliseconds, old.mean_compute_milliseconds))
            or (new.requests > 0 and _differs(new.mean_total_milliseconds, old.mean_total_milliseconds))
        )

    def _status(self, cycle: CycleResult, now: float) -> EndpointStatus:
        served, order = cycle.served, self._orders.order
        active = served.active if served is not None else None
        observation, decision = cycle.observation, cycle.decision
        alone = self._orders.is_autonomous
        self._conditions = self._conditions_now(cycle, now, alone=alone)
        return EndpointStatus(
            observed_generation=order.generation if order is not None else 0,
            observed_epoch=order.spec.epoch if order is not None else 0,
            active_variant=active.variant.name if active is not None else None,
            active_revision=active.manifest.revision if active is not None else None,
            resident_variants=observation.resident_variants[:8] if observation is not None else (),
            processor=_processor(),
            profile_digest=_digest(cycle.synced),
            observation=None
            if observation is None
            else report_of_observation(observation, now=now, valid_seconds=VALID_SECONDS),
            decision=None if decision is None else self._decision(decision, cycle, alone=alone),
            switches=self._switches(),
            last_failure=self._failure,
            conditions=self._conditions,
        )

    def _decision(self, decision: Decision, cycle: CycleResult, *, alone: bool) -> DecisionReport:
        report = report_of_decision(decision, shifted(cycle.state, cycle.clock_offset), decided_by_agent=alone)
        reason, message = self._told(decision)
        return report.model_copy(update={"reason": reason, "message": message})

    def _told(self, decision: Decision) -> tuple[str, str]:
        """Reason and message of ``decision`` for people: to the core every order is a pin, to them a person's alone."""
        order = self._orders.order
        if decision.reason is not Reason.PINNED or order is None or order.spec.pinned:
            return decision.reason.value, truncated(decision.message)
        return reasons.ORDERED, truncated(decision.message.replace(" is pinned", " is ordered", 1))

    def _conditions_now(self, cycle: CycleResult, now: float, *, alone: bool) -> tuple[Condition, ...]:
        found: dict[str, ConditionValue] = {
            "Ready": _ready(cycle),
            "Synced": _synced(cycle.synced, self._orders.revision),
            "ObjectivesMet": self._objectives_met(cycle.decision),
            "Autonomous": _autonomous(alone, descended=self._orders.has_descended),
            "StandbyResident": _standby_resident(cycle),
            "SharedMemorySufficient": _shared_memory_sufficient(cycle),
            "KnownVulnerabilities": _known_vulnerabilities(cycle.server_version),
        }
        conditions = self._conditions
        for kind, (status, reason, message) in found.items():
            conditions = with_condition(conditions, type=kind, status=status, reason=reason, message=message, now=now)
        return conditions

    def _objectives_met(self, decision: Decision | None) -> ConditionValue:
        if decision is None or decision.objectives_met is None:
            return "Unknown", reasons.NOT_KNOWN, ""
        return ("True", reasons.MET, "") if decision.objectives_met else ("False", *self._told(decision))


@cache
def _processor() -> ProcessorReport:
    """The processor of this node, within the bounds of a status."""
    found = this_processor()
    return processor_report(found.model, found.flags)


def _standby_resident(cycle: CycleResult) -> ConditionValue:
    """Condition StandbyResident: whether a further variant is loaded for the way down, or why none is."""
    found = None if cycle.decision is None else cycle.decision.standby
    if found is None:
        return "Unknown", reasons.NOT_KNOWN, ""
    return "True" if found.reason is StandbyReason.RESIDENT else "False", found.reason.value, truncated(found.message)


def _digest(synced: Synced) -> str | None:
    return None if synced.profile is None else synced.profile.digest


def _shared_memory_sufficient(cycle: CycleResult) -> ConditionValue:
    """Condition SharedMemorySufficient: requests as large as those that were profiled are served."""
    manifest = cycle.synced.manifest
    if manifest is None or cycle.largest_batch is None:
        return "Unknown", reasons.NOTHING_SYNCED, ""
    wanted = manifest.request_batch_size
    if cycle.largest_batch >= wanted:
        return "True", reasons.SUFFICIENT, ""
    needed = -(-shared_memory_bytes(signature=manifest.signature, batch=wanted) // 2**20)
    return (
        "False",
        reasons.BATCH_BOUNDED,
        f"Requests of more than {cycle.largest_batch} samples are refused; {wanted} were profiled. Set "
        f"serving.managed.sharedMemory to {needed}Mi, or profile a smaller batch.",
    )


def _known_vulnerabilities(version: str) -> ConditionValue:
    """Condition KnownVulnerabilities: of the Triton that serves."""
    if not version:
        return "Unknown", reasons.SERVER_UNREACHABLE, "The version of the server is not known yet."
    warning = triton_warning(triton_release(version))
    return ("False", reasons.NONE_KNOWN, "") if warning is None else ("True", reasons.OUTDATED_TRITON, warning)


def _autonomous(alone: bool, *, descended: bool) -> ConditionValue:
    if alone and descended:
        message = "It went down to the standby as ordered in advance, and decides until the operator has seen it."
        return "True", reasons.DESCENDED_AS_ORDERED, message
    return ("True", reasons.CUT_OFF, "The agent decides.") if alone else ("False", reasons.CONNECTED, "")


def _ready(cycle: CycleResult) -> ConditionValue:
    """Condition Ready: a verified variant serves."""
    served, observation = cycle.served, cycle.observation
    if not cycle.synced.available:
        return "False", reasons.NOTHING_SYNCED, "No variant is on disk, verified."
    if cycle.trouble is not None:
        return "False", reasons.SERVER_UNREACHABLE, cycle.trouble
    if served is None or served.active is None:
        return "False", reasons.NOTHING_SERVED, ""
    if observation is not None and observation.server is ServerState.DEAD:
        return "False", reasons.SERVER_DEAD, "The server does not answer inference."
    return "True", reasons.SERVING, ""


def _synced(synced: Synced, wanted: tuple[int, str] | None) -> ConditionValue:
    """Condition Synced: the ordered revision is on disk."""
    if wanted is None:
        return "False", reasons.NOTHING_PUBLISHED, "No revision is published yet."
    if synced.refusal is not None:
        reason = reasons.REFUSED if synced.refusal.reason == reasons.REVISION_REFUSED else synced.refusal.reason
        return "False", reason, synced.refusal.problem
    manifest = synced.manifest
    is_wanted = manifest is not None and manifest.revision == wanted[0]
    if is_wanted and synced.complete:
        return "True", reasons.VERIFIED, f"Revision {wanted[0]} is on disk, verified."
    if synced.unreachable is not None:
        return "False", reasons.UNREACHABLE, synced.unreachable
    count = f"{len(synced.available)} of {len(manifest.single_node)} variants" if is_wanted and manifest else "Nothing"
    return "False", reasons.FETCHING, f"{count} of revision {wanted[0]} can be loaded so far."


def _differs(new: float, old: float) -> bool:
    return abs(new - old) > _RELATIVE_DEADBAND * max(abs(new), abs(old), 1e-9)
