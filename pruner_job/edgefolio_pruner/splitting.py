"""Planning of splits of a portfolio's dense model: made, measured, and compared with the models that fit one node.

Nothing is published. The models of one node are those that ``edgefolio make`` makes, kept in the same work directory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from edgefolio.errors import UserError
from edgefolio.specification import ModelPortfolio
from edgefolio_pruner.data.bundle import INPUT_NAME
from edgefolio_pruner.inputs import load_source, naming_the_model_file
from edgefolio_pruner.methods import METHODS, Workbench, asked_for, make_all
from edgefolio_pruner.pipeline import available_threads
from edgefolio_pruner.profiling.session import open_session
from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.scoring.judge import Judge
from edgefolio_pruner.spatial import count_macs, count_parameters
from edgefolio_pruner.split.channels.ownership import contiguous
from edgefolio_pruner.split.exchanges.dividing import divide
from edgefolio_pruner.split.planning import KEEPS, PlannedSplit, SplitPlanner
from edgefolio_pruner.split.result import Link, SingleNode, SplitReport, measured_split
from edgefolio_pruner.split.rows.plan import plan_rows
from edgefolio_pruner.stages.candidates import CandidateMaker, CandidateRecord
from edgefolio_pruner.stages.first_look import look_first
from edgefolio_pruner.stages.graph_cache import GraphCache
from edgefolio_pruner.stages.quantized_candidates import TwinMaker, quantization_of
from edgefolio_pruner.work.directory import WorkDirectory, default_work_directory, no_space_left
from edgefolio_split.executor import SplitExecutor

__all__ = ["plan_splits"]

_STAGE = "split"
_ROUNDS, _RUNS = 5, 6


@naming_the_model_file
def plan_splits(
    portfolio: ModelPortfolio,
    *,
    shares: Sequence[int],
    wire: Literal["Float32", "UInt8"],
    link: Link,
    most_loss_points: float,
    layout: Literal["Auto", "Rows", "Channels"] = "Auto",
    work_directory: Path | None = None,
    threads: int | None = None,
    keeps: Sequence[float] = KEEPS,
    progress: Progress = no_progress,
) -> SplitReport:
    """Make a plan by rows and one by channels for each of ``keeps``, as far as ``layout`` has them, and measure them.

    Further than ``most_loss_points`` below dense none pays.

    Raises :class:`~edgefolio.errors.UserError` for bad input and for models that cannot be divided so.
    """
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
        bench = Workbench(source=source, work=work, threads=threads, progress=progress)
        weights = make_all(methods, bench)
        captured = graphs.model.with_state(weights[0].load())
        calibration = source.data.calibration(portfolio.spec.data.calibration_samples, seed=source.seed)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            planner = SplitPlanner(
                captured,
                torch.from_numpy(calibration),
                shares=shares,
                seed=source.seed,
                progress=progress,
            )
            plans, without = _plans(planner, layout, wire=wire, keeps=keeps)
        finally:
            torch.set_num_threads(before)
        maker = CandidateMaker(source, graphs, work=work, threads=threads, batch=first.batch)
        candidates = maker.make(weights, progress=progress)
        quantization = quantization_of(portfolio)
        if quantization is not None:
            twins = TwinMaker(source, quantization, work=work, threads=threads)
            candidates = [*candidates, *twins.make(candidates, judge=maker.judge, progress=progress).made]
        progress(stage=_STAGE, fraction=0.9, message="measuring")
        executors = [plan.executor() for plan in plans]
        (sample,) = source.data.validation.inputs(0, 1)
        single_times, split_times = _times(candidates, executors, sample)
        singles = [
            SingleNode(
                name=record.name,
                accuracy_percent=record.validation_accuracy.percent,
                milliseconds=single_times[index],
            )
            for index, (record, _) in enumerate(candidates)
        ]
        splits = [
            measured_split(
                plan,
                accuracy_percent=_score(maker.judge, executor),
                compute_milliseconds=times,
                input_bytes=sample.nbytes,
                singles=singles,
                link=link,
                most_loss_points=most_loss_points,
            )
            for plan, executor, times in zip(plans, executors, split_times, strict=True)
        ]
    return SplitReport(
        shares=tuple(shares),
        wire=wire,
        link=link,
        dense_parameters=count_parameters(captured.graph_module),
        dense_macs=count_macs(captured),
        dense_bytes=planner.dense_bytes,
        singles=tuple(singles),
        splits=tuple(splits),
        samples=source.data.validation.samples,
        notes=(*first.notes, *without, *dict.fromkeys(note for plan in plans for note in plan.made.plan.notes)),
    )


def _plans(
    planner: SplitPlanner, layout: str, *, wire: Literal["Float32", "UInt8"], keeps: Sequence[float]
) -> tuple[list[PlannedSplit], tuple[str, ...]]:
    """The plans of a layout, and why there is none by rows."""
    plans: list[PlannedSplit] = []
    without: tuple[str, ...] = ()
    if layout != "Channels":
        try:
            plans.append(planner.by_rows())
        except UserError as error:
            if layout == "Rows":
                raise
            without = (f"no plan by rows: {error.problem}",)
    if layout != "Rows":
        plans += [planner.plan(keep, wire=wire) for keep in sorted(set(keeps), reverse=True)]
    return plans, without


def _times(
    candidates: Sequence[tuple[CandidateRecord, Path]],
    executors: Sequence[SplitExecutor],
    sample: npt.NDArray[np.float32],
) -> tuple[list[float], list[list[float]]]:
    """Median milliseconds of each candidate and of each worker of each split; all take turns on one thread."""
    sessions = [open_session(path, threads=1) for _, path in candidates]
    single: list[list[float]] = [[] for _ in sessions]
    workers: list[list[tuple[float, ...]]] = [[] for _ in executors]
    for _ in range(_ROUNDS):
        for session, found in zip(sessions, single, strict=True):
            session.run(None, {INPUT_NAME: sample})
            for _ in range(_RUNS):
                start = time.perf_counter()
                session.run(None, {INPUT_NAME: sample})
                found.append(1000 * (time.perf_counter() - start))
        for executor, taken in zip(executors, workers, strict=True):
            executor.run(sample)
            taken += [executor.run(sample).milliseconds for _ in range(_RUNS)]
    return (
        [statistics.median(found) for found in single],
        [[statistics.median(of) for of in zip(*taken, strict=True)] for taken in workers],
    )


def _score(judge: Judge, executor: SplitExecutor) -> float:
    """The score of a split on the validation samples, its wire included, in percent."""
    measured = judge.measure_answers(lambda inputs: executor.run(inputs[0]).outputs, "validation")
    return measured.accuracy.percent
