"""Stage of a pruning run that makes split members: planned, timed, chosen and profiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from edgefolio.manifest import Profile
from edgefolio.specification import ModelPortfolio
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.methods import DENSE, CandidateWeights
from edgefolio_pruner.profiling.environment import describe_environment
from edgefolio_pruner.progress import Progress
from edgefolio_pruner.scoring import Judge
from edgefolio_pruner.split.result import ComparedPlan, Link, SingleNode, compared_plan
from edgefolio_pruner.stages.candidates import CandidateRecord
from edgefolio_pruner.stages.graph_cache import GraphCache
from edgefolio_pruner.stages.splits.choice import Asked, RejectedSplit, SplitChoice, Weighed, choose_splits
from edgefolio_pruner.stages.splits.making import SplitMaker
from edgefolio_pruner.stages.splits.members import SplitVariant
from edgefolio_pruner.stages.splits.profiles import shard_profiles
from edgefolio_pruner.stages.splits.records import MadeEntry, MadePlan
from edgefolio_pruner.stages.splits.times import measured_times
from edgefolio_pruner.stages.variant_selection import Candidate, rules_of
from edgefolio_pruner.work.directory import WorkDirectory

__all__ = ["SplitStage", "SplitsOfRun"]

_STAGE = "split"


@dataclass(frozen=True, kw_only=True)
class SplitsOfRun:
    """The split members of a pruning run, and why other entries give none."""

    members: tuple[SplitVariant, ...] = ()
    rejected: tuple[RejectedSplit, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> dict[str, Any]:
        """What a draft depends on, for its key; nothing of a portfolio without splits."""
        if not (self.members or self.rejected):
            return {}
        return {
            "splits": [member.key for member in self.members],
            "splitsRejected": [asdict(split) for split in self.rejected],
        }


class SplitStage:
    """Makes the split members of one run. Times are measured once and kept, as profiles are."""

    def __init__(
        self,
        portfolio: ModelPortfolio,
        source: MakingSource,
        graphs: GraphCache,
        *,
        work: WorkDirectory,
        threads: int,
        batch: int,
        making: str,
        progress: Progress,
    ) -> None:
        """``batch`` is the size of batches in which accuracy is measured, ``making`` names the requested run."""
        self._portfolio, self._source, self._work = portfolio, source, work
        self._progress = progress
        self._maker = SplitMaker(portfolio, source, graphs, work=work, threads=threads, batch=batch)
        settings = portfolio.spec.profiling
        environment = describe_environment(threads=settings.threads, onnxruntime_version=str(onnxruntime.__version__))
        # Anew for each requested pruning run, like profiles.
        self._key: dict[str, Any] = {
            "environment": environment.model_dump(mode="json"),
            **({"making": making} if making else {}),
        }

    def require_possible(self) -> None:
        """Raise :class:`~edgefolio.errors.UserError` for an entry that this network cannot be divided by."""
        self._maker.require_possible()

    def make(
        self, dense: CandidateWeights, candidates: Sequence[tuple[CandidateRecord, Path]], *, judge: Judge
    ) -> tuple[MadeEntry, ...]:
        """The plans of all entries, of the ``dense`` model."""
        if not self._portfolio.spec.methods.split:
            return ()
        dense_file = next(entry for entry in candidates if entry[0].name == DENSE)
        entries = self._maker.make(dense, dense_file, judge=judge, progress=self._progress)
        count = sum(len(entry.plans) for entry in entries)
        self._progress(stage=_STAGE, fraction=1.0, message=f"{count} plans of {len(entries)} splits")
        return entries

    def choose(self, entries: Sequence[MadeEntry], candidates: Sequence[tuple[CandidateRecord, Path]]) -> SplitsOfRun:
        """The members; ``candidates`` are all models of one node."""
        if not entries:
            return SplitsOfRun()
        single, workers = self._times(entries, candidates)
        (sample,) = self._source.data.validation.inputs(0, 1)
        singles = sorted(
            (
                SingleNode(
                    name=record.name,
                    accuracy_percent=record.validation_accuracy.percent,
                    milliseconds=single[record.name],
                )
                for record, _ in candidates
            ),
            key=lambda each: each.name != DENSE,
        )
        weighed = [
            (_asked(entry), [self._weighed(entry, made, workers, singles, sample.nbytes) for made in entry.plans])
            for entry in entries
        ]
        dense = next(record for record, _ in candidates if record.name == DENSE)
        score = self._source.scoring.description()
        choice = choose_splits(
            weighed,
            dense=_candidate(dense, self._source.data.class_names, milliseconds=single[DENSE]),
            rules=rules_of(self._portfolio.spec.selection, "accuracy" if score is None else score.word),
            most=self._portfolio.spec.selection.max_splits,
        )
        notes = dict.fromkeys(note for entry in entries for note in entry.notes)
        plans = {asked.name: tuple(plan.compared for plan in of) for asked, of in weighed}
        return SplitsOfRun(members=self._members(entries, choice, plans), rejected=choice.rejected, notes=tuple(notes))

    def _times(
        self, entries: Sequence[MadeEntry], candidates: Sequence[tuple[CandidateRecord, Path]]
    ) -> tuple[Mapping[str, float], Mapping[str, Mapping[str, list[float]]]]:
        """Milliseconds of each candidate, and of each worker of each plan of each entry."""
        plans = [(entry.name, made) for entry in entries for made in entry.plans]
        key = {
            **self._key,
            "candidates": {record.name: record.sha256 for record, _ in candidates},
            "plans": [[name, made.record.label, made.record.sha256] for name, made in plans],
        }

        def measure() -> dict[str, Any]:
            self._progress(stage=_STAGE, fraction=1.0, message=f"timing {len(plans)} plans")
            (sample,) = self._source.data.validation.inputs(0, 1)
            executors = [made.executor() for _, made in plans]
            single, workers = measured_times([path for _, path in candidates], executors, sample)
            found: dict[str, dict[str, list[float]]] = {entry.name: {} for entry in entries}
            for (name, made), times in zip(plans, workers, strict=True):
                found[name][made.record.label] = times
            names = [record.name for record, _ in candidates]
            return {"single": dict(zip(names, single, strict=True)), "workers": found}

        value = self._work.result("split-times", key, measure)
        return value["single"], value["workers"]

    def _weighed(
        self,
        entry: MadeEntry,
        made: MadePlan,
        workers: Mapping[str, Mapping[str, list[float]]],
        singles: Sequence[SingleNode],
        input_bytes: int,
    ) -> Weighed:
        link, record = entry.entry.link, made.record
        compared = compared_plan(
            made.plan(),
            title=record.title,
            accuracy_percent=record.validation_accuracy.percent,
            compute_milliseconds=workers[entry.name][record.label],
            input_bytes=input_bytes,
            singles=singles,
            link=Link(
                bits_per_second=link.bits_per_second, round_trip_milliseconds=float(link.round_trip_milliseconds)
            ),
            most_loss_points=float(entry.entry.max_accuracy_loss_points),
        )
        candidate = _candidate(
            record,
            self._source.data.class_names,
            name=entry.name,
            milliseconds=compared.predicted_milliseconds,
        )
        return Weighed(label=record.label, compared=compared, candidate=candidate)

    def _members(
        self, entries: Sequence[MadeEntry], choice: SplitChoice, compared: Mapping[str, tuple[ComparedPlan, ...]]
    ) -> tuple[SplitVariant, ...]:
        by_name = {entry.name: entry for entry in entries}
        plans = {
            split.name: next(made for made in by_name[split.name].plans if made.record.label == split.weighed.label)
            for split in choice.chosen
        }
        profiles = self._profiles(plans)
        return tuple(
            SplitVariant(
                entry=by_name[split.name],
                made=plans[split.name],
                compared=split.weighed.compared,
                profiles=profiles[split.name],
                others=compared[split.name],
            )
            for split in choice.chosen
        )

    def _profiles(self, plans: Mapping[str, MadePlan]) -> dict[str, tuple[Profile, ...]]:
        if not plans:
            return {}
        settings = self._portfolio.spec.profiling
        key = {
            **self._key,
            "plans": {name: made.record.sha256 for name, made in plans.items()},
            "settings": settings.model_dump(mode="json", exclude={"node_selectors"}),
        }

        def measure() -> dict[str, Any]:
            found = shard_profiles(plans, settings, progress=self._progress)
            return {
                name: [profile.model_dump(mode="json", by_alias=True) for profile in profiles]
                for name, profiles in found.items()
            }

        value = self._work.result("split-profile", key, measure)
        return {name: tuple(Profile.model_validate(profile) for profile in found) for name, found in value.items()}


def _asked(entry: MadeEntry) -> Asked:
    asked = entry.entry
    nearest = max(entry.refused, key=lambda plan: plan.accuracy_percent, default=None)
    return Asked(
        name=entry.name,
        most_loss_points=float(asked.max_accuracy_loss_points),
        most_waits=asked.most_waits,
        link=f"{asked.link.bandwidth}bit/s and {asked.link.round_trip_milliseconds} ms",
        refused=None if nearest is None else (nearest.reason, nearest.accuracy_percent),
    )


def _candidate(record: Any, class_names: Sequence[str], *, milliseconds: float, name: str = DENSE) -> Candidate:
    classes = record.validation_classes
    return Candidate(
        name=name,
        accuracy_percent=record.validation_accuracy.percent,
        lowest_recall_percent=None if classes is None else classes.lowest_recall_percent,
        lowest_class="" if classes is None else class_names[classes.lowest_class],
        latency_milliseconds=milliseconds,
        memory_bytes=0,
    )
