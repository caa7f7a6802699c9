"""The context of the rules: inputs of one decision, derived values, and constructors of decisions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from edgefolio.decision.choice import Assessment, Choice, assess, choose, latency_budget
from edgefolio.decision.estimates.arrivals import conditions_of, is_censored
from edgefolio.decision.estimates.compute_factor import Measurement
from edgefolio.decision.estimates.computing import variability_of
from edgefolio.decision.estimates.memory import memory_bounds
from edgefolio.decision.estimates.network import split_conditions
from edgefolio.decision.estimates.own_factors import relative_factor
from edgefolio.decision.estimates.prediction import Conditions, Expectation
from edgefolio.decision.evidence import Verdict, measurement_of, threshold, verdict_of
from edgefolio.decision.splits.assessing import SplitSituation, as_loaded
from edgefolio.decision.splits.fallback import FallbackSearch
from edgefolio.decision.state import is_quarantined
from edgefolio.decision.types import Action, Decision, Objectives, Observation, Reason, State, VariantProfile
from edgefolio.specification.serving import Switching

#: A rule's decision, and the next state.
Outcome = tuple[Decision, State]


@dataclass(frozen=True, kw_only=True)
class RuleContext:
    """The inputs of a rule. ``state`` is already updated to ``now``."""

    observation: Observation
    objectives: Objectives
    profiles: tuple[VariantProfile, ...]
    switching: Switching
    state: State
    now: float
    measurement: Measurement | None = None

    @cached_property
    def loaded(self) -> tuple[VariantProfile, ...]:
        """All profiles; that of a split that is resident holds the memory of its fallback as well."""
        resident = frozenset((*self.observation.resident_variants, self.observation.active_variant or ""))
        return as_loaded(self.profiles, self.observation.worker_set, resident)

    @cached_property
    def active(self) -> VariantProfile | None:
        """The active variant's profile; ``None`` if nothing serves or it is unknown."""
        return self.profile(self.observation.active_variant)

    @property
    def known_active(self) -> VariantProfile:
        """:attr:`active`, for rules that run only where it is known."""
        assert self.active is not None
        return self.active

    @cached_property
    def assessments(self) -> tuple[Assessment, ...]:
        """Every variant's assessment: the active one as measured, others with the margin upward or downward."""
        return self.assessed(headroom_percent=float(self.switching.memory_headroom_percent))

    @cached_property
    def p95_milliseconds(self) -> float | None:
        """p95 of the active variant: measured with traffic, else as predicted from the compute factor."""
        found = self.assessment(self.observation.active_variant)
        return None if found is None else found.prediction.p95_milliseconds

    @cached_property
    def verdict(self) -> Verdict:
        """What the sequential test of the latest readings says."""
        return verdict_of(
            self.state.latency_test,
            budget=latency_budget(self.objectives),
            min_requests=self.switching.min_requests,
            sure=threshold(self.observation.contention),
        )

    @property
    def violates_latency(self) -> bool:
        """Whether the active variant is outside the latency objective: by the window, or sure by the readings."""
        return self.violates_by_window or (self.measurement is not None and self.verdict.is_sure)

    @cached_property
    def violates_by_window(self) -> bool:
        """Whether the window's p95 is outside the latency objective; the server's own p95 may contradict."""
        budget, p95 = latency_budget(self.objectives), self.p95_milliseconds
        if self.measurement is None or budget is None or p95 is None or p95 <= budget:
            return False
        confirmed = self.measurement.confirmed_p95_milliseconds
        return confirmed is None or confirmed > budget

    @cached_property
    def objectives_met(self) -> bool | None:
        """Whether the active variant meets all objectives now; ``None`` if that cannot be known."""
        found = self.assessment(self.observation.active_variant)
        if found is None or self.measurement is None:
            return None
        return found.within_memory_objective and found.prediction.meets_accuracy and not self.violates_latency

    @cached_property
    def standbys(self) -> tuple[VariantProfile, ...]:
        """Profiles of the variants that are resident beside the active one."""
        active, resident = self.observation.active_variant, self.observation.resident_variants
        return tuple(profile for profile in self.loaded if profile.name in resident and profile.name != active)

    @cached_property
    def node_busy(self) -> str | None:
        """Why the node should get no more load; ``None`` if it may, or is unknown."""
        node, most = self.observation.node, self.switching.node_busy_percent
        if node is None:
            return None
        if node.pressures:
            return f"the node reports {', '.join(node.pressures)}"
        if node.others_cpu_percent is not None and node.others_cpu_percent > most:
            return f"others use {node.others_cpu_percent:.0f} % of the node's processors (at most {most} %)"
        return None

    @property
    def since_switch(self) -> float | None:
        """Seconds since the last switch."""
        last = self.state.last_switch_at
        return None if last is None else max(0.0, self.now - last)

    def profile(self, name: str | None) -> VariantProfile | None:
        """The profile called ``name``."""
        return next((profile for profile in self.loaded if profile.name == name), None)

    def assessment(self, name: str | None) -> Assessment | None:
        """The assessment of the variant called ``name``."""
        return next((entry for entry in self.assessments if entry.profile.name == name), None)

    def assessed(self, *, headroom_percent: float) -> tuple[Assessment, ...]:
        """:attr:`assessments` with another headroom under the memory limit: an emergency may use all of it."""
        bounds = memory_bounds(self.observation, self.loaded, headroom_percent=headroom_percent)
        alone = tuple(
            assess(
                profile,
                conditions=self.conditions_for(profile),
                objectives=self.objectives,
                margin_percent=self.margin_percent(profile),
                bounds=bounds,
                quarantined=is_quarantined(self.state, profile.name, self.now),
                measured=self._measured() if self.is_active(profile) else None,
            )
            for profile in self.loaded
            if profile.split is None
        )
        splits = [profile for profile in self.loaded if profile.split is not None]
        if not splits:
            return alone
        situation = SplitSituation(
            single_node=alone,
            search=FallbackSearch(
                variants=tuple(entry.profile for entry in alone),
                conditions=self.conditions_for,
                objectives=self.objectives,
                bounds=bounds,
                quarantined=lambda name: is_quarantined(self.state, name, self.now),
            ),
            workers=self.observation.worker_set,
            stale_after_seconds=float(self.switching.stale_after_seconds),
        )
        found = {
            profile.name: situation.assessed(
                profile,
                conditions=self.conditions_for(profile),
                margin_percent=self.margin_percent(profile),
                measured=self._measured() if self.is_active(profile) else None,
            )
            for profile in splits
        }
        found |= {entry.profile.name: entry for entry in alone}
        return tuple(found[profile.name] for profile in self.profiles)

    def is_active(self, profile: VariantProfile) -> bool:
        """Whether ``profile`` is that of the variant that serves now."""
        return self.active is not None and profile.name == self.active.name

    def margin_percent(self, profile: VariantProfile) -> float:
        """How far below the latency objective ``profile`` must be predicted; 0 for the active, measured one."""
        if self.is_active(profile):
            return 0.0
        if profile.split is not None:
            # All of its workers load for it, whichever way it is taken.
            return float(max(self.switching.up_margin_percent, self.switching.down_margin_percent))
        return float(self.switching.up_margin_percent if self._is_up(profile) else self.switching.down_margin_percent)

    def conditions_for(self, profile: VariantProfile) -> Conditions:
        """The conditions under which ``profile`` is predicted."""
        found = conditions_of(
            self.state,
            self.measurement,
            # A split is predicted as on the way down, so that nothing that was seen of this node is left out.
            going_down=profile.split is not None or not self._is_up(profile),
            latest=self._latest,
            # What scatters here is the node's, whichever variant computes.
            variability=0.0 if self.active is None else variability_of(self.state, self.active),
        )
        own = relative_factor(self.state, profile.name, None if self.active is None else self.active.name)
        found = replace(found, compute_factor=found.compute_factor * own)
        return split_conditions(found, profile, self.observation.worker_set)

    def pace(self, profile: VariantProfile) -> float:
        """Mean milliseconds of ``profile`` on an idle node of the profile: by it variants are slower or faster.

        Of a split that is its time now, with what travels, over this node's compute factor; infinite if not known.
        """
        if profile.split is None:
            return profile.mean_milliseconds
        found = self.measurement if self.is_active(profile) else None
        if found is not None and found.mean_compute_milliseconds > 0:
            return found.mean_compute_milliseconds / self.state.compute_factor
        conditions = self.conditions_for(profile)
        whole = conditions.compute_factor * profile.mean_milliseconds + conditions.network_milliseconds
        return whole / self.state.compute_factor

    def choice(self, among: Iterable[str]) -> Choice | None:
        """The choice among the named variants."""
        names = set(among)
        return choose([entry for entry in self.assessments if entry.profile.name in names])

    def hold(self, reason: Reason, message: str, *, target: str | None = None) -> Decision:
        """Hold; ``target`` is the variant that is due but blocked."""
        return self._decision(Action.HOLD, reason, message, target)

    def switch(self, reason: Reason, message: str, *, target: str) -> Decision:
        """Make the endpoint serve ``target``."""
        return self._decision(Action.SWITCH, reason, message, target)

    def short_of_memory(self, entry: Assessment) -> Decision:
        """Hold: ``entry`` is due but does not fit beside loaded variants."""
        name = entry.profile.name
        message = f"{name} is due, but there is not the memory to load it: {entry.prediction.verdict}."
        return self.hold(Reason.INSUFFICIENT_SWITCH_MEMORY, message, target=name)

    def clause(self, choice: Choice) -> str:
        """The reason for this choice, as a clause."""
        p95, budget = choice.assessment.prediction.p95_milliseconds, latency_budget(self.objectives)
        shown = "it cannot keep up either" if p95 is None else f"predicted p95 {p95:.1f} ms"
        if p95 is not None and budget is not None:
            shown += f" of {budget:.1f} ms"
        if choice.assessment.fallback is not None:
            shown += f"; {choice.assessment.fallback.clause}"
        if choice.objectives_met:
            return f"{choice.name} is the most accurate that fits ({shown})"
        return f"no variant meets all objectives, {choice.name} comes nearest ({shown})"

    def _is_up(self, profile: VariantProfile) -> bool:
        """Whether ``profile`` is no faster than the active variant."""
        return self.active is not None and self.pace(profile) >= self.pace(self.active)

    @cached_property
    def _latest(self) -> Measurement | None:
        """The last reading in which requests were answered."""
        traffic, active = self.observation.traffic, self.active
        # Readings of a split hold the wait for its peers.
        readings = () if traffic is None or active is None or active.split is not None else traffic.readings
        found = (measurement_of(reading, self.known_active) for reading in reversed(readings))
        return next((entry for entry in found if entry is not None), None)

    def _measured(self) -> Expectation | None:
        found = self.measurement
        if found is None or found.p95_milliseconds is None:
            return None
        return Expectation(p95_milliseconds=found.p95_milliseconds, utilization=found.utilization)

    def _decision(self, action: Action, reason: Reason, message: str, target: str | None) -> Decision:
        found = self.measurement
        return Decision(
            action=action,
            reason=reason,
            target=target,
            message=message,
            objectives_met=self.objectives_met,
            predictions=tuple(entry.prediction for entry in self.assessments),
            compute_factor=self.state.compute_factor,
            transport_milliseconds=self.state.transport_milliseconds,
            arrival_rate=None if found is None else found.arrival_rate,
            rate_is_censored=found is not None and is_censored(self.state, found),
        )
