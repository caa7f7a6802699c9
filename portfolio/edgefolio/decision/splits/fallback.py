"""The fallback beside a shard: the variant of one node that answers what the workers of a split do not, and when.

The tiers of :mod:`edgefolio.decision.choice` choose it among the variants that fit beside the shard, with what the
split's predicted p95 leaves of the latency objective: never below the accuracy minimum while another exists, and of
those in time the most accurate. It is to a split what the standby is to another variant. It is loaded in the shard's
own process, so there is no standby beside it, and its memory counts once, as part of the split's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgefolio.decision.choice import Assessment, Choice, assess, choose, latency_budget
from edgefolio.decision.estimates.memory import MemoryBounds, needed_bytes
from edgefolio.decision.estimates.prediction import Conditions
from edgefolio.decision.types import Fallback, Objectives, VariantProfile

LEAST_ABANDON_MILLISECONDS = 50.0
#: Where no latency is asked for.
LEAST_UNASKED_MILLISECONDS = 100.0
#: What is loaded already needs no room.
_LOADED = MemoryBounds(alone_bytes=None, extra_bytes=None, resident=frozenset())
#: An hour.
MOST_ABANDON_MILLISECONDS = 3_600_000.0


@dataclass(frozen=True, kw_only=True)
class ChosenFallback:
    """The fallback, its profile, and whether it alone would keep all objectives when the peers are lost."""

    plan: Fallback
    profile: VariantProfile
    keeps_objectives: bool


@dataclass(frozen=True, kw_only=True)
class FallbackSearch:
    """Where a fallback is looked for: the variants of one node, and the endpoint's conditions, objectives and memory.

    ``conditions`` gives those under which a variant is predicted; ``bounds`` are the server's, before the split.
    """

    variants: Sequence[VariantProfile]
    conditions: Callable[[VariantProfile], Conditions]
    objectives: Objectives
    bounds: MemoryBounds
    quarantined: Callable[[str], bool]

    def beside(
        self, shard: VariantProfile, *, p95_milliseconds: float | None, loaded: str | None = None, serves: bool = False
    ) -> ChosenFallback | None:
        """The fallback beside ``shard`` for a split of this predicted p95; ``None`` if none fits.

        Of a split that ``serves``, the shard is loaded already. What is ``loaded`` with it is not exchanged for a
        better one as long as it does: each exchange is a load.
        """
        bounds = _beside(self.bounds, 0 if serves else needed_bytes(shard), alone=needed_bytes(shard))
        budget, maximum = latency_budget(self.objectives), self.objectives.max_memory_bytes
        left = None if budget is None else 0.0 if p95_milliseconds is None else budget - p95_milliseconds
        objectives = replace(
            self.objectives,
            latency_p95_milliseconds=left,
            network_latency_milliseconds=0.0,
            max_memory_bytes=None if maximum is None else maximum - needed_bytes(shard),
        )
        entries = [
            self._assessed(profile, objectives, _LOADED if serves and profile.name == loaded else bounds)
            for profile in self.variants
        ]
        choice = choose(entries)
        kept = next((entry for entry in entries if serves and entry.profile.name == loaded and entry.servable), None)
        if kept is not None and (choice is None or _does(kept, choice)):
            choice = Choice(assessment=kept, objectives_met=kept.meets_all)
        if choice is None:
            return None
        found = choice.assessment
        plan = abandoning(
            found.profile.name,
            budget=budget,
            predicted=p95_milliseconds,
            fallback=found.prediction.p95_milliseconds,
            is_in_time=found.prediction.meets_latency,
        )
        return ChosenFallback(plan=plan, profile=found.profile, keeps_objectives=choice.objectives_met)

    def _assessed(self, profile: VariantProfile, objectives: Objectives, bounds: MemoryBounds) -> Assessment:
        return assess(
            profile,
            conditions=self.conditions(profile),
            objectives=objectives,
            margin_percent=0.0,
            bounds=bounds,
            quarantined=self.quarantined(profile.name),
        )


def abandoning(
    variant: str, *, budget: float | None, predicted: float | None, fallback: float | None, is_in_time: bool
) -> Fallback:
    """The fallback with its abandon time; all in milliseconds.

    Of a ``budget`` (the latency objective on the server) a fallback that is in time leaves what it does not take. One
    that is late in any case starts after twice the split's prediction, at least 50 ms; without an objective after five
    times the prediction, at least 100 ms.
    """
    if budget is None:
        after = max(LEAST_UNASKED_MILLISECONDS, 5 * (predicted or 0.0))
    elif is_in_time and fallback is not None:
        after = budget - fallback
    else:
        after = max(LEAST_ABANDON_MILLISECONDS, 2 * (predicted or 0.0))
    return Fallback(
        variant=variant,
        abandon_milliseconds=min(after, MOST_ABANDON_MILLISECONDS),
        is_in_time=is_in_time,
        p95_milliseconds=fallback,
        predicted_milliseconds=predicted,
    )


def together(shard: VariantProfile, fallback: VariantProfile) -> VariantProfile:
    """The split ``shard`` with the memory of its fallback, which is loaded with it."""
    return replace(
        shard,
        memory_peak_bytes=needed_bytes(shard) + needed_bytes(fallback),
        memory_steady_bytes=shard.memory_steady_bytes + fallback.memory_steady_bytes,
    )


def _does(kept: Assessment, choice: Choice) -> bool:
    return kept.meets_all or (
        not choice.objectives_met and kept.prediction.meets_accuracy >= choice.assessment.prediction.meets_accuracy
    )


def _beside(bounds: MemoryBounds, taken: int, *, alone: int) -> MemoryBounds:
    """``bounds`` less what the shard takes; a variant that is loaded by itself costs another time in its process."""

    def less(amount: float | None, by: int) -> float | None:
        return None if amount is None else amount - by

    return replace(
        bounds,
        alone_bytes=less(bounds.alone_bytes, alone),
        extra_bytes=less(bounds.extra_bytes, taken),
        beside_bytes=less(bounds.beside_bytes, taken),
        largest_bytes=less(bounds.largest_bytes, taken),
        resident=frozenset(),
    )
