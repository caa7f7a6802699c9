"""Split maker: the plans of each entry of ``methods.split``, their shards and probes, and how they answer."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgefolio.contract.work_pieces import split_piece
from edgefolio.files import write_durably
from edgefolio.manifest import Probe
from edgefolio.records.split_plan import SplitPlan
from edgefolio.specification import ModelPortfolio
from edgefolio.specification.splitting import Split
from edgefolio_pruner.inputs import MakingSource
from edgefolio_pruner.methods import CandidateWeights
from edgefolio_pruner.profiling.session import open_session
from edgefolio_pruner.progress import Progress, part_of
from edgefolio_pruner.quantization import Refusal, compare_answers
from edgefolio_pruner.scoring import Judge
from edgefolio_pruner.scoring.judge import FAST_BATCH
from edgefolio_pruner.spatial import CapturedModel
from edgefolio_pruner.split.channels.ownership import contiguous
from edgefolio_pruner.split.exchanges.dividing import divide
from edgefolio_pruner.split.plan_making import PlanMaker
from edgefolio_pruner.split.planned import PlannedSplit
from edgefolio_pruner.split.requirements import require_possible
from edgefolio_pruner.split.result import Question
from edgefolio_pruner.split.rows.plan import plan_rows
from edgefolio_pruner.split.search.spec import PlanSpec
from edgefolio_pruner.stages.candidates import CandidateRecord, parity_samples
from edgefolio_pruner.stages.graph_cache import GraphCache
from edgefolio_pruner.stages.probe import LARGEST_PROBE, make_split_probe, probe_samples
from edgefolio_pruner.stages.splits.entry_errors import of_entry
from edgefolio_pruner.stages.splits.plans import (
    question_of,
    search_document,
    search_key,
    searched_of,
    threads_of_torch,
    tuning_of,
)
from edgefolio_pruner.stages.splits.quantizing import SplitQuantizer, accuracy_of
from edgefolio_pruner.stages.splits.records import PLAN_FILE, MadeEntry, MadePlan, PlanRecord, RefusedPlan
from edgefolio_pruner.work.directory import WorkDirectory
from edgefolio_split.executor import SplitExecutor
from edgefolio_split.probes import with_probes

__all__ = ["SplitMaker"]

_STAGE = "split"
_FIELD = "--work-dir"
#: Raised with each field that a stored plan gains, and with each change of what planning gives.
_STORED = 2


class SplitMaker:
    """Makes the plans of one source's entries of ``methods.split``."""

    def __init__(
        self,
        portfolio: ModelPortfolio,
        source: MakingSource,
        graphs: GraphCache,
        *,
        work: WorkDirectory,
        threads: int,
        batch: int = FAST_BATCH,
    ) -> None:
        assert portfolio.spec.data is not None
        self._entries = portfolio.spec.methods.split
        self._count = portfolio.spec.data.calibration_samples
        self._source, self._graphs, self._work, self._threads, self._batch = source, graphs, work, threads, batch
        self._portfolio = portfolio

    def require_possible(self) -> None:
        """Raise :class:`UserError` for an entry that the network, or the data, cannot be divided by."""
        for position, entry in enumerate(self._entries):
            with of_entry(position):
                require_possible(self._graphs.model, self._calibration)
                contiguous(divide(self._graphs.model), entry.shares)
                if entry.layout == "Rows":
                    plan_rows(self._graphs.model, entry.shares)
                if entry.precision == "Int8":
                    _ = self.quantizer

    @cached_property
    def quantizer(self) -> SplitQuantizer:
        """What quantizes shards. Raises :class:`UserError` if the data cannot calibrate them."""
        return SplitQuantizer.of(self._portfolio, self._source, threads=self._threads)

    def make(
        self,
        dense: CandidateWeights,
        dense_file: tuple[CandidateRecord, Path],
        *,
        judge: Judge,
        progress: Progress,
        only: str | None = None,
    ) -> tuple[MadeEntry, ...]:
        """The plans of each entry (``only``: of the one whose piece is called so); finished ones are not made again."""
        wanted = [
            (position, entry)
            for position, entry in enumerate(self._entries)
            if only is None or split_piece(entry.name) == only
        ]
        made = []
        for place, (position, entry) in enumerate(wanted):
            part = part_of(progress, start=place / len(wanted), end=(place + 1) / len(wanted))
            with of_entry(position):
                made.append(_Entry(self, entry, dense, dense_file, judge, part).made())
        return tuple(made)

    @cached_property
    def _calibration(self) -> torch.Tensor:
        return torch.from_numpy(self._source.data.calibration(self._count, seed=self._source.seed))


