"""Planning of splits of a portfolio's dense model: made, measured, and compared with the models that fit one node.

Nothing is published. The models of one node are those that ``edgefolio make`` makes, kept in the same work directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from edgefolio.errors import UserError
from edgefolio.specification import ModelPortfolio
from edgefolio_pruner.inputs import load_source, naming_the_model_file
from edgefolio_pruner.methods import METHODS, Workbench, asked_for, make_all
from edgefolio_pruner.pipeline import available_threads
from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.quantization import Refusal
from edgefolio_pruner.scoring.judge import Judge
from edgefolio_pruner.spatial import count_macs, count_parameters
from edgefolio_pruner.split.channels.ownership import contiguous
from edgefolio_pruner.split.exchanges.dividing import divide
from edgefolio_pruner.split.plan_making import PlanMaker
from edgefolio_pruner.split.planned import PlannedSplit
from edgefolio_pruner.split.result import (
    MeasuredSplit,
    Question,
    SingleNode,
    SplitReport,
    compared_plan,
    unbeaten,
)
from edgefolio_pruner.split.rows.plan import plan_rows
from edgefolio_pruner.stages.candidates import CandidateMaker
from edgefolio_pruner.stages.checks.first_look import look_first
from edgefolio_pruner.stages.graph_cache import GraphCache
from edgefolio_pruner.stages.quantized_candidates import TwinMaker, quantization_of
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
from edgefolio_pruner.stages.splits.times import measured_times
from edgefolio_pruner.work.directory import WorkDirectory, default_work_directory, no_space_left

__all__ = ["plan_entry", "plan_splits"]

_STAGE = "split"


def plan_entry(
    portfolio: ModelPortfolio,
    position: int,
    *,
    work_directory: Path | None = None,
    progress: Progress = no_progress,
) -> SplitReport:
    """The plans of one entry of ``methods.split``, as :func:`plan_splits`; errors name its fields."""
    asked = question_of(portfolio.spec.methods.split[position])
    with of_entry(position):
        return plan_splits(portfolio, asked, work_directory=work_directory, progress=progress)


@naming_the_model_file
def plan_splits(
    portfolio: ModelPortfolio,
    asked: Question,
    *,
    work_directory: Path | None = None,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> SplitReport:
    """Search for plans over the link, make at most six and measure them; the report has those that no other beats.

    Raises :class:`~edgefolio.errors.UserError` for bad input and for models that cannot be divided so.
    """
    shares, layout = asked.shares, asked.layout
    work = WorkDirectory(work_directory if work_directory is not None else default_work_directory(portfolio))
    source = load_source(portfolio, progress=progress, scratch=work.path)
    assert portfolio.spec.data is not None
    if portfolio.spec.data.inputs is not None:
        raise UserError(
            "a network of several inputs is not divided.",
            field="spec.data.inputs",
            value=", ".join(portfolio.spec.data.inputs),
            remedy="Serve it whole.",
        )
    with work.occupied(), no_space_left(work.path):
        threads = threads if threads is not None else available_threads()
        graphs = GraphCache(source)
        methods = asked_for(portfolio, METHODS)
        batches = portfolio.spec.profiling.batch_sizes
        first = look_first(source, graphs, methods, work=work, batches=batches, threads=threads)
        # Before anything is trained: a model that cannot be divided so is refused here.
        contiguous(divide(graphs.model), shares)
        if layout == "Rows":
            plan_rows(graphs.model, shares)
        quantizer = None if asked.precision == "Float32" else SplitQuantizer.of(portfolio, source, threads=threads)
        bench = Workbench(source=source, work=work, threads=threads, progress=progress)
        weights = make_all(methods, bench)
        captured = graphs.model.with_state(weights[0].load())
        calibration = source.data.calibration(portfolio.spec.data.calibration_samples, seed=source.seed)
        count = portfolio.spec.data.calibration_samples
        key = {**source.record, **search_key(asked, state=weights[0].digest, calibration=count, threads=threads)}
        with threads_of_torch(threads):
            maker_of_plans = PlanMaker(
                captured,
                torch.from_numpy(calibration),
                shares=shares,
                seed=source.seed,
                tuning=tuning_of(asked, source.data.train),
                progress=progress,
            )
            found = searched_of(
                work.result("split-search", key, lambda: search_document(maker_of_plans, captured, asked))
            )
            plans = [maker_of_plans.made(spec, wire=asked.wire) for spec in found.specs]
        maker = CandidateMaker(source, graphs, work=work, threads=threads, batch=first.batch)
        candidates = maker.make(weights, progress=progress)
        quantization = quantization_of(portfolio)
        if quantization is not None:
            twins = TwinMaker(source, quantization, work=work, threads=threads)
            candidates = [*candidates, *twins.make(candidates, judge=maker.judge, progress=progress).made]
        refused: list[str] = []
        if quantizer is not None:
            plans, refused = _quantized(plans, quantizer, maker_of_plans, judge=maker.judge, progress=progress)
        progress(stage=_STAGE, fraction=0.9, message="measuring")
        executors = [plan.executor() for plan in plans]
        (sample,) = source.data.validation.inputs(0, 1)
        single_times, split_times = measured_times([path for _, path in candidates], executors, sample)
        singles = [
            SingleNode(
                name=record.name,
                accuracy_percent=record.validation_accuracy.percent,
                milliseconds=single_times[index],
            )
            for index, (record, _) in enumerate(candidates)
        ]
        splits = [
            MeasuredSplit.of(
                plan,
                compared_plan(
                    plan.made.plan,
                    title=plan.title,
                    accuracy_percent=accuracy_of(executor, maker.judge),
                    compute_milliseconds=times,
                    input_bytes=sample.nbytes,
                    singles=singles,
                    link=asked.link,
                    most_loss_points=asked.most_loss_points,
                ),
            )
            for plan, executor, times in zip(plans, executors, split_times, strict=True)
        ]
    return SplitReport(
        shares=shares,
        wire=asked.wire,
        precision=asked.precision,
        link=asked.link,
        dense_parameters=count_parameters(captured.graph_module),
        dense_macs=count_macs(captured),
        dense_bytes=maker_of_plans.whole.dense_bytes,
        singles=tuple(singles),
        splits=tuple(unbeaten(splits)),
        samples=source.data.validation.samples,
        notes=(
            *first.notes,
            *found.notes,
            *refused,
            *_beaten(splits),
            *dict.fromkeys(note for plan in plans for note in plan.made.plan.notes),
        ),
    )


def _beaten(splits: Sequence[MeasuredSplit]) -> list[str]:
    left = len(splits) - len(unbeaten(splits))
    return [f"{left} of {len(splits)} plans are beaten by others in accuracy, time and weights"] if left else []


def _quantized(
    plans: Sequence[PlannedSplit], quantizer: SplitQuantizer, maker: PlanMaker, *, judge: Judge, progress: Progress
) -> tuple[list[PlannedSplit], list[str]]:
    """The plans with quantized shards, and why others have none."""
    made: list[PlannedSplit] = []
    refused: list[str] = []
    for plan in plans:
        progress(stage=_STAGE, fraction=0.85, message=f"quantizing {plan.title}")
        found = quantizer.quantized(plan, maker, name="split", judge=judge)
        if isinstance(found, Refusal):
            refused.append(f"{plan.title} has no int8 form: {found.reason}")
        else:
            made.append(found.plan)
    return made, refused
