"""What a portfolio is understood as, before anything is trained: data, classes, network, what can be pruned."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgefolio.manifest import Accuracy
from edgefolio.specification import ModelPortfolio
from edgefolio_pruner.available_memory import available_memory, shown_bytes
from edgefolio_pruner.data import DataBundle
from edgefolio_pruner.export import flat_outputs
from edgefolio_pruner.inputs import MakingSource, load_source, naming_the_model_file
from edgefolio_pruner.methods import METHODS, Method, asked_for
from edgefolio_pruner.oneshot import LeastShare, least_share
from edgefolio_pruner.progress import Progress
from edgefolio_pruner.scoring.metrics import classes_of
from edgefolio_pruner.scoring.scoring import Tally
from edgefolio_pruner.spatial import ChannelGroup, channel_groups, count_macs
from edgefolio_pruner.stages.checks.first_look import look_first
from edgefolio_pruner.stages.checks.forecast import Forecast, forecast
from edgefolio_pruner.stages.graph_cache import GraphCache
from edgefolio_pruner.work.directory import WorkDirectory

_SCORED = 512
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Understanding:
    """The data, the network and what can be made of it.

    ``score`` is of given weights, on some samples of the validation part, ``other_score`` the same of a task that has
    no accuracy, in words. ``least`` is what the one-shot route reaches,
    where it is asked for. ``notes`` are what is to be told.
    """

    source: MakingSource
    parameters: int
    macs: int
    groups: tuple[ChannelGroup, ...]
    score: Accuracy | None
    other_score: str
    least: LeastShare | None
    forecast: Forecast
    free_bytes: int
    notes: tuple[str, ...]

    @property
    def data(self) -> DataBundle:
        """The data of the source."""
        return self.source.data


@naming_the_model_file
def understand(
    portfolio: ModelPortfolio,
    *,
    threads: int,
    progress: Progress,
    known_methods: Sequence[type[Method]] = METHODS,
) -> Understanding:
    """Read, build and rehearse ``portfolio`` without training or publishing anything.

    Raises :class:`~edgefolio.errors.UserError` for whatever a pruning run would refuse before its first epoch.
    """
    with tempfile.TemporaryDirectory(prefix="edgefolio-check-") as folder:
        work = WorkDirectory(Path(folder))
        source = load_source(portfolio, progress=progress, scratch=work.path)
        progress(stage="check", fraction=0.3, message="looking at the network")
        graphs = GraphCache(source)
        methods = asked_for(portfolio, known_methods)
        batches = portfolio.spec.profiling.batch_sizes
        with work.occupied():
            first = look_first(source, graphs, methods, work=work, batches=batches, threads=threads)
        progress(stage="check", fraction=0.8, message="predicting memory and time")
        predicted = forecast(portfolio, source, graphs.model, threads=threads)
        free = available_memory().free
        notes = list(first.notes)
        if predicted.peak_bytes > free:
            stage = max(predicted.memory_bytes, key=lambda name: predicted.memory_bytes[name])
            notes.append(
                f"{stage} may take {shown_bytes(predicted.peak_bytes)} of memory, and {shown_bytes(free)} are free: "
                "fewer samples and narrower sums will be taken where that helps"
            )
        module = source.build()
        found = Understanding(
            source=source,
            parameters=sum(tensor.numel() for tensor in module.parameters()),
            macs=count_macs(module.eval(), tuple(source.data.input_shapes.values())),
            groups=tuple(channel_groups(graphs.model)),
            score=_score(source),
            other_score=_other_score(source),
            least=least_share(graphs.model) if portfolio.spec.methods.one_shot is not None else None,
            forecast=predicted,
            free_bytes=free,
            notes=tuple(notes),
        )
    progress(stage="check", fraction=1.0, message="done")
    return found


def first_of_each_class(data: DataBundle, *, most: int) -> dict[int, np.ndarray[Any, Any]]:
    """A training sample of each class ``[C, H, W]``, values 0..1 as before normalization; by the class's number."""
    shape = (-1, *(1 for _ in data.sample_shape[1:]))
    given = data.preprocessing
    mean, deviation = (np.reshape(values, shape) for values in (given.mean or (0.0,), given.std or (1.0,)))
    found: dict[int, np.ndarray[Any, Any]] = {}
    if data.task != "Classification" or not data.has_labels:
        return found
    classes, places = np.unique(data.train.labels, return_index=True)
    for number, place in list(zip(classes.tolist(), places.tolist(), strict=True))[:most]:
        values = data.train.images[np.array([place])][0] * deviation + mean
        low, high = float(values.min()), float(values.max())
        # Floating samples have no range of their own.
        inside = low >= -1e-3 and high <= 1 + 1e-3
        found[number] = np.clip(values if inside else (values - low) / max(high - low, 1e-9), 0, 1)
    return found


def _classifies(source: MakingSource) -> bool:
    return source.data.task == "Classification" and source.data.has_labels


def _score(source: MakingSource) -> Accuracy | None:
    if source.initial_state is None or not _classifies(source):
        return None
    correct = samples = 0
    for outputs, labels in _answers(source):
        correct += int((classes_of(outputs[0]) == labels).sum())
        samples += len(labels)
    return Accuracy.from_counts(correct=correct, samples=samples)


def _other_score(source: MakingSource) -> str:
    """The score of given weights in words, where the task has no accuracy."""
    scoring = source.scoring
    if source.initial_state is None or _classifies(source):
        return ""
    if not (scoring.needs_labels and source.data.has_labels):
        return "given; variants are compared with them, not with labels"
    tally, samples = Tally(scoring), 0
    for outputs, targets in _answers(source):
        tally.add(outputs, targets)
        samples += len(targets)
    value = tally.result().score.value
    shown = f"{value:.4g}" if scoring.in_percent_of_dense else f"{100 * value:.1f} %"
    return f"given; {scoring.title} {shown} on {samples} validation samples"


def _answers(source: MakingSource) -> Iterator[tuple[tuple[np.ndarray[Any, Any], ...], np.ndarray[Any, Any]]]:
    """Outputs and targets of some validation samples, batch by batch."""
    assert source.initial_state is not None
    module, part = source.build_with(source.initial_state), source.data.validation
    samples = min(_SCORED, part.samples)
    with torch.inference_mode():
        for start in range(0, samples, _BATCH):
            stop = min(start + _BATCH, samples)
            found = flat_outputs(module(*(torch.from_numpy(array) for array in part.inputs(start, stop))))
            yield tuple(output.numpy() for output in found), part.labels[start:stop]