class _Entry:
    """One entry while its plans are made."""

    def __init__(
        self,
        maker: SplitMaker,
        entry: Split,
        dense: CandidateWeights,
        dense_file: tuple[CandidateRecord, Path],
        judge: Judge,
        progress: Progress,
    ) -> None:
        self._maker, self._entry, self._dense, self._dense_file = maker, entry, dense, dense_file
        self._judge, self._progress = judge, progress
        self._name = split_piece(entry.name)

    def made(self) -> MadeEntry:
        maker, asked = self._maker, question_of(self._entry)
        key = {
            **maker._source.record,
            **search_key(asked, state=self._dense.digest, calibration=maker._count, threads=maker._threads),
            "name": self._name,
        }
        found = searched_of(maker._work.result(f"{self._name}-search", key, lambda: self._searched(asked)))
        plans: list[MadePlan] = []
        refused: list[RefusedPlan] = []
        for number, spec in enumerate(found.specs):
            message = f"{self._name}: plan {number + 1} of {len(found.specs)}"
            self._progress(stage=_STAGE, fraction=number / len(found.specs), message=message)
            plan = self._plan(f"plan-{number + 1}", spec, asked)
            if isinstance(plan, RefusedPlan):
                refused.append(plan)
            else:
                plans.append(plan)
        notes = [*found.notes, *(f"{plan.title} has no int8 form: {plan.refused}" for plan in refused)]
        named = tuple(f"{self._name}: {note}"[:1000] for note in notes)
        return MadeEntry(self._entry, self._name, tuple(plans), named, tuple(refused))

    def _searched(self, asked: Question) -> dict[str, Any]:
        with threads_of_torch(self._maker._threads):
            return search_document(self._plans, self._captured, asked)

    def _plan(self, label: str, spec: PlanSpec, asked: Question) -> MadePlan | RefusedPlan:
        maker = self._maker
        search = search_key(asked, state=self._dense.digest, calibration=maker._count, threads=maker._threads)
        key = {
            **maker._source.record,
            **{name: value for name, value in search.items() if name not in ("link", "exchanges", "layout")},
            "name": self._name,
            "label": label,
            "plan": spec.key,
            "record": _STORED,
            **({"fineTuneEpochs": asked.fine_tune_epochs} if asked.fine_tune_epochs else {}),
            **({} if maker._batch == FAST_BATCH else {"batch": maker._batch}),
            **(maker.quantizer.key if asked.precision == "Int8" else {}),
            **self._judge.key,
        }
        stage = f"{self._name}-{label}"
        folder = maker._work.folder(stage, key)

        def build() -> dict[str, Any]:
            with threads_of_torch(maker._threads):
                found = self._plans.made(spec, wire=asked.wire)
            record = self._quantized(found, label, folder) if asked.precision == "Int8" else None
            record = record or self._record(found, label, folder)
            return record.model_dump(mode="json", by_alias=True)

        def read(value: Any) -> MadePlan | RefusedPlan:
            if "refused" in value:
                return RefusedPlan.model_validate(value)
            return MadePlan(PlanRecord.model_validate(value), folder)

        def usable(value: Any) -> bool:
            plan = read(value)
            return isinstance(plan, RefusedPlan) or plan.is_whole()

        return read(maker._work.result(stage, key, build, usable=usable))

    def _quantized(self, found: PlannedSplit, label: str, folder: Path) -> PlanRecord | RefusedPlan:
        """The plan with quantized shards; how far they are from their float form is its parity."""
        self._progress(stage=_STAGE, fraction=0.8, message=f"{self._name}: quantizing {found.title}")
        result = self._maker.quantizer.quantized(found, self._plans, name=self._name, judge=self._judge)
        before = self._executor(found.made.plan, found)
        if isinstance(result, Refusal):
            accuracy = accuracy_of(before, self._judge)
            return RefusedPlan(title=found.title, refused=result.reason, accuracy_percent=accuracy)
        record = self._record(result.plan, label, folder)
        after = self._executor(result.plan.made.plan, result.plan)
        (samples,) = parity_samples(self._maker._source)
        parity = compare_answers(_answers(before, samples), _answers(after, samples))
        return record.model_copy(update={"quantization": result.record, "parity": parity})

    def _executor(self, plan: SplitPlan, found: PlannedSplit, *, literal: bool = False) -> SplitExecutor:
        return SplitExecutor(plan, found.made.files.__getitem__, threads=self._maker._threads, literal=literal)

    @cached_property
    def _captured(self) -> CapturedModel:
        return self._maker._graphs.model.with_state(self._dense.load())

    @cached_property
    def _plans(self) -> PlanMaker:
        maker = self._maker
        return PlanMaker(
            self._captured,
            maker._calibration,
            shares=self._entry.shares,
            seed=maker._source.seed,
            tuning=tuning_of(question_of(self._entry), maker._source.data.train),
            progress=self._progress,
        )

    def _record(self, found: PlannedSplit, label: str, folder: Path) -> PlanRecord:
        source, validation = self._maker._source, self._maker._source.data.validation
        made = found.made
        # Of quantized shards each segment takes the sample that suits it.
        pool = LARGEST_PROBE if made.plan.precision == "Int8" else 1
        (few,) = probe_samples((validation.images[:pool],), most=pool)
        plan, probes = with_probes(made.plan, made.files.__getitem__, few)
        raw = plan.to_bytes()
        # The plan last: it vouches for the others.
        for name, content in {**made.files, **probes, PLAN_FILE: raw}.items():
            write_durably(folder / name, content, field=_FIELD)
        executor = self._executor(plan, found)
        literal = self._executor(plan, found, literal=True) if plan.precision == "Int8" else None
        measured = self._judge.measure_answers(lambda inputs: executor.run(inputs[0]).outputs, "validation")
        record, path = self._dense_file
        return PlanRecord(
            label=label,
            title=found.title,
            sha256=plan.sha256,
            size_bytes=len(raw),
            opset=record.opset,
            ir_version=record.ir_version,
            dense_bytes=self._plans.whole.dense_bytes,
            validation_accuracy=measured.accuracy,
            validation_classes=measured.classes,
            validation_score=measured.score,
            parity=compare_answers(self._dense_answers(path), _answers(executor, parity_samples(source)[0])),
            probe=self._probe(executor, literal, validation.images[:LARGEST_PROBE]),
        )

    def _dense_answers(self, path: Path) -> npt.NDArray[np.float32]:
        session = open_session(path, threads=self._maker._threads)
        (samples,) = parity_samples(self._maker._source)
        parts = (samples[start : start + 64] for start in range(0, len(samples), 64))
        return np.concatenate([session.run(None, {self._input_name: part})[0] for part in parts])

    @property
    def _input_name(self) -> str:
        return self._maker._source.data.input_names[0]

    def _probe(self, executor: SplitExecutor, literal: SplitExecutor | None, images: npt.NDArray[np.float32]) -> Probe:
        return make_split_probe(
            lambda samples: executor.run(samples).outputs,
            images,
            input_name=self._input_name,
            output_names=self._maker._source.output_names,
            literal=None if literal is None else lambda samples: literal.run(samples).outputs,
        )


def _answers(executor: SplitExecutor, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    parts = (samples[start : start + 64] for start in range(0, len(samples), 64))
    return np.concatenate([executor.run(part).outputs[0] for part in parts])
