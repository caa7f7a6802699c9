"""Replay of a trace through the core, in virtual time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from edgefolio.decision.core import decide
from edgefolio.decision.recording.traces import DecisionRecord, ExpectedChange, SwitchOutcome, Trace
from edgefolio.decision.state import state_after_failure, state_after_switch
from edgefolio.decision.types import Action, Decision, State


@dataclass(frozen=True, kw_only=True)
class Step:
    """One cycle as replayed; ``at`` counts seconds from the first cycle."""

    at: float
    active: str | None
    decision: Decision
    recorded: DecisionRecord | None

    @property
    def record(self) -> DecisionRecord:
        """The part of the decision that is compared."""
        return DecisionRecord.of(self.decision)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A replayed trace. Seconds are of the trace's clock; a step lasts until the next one."""

    steps: tuple[Step, ...]
    state: State
    expected: tuple[ExpectedChange, ...]

    @property
    def changes(self) -> tuple[Step, ...]:
        """The first step, and each whose decision differs from the one before."""
        return tuple(
            step for index, step in enumerate(self.steps) if index == 0 or step.record != self.steps[index - 1].record
        )

    @property
    def switches(self) -> int:
        """Number of decisions to switch."""
        return sum(step.decision.action is Action.SWITCH for step in self.steps)

    @property
    def seconds(self) -> float:
        """Length of the trace."""
        return self.steps[-1].at - self.steps[0].at if self.steps else 0.0

    def seconds_by_variant(self) -> dict[str, float]:
        """How long each variant was active."""
        return self._sums([step.active or "(none)" for step in self.steps])

    def seconds_by_objectives(self) -> dict[str, float]:
        """How long the objectives were met, not met, unknown."""
        words = {True: "met", False: "not met", None: "unknown"}
        return self._sums([words[step.decision.objectives_met] for step in self.steps])

    def cycles_by_reason(self) -> dict[str, int]:
        """How many cycles ended with each reason."""
        return dict(Counter(step.decision.reason.value for step in self.steps).most_common())

    def differences(self) -> tuple[str, ...]:
        """Deviations of the replay from the trace's expected or recorded decisions."""
        found: list[str] = []
        if self.expected:
            seen = [ExpectedChange(at=step.at, decision=step.record) for step in self.changes]
            for index in range(max(len(seen), len(self.expected))):
                want = self.expected[index] if index < len(self.expected) else None
                have = seen[index] if index < len(seen) else None
                if want is None or have is None or want.decision != have.decision or abs(want.at - have.at) > 1e-6:
                    found.append(f"change {index + 1}: expected {want or 'none'}, got {have or 'none'}")
                    # One change too many or too few shifts all that follow: report the first difference.
                    break
        found.extend(
            f"{step.at:g} s: recorded {step.recorded}, got {step.record}"
            for step in self.steps
            if step.recorded is not None and step.recorded != step.record
        )
        return tuple(found)

    def _sums(self, keys: list[str]) -> dict[str, float]:
        sums: dict[str, float] = {}
        for index, key in enumerate(keys):
            until = self.steps[min(index + 1, len(keys) - 1)].at
            # A clock that jumps back adds nothing.
            sums[key] = sums.get(key, 0.0) + max(0.0, until - self.steps[index].at)
        return sums


def replay(trace: Trace) -> Replay:
    """Decide every cycle of ``trace`` anew."""
    state = trace.state
    steps: list[Step] = []
    start: float | None = None
    for event in trace.events:
        if isinstance(event, SwitchOutcome):
            if event.cause is None:
                state = state_after_switch(state, variant=event.variant, now=event.now)
            else:
                state = state_after_failure(
                    state, variant=event.variant, cause=event.cause, now=event.now, switching=trace.switching
                )
            continue
        start = event.now if start is None else start
        decision, state = decide(
            observation=event.observation,
            objectives=event.objectives,
            profiles=trace.profiles,
            switching=trace.switching,
            state=state,
            now=event.now,
        )
        steps.append(
            Step(
                at=round(event.now - start, 6),
                active=event.observation.active_variant,
                decision=decision,
                recorded=event.recorded,
            )
        )
        if decision.action is Action.SWITCH and decision.target is not None and not trace.has_outcomes:
            state = state_after_switch(state, variant=decision.target, now=event.now)
    return Replay(steps=tuple(steps), state=state, expected=trace.expected)
