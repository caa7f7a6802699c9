"""Assessment of a split: its fallback, what shard and fallback take together, and what bars it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgefolio.decision.choice import Assessment, assess
from edgefolio.decision.estimates.memory import mebibytes, needed_bytes
from edgefolio.decision.estimates.peers import Bar, not_ready, served_accuracy
from edgefolio.decision.estimates.prediction import Conditions, Expectation, expected_latency
from edgefolio.decision.splits.fallback import ChosenFallback, FallbackSearch, together
from edgefolio.decision.types import Reason, VariantProfile, WorkerSet


@dataclass(frozen=True, kw_only=True)
class SplitSituation:
    """What splits are assessed in: the assessments of the variants of one node, the search for a fallback, the set."""

    single_node: Sequence[Assessment]
    search: FallbackSearch
    workers: WorkerSet | None
    stale_after_seconds: float

    def assessed(
        self, profile: VariantProfile, *, conditions: Conditions, margin_percent: float, measured: Expectation | None
    ) -> Assessment:
        """The assessment of the split ``profile``; ``measured`` is given of the one that serves.

        ``profile`` holds the memory of a fallback that is loaded with it already.
        """
        loaded = loaded_fallback(self.workers, profile.name)
        serves = measured is not None or profile.name in self.search.bounds.resident
        # What is measured holds fallback answers: a fallback is chosen for the split as its workers would answer.
        predicted = expected_latency(profile, conditions).p95_milliseconds
        if predicted is None and measured is not None:
            predicted = measured.p95_milliseconds
        fallback = self.search.beside(profile, p95_milliseconds=predicted, loaded=loaded, serves=serves)
        beside = self._smallest() if fallback is None else fallback.profile
        whole, parts = profile, ""
        if beside is not None and not (serves and loaded is not None):
            whole = together(profile, beside)
            shard, other = mebibytes(needed_bytes(profile)), mebibytes(needed_bytes(beside))
            parts = f" (shard {shard}, its fallback {beside.name} {other})"
        return assess(
            whole,
            conditions=conditions,
            objectives=self.search.objectives,
            margin_percent=margin_percent,
            bounds=self.search.bounds,
            quarantined=self.search.quarantined(profile.name),
            measured=measured,
            accuracy_percent=served_accuracy(profile, self.workers, self._profile(loaded)) if serves else None,
            bar=self._bar(profile, fallback, serves=serves),
            fallback=None if fallback is None else fallback.plan,
            parts=parts,
        )

    def _bar(self, profile: VariantProfile, fallback: ChosenFallback | None, *, serves: bool) -> Bar | None:
        bar = not_ready(profile, self.workers, stale_after_seconds=self.stale_after_seconds, serves=serves)
        if bar is not None:
            return bar
        if fallback is None and not serves:
            clause = "no variant can be loaded beside its shard"
            return Bar(reason=Reason.INSUFFICIENT_SWITCH_MEMORY, clause=clause, yields=False)
        alone = [entry for entry in self.single_node if entry.servable and entry.meets_all]
        if not alone or (fallback is not None and fallback.keeps_objectives):
            return None
        best = max(alone, key=lambda entry: entry.profile.rank).profile.name
        clause = f"{best} meets the objectives on one node, and no fallback beside the shard would when a peer is lost"
        return Bar(reason=Reason.NO_TIME_TO_FALL_BACK, clause=clause)

    def _smallest(self) -> VariantProfile | None:
        return min((entry.profile for entry in self.single_node), key=needed_bytes, default=None)

    def _profile(self, name: str | None) -> VariantProfile | None:
        return next((entry.profile for entry in self.single_node if entry.profile.name == name), None)


def loaded_fallback(workers: WorkerSet | None, split: str) -> str | None:
    """The fallback that is loaded with ``split``; ``None`` while the split is not."""
    return workers.fallback if workers is not None and workers.variant == split else None


def as_loaded(
    profiles: tuple[VariantProfile, ...], workers: WorkerSet | None, resident: frozenset[str]
) -> tuple[VariantProfile, ...]:
    """``profiles`` with the memory of a fallback in that of the ``resident`` split that it is loaded with."""
    if workers is None or workers.fallback is None or workers.variant not in resident:
        return profiles
    beside = next((entry for entry in profiles if entry.name == workers.fallback and entry.split is None), None)
    if beside is None:
        return profiles
    return tuple(
        together(profile, beside) if profile.split is not None and profile.name == workers.variant else profile
        for profile in profiles
    )
