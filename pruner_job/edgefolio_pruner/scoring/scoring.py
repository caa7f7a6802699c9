"""Scoring of a portfolio: its task and metric, as far as model and data decide them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from edgefolio.errors import UserError
from edgefolio.manifest import Accuracy, ScoreDescription
from edgefolio.specification import DataSpecification
from edgefolio.specification.metric import METRICS, Metric, MetricName, Task
from edgefolio_pruner.scoring import metrics
from edgefolio_pruner.scoring.agreement import ExplainedVariance, SameAnswers
from edgefolio_pruner.scoring.factory import OwnMetric
from edgefolio_pruner.scoring.metrics import GROUPS, Array
from edgefolio_pruner.scoring.score import Score, jackknife

_TOP_K = 5


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How variants are compared. ``threshold`` is where one output says yes: 0 of logits, 0.5 of probabilities."""

    task: Task = "Classification"
    asked: Metric | None = None
    classes: int = 0
    threshold: float = 0.0

    @property
    def name(self) -> MetricName | None:
        """The metric by name; ``None`` of the user's own."""
        if self.asked is None:
            return METRICS[self.task][0]
        return self.asked.name

    @property
    def is_default(self) -> bool:
        """Whether this is what every portfolio had before there were others."""
        return self.task == "Classification" and self.name == "Top1"

    @property
    def needs_labels(self) -> bool:
        """Whether labels are needed at all."""
        return self.name != "Agreement"

    @property
    def in_percent_of_dense(self) -> bool:
        """Whether the score is in a unit of its own, and compared in percent of the dense model's."""
        return self.name in ("MAE", "RMSE", None)

    @property
    def needs_dense(self) -> bool:
        """Whether a variant's score can only be told beside the dense model."""
        return self.in_percent_of_dense or not self.needs_labels

    @property
    def higher_is_better(self) -> bool:
        """The direction of the metric's own unit."""
        if self.own is not None:
            return self.own.higher_is_better
        return self.name not in ("MAE", "RMSE")

    @cached_property
    def own(self) -> OwnMetric | None:
        """The user's own metric. Raises :class:`UserError` if there is no such callable."""
        if self.asked is None or self.asked.factory is None:
            return None
        return OwnMetric(self.asked.factory, higher_is_better=self.asked.direction == "Higher")

    @property
    def key(self) -> dict[str, Any]:
        """What scores depend on, the code of the user's own metric too."""
        return {
            "task": self.task,
            "metric": None if self.asked is None else self.asked.model_dump(mode="json"),
            "classes": self.classes,
            "threshold": self.threshold,
            **({} if self.own is None else {"code": self.own.code_sha256}),
        }

    @property
    def field(self) -> str:
        """The field that names the metric."""
        return "spec.data.metric" if self.own is None else "spec.data.metric.factory"

    @property
    def title(self) -> str:
        """The metric as it is called in a sentence."""
        if self.asked is not None and self.asked.factory is not None:
            return self.asked.factory
        return self.metric(dense=None).title

    def metric(self, *, dense: Array | None) -> metrics.Metric:
        """The metric by name; ``dense`` are the dense model's first outputs, where it is compared with them."""
        found: dict[str, Callable[[], metrics.Metric]] = {
            "Top1": lambda: metrics.TopK(1),
            "TopK": lambda: metrics.TopK(self._k),
            "BalancedAccuracy": lambda: metrics.BalancedAccuracy(self.classes),
            "F1": lambda: metrics.F1(self.classes, threshold=self.threshold if self.task == "MultiLabel" else None),
            "MAE": metrics.AbsoluteError,
            "RMSE": metrics.RootMeanSquareError,
            "MeanIoU": lambda: metrics.MeanIoU(self.classes, threshold=self.threshold),
            "Agreement": lambda: self._agreement(dense),
        }
        if self.task == "Segmentation" and self.name == "Top1":
            return metrics.PixelAccuracy(threshold=self.threshold)
        assert self.name is not None
        return found[self.name]()

    def description(self) -> ScoreDescription | None:
        """What the manifest says; nothing of plain accuracy, whose manifests stay as they were."""
        if self.is_default:
            return None
        own = self.asked is not None and self.asked.factory is not None
        word = self.title if own else self.metric(dense=None).word
        return ScoreDescription(
            task=self.task,
            metric=self.title,
            word=word[:40],
            better="Higher" if self.higher_is_better else "Lower",
            unit="PercentOfDense" if self.in_percent_of_dense else "Percent",
        )

    @property
    def _k(self) -> int:
        return (self.asked.k if self.asked is not None else None) or _TOP_K

    def _agreement(self, dense: Array | None) -> metrics.Metric:
        if self.task in ("Regression", "Custom"):
            return ExplainedVariance(np.zeros(1) if dense is None else dense.mean(axis=0, dtype=np.float64))
        return SameAnswers(self.task, threshold=self.threshold)


@dataclass(frozen=True, kw_only=True)
class Tallied:
    """A score; ``accuracy`` is it in percent, where it is a share."""

    score: Score
    accuracy: Accuracy | None


class Tally:
    """Score of one model over batches."""

    def __init__(self, scoring: Scoring, *, dense: Array | None = None) -> None:
        self._scoring = scoring
        self._metric = None if scoring.own is not None else scoring.metric(dense=dense)
        self._sums = np.zeros((GROUPS, 0 if self._metric is None else self._metric.sums))
        self._samples = np.zeros(GROUPS, dtype=np.int64)
        self._kept: list[tuple[tuple[Array, ...], Array]] = []
        self._seen = 0

    def add(self, outputs: Sequence[Array], targets: Array) -> None:
        """Take one batch into account."""
        groups = (self._seen + np.arange(len(targets))) % GROUPS
        self._seen += len(targets)
        self._samples += np.bincount(groups, minlength=GROUPS)
        if self._metric is None:
            self._kept.append((tuple(outputs), targets))
        else:
            self._metric.add(self._sums, groups, outputs, targets)

    def result(self) -> Tallied:
        """The score of all batches. Raises :class:`UserError` if the user's own metric fails."""
        if self._metric is None:
            own = self._scoring.own
            assert own is not None
            outputs = [np.concatenate(parts) for parts in zip(*(kept for kept, _ in self._kept), strict=True)]
            targets = np.concatenate([part for _, part in self._kept])
            return Tallied(score=own.score(outputs, targets, samples=self._seen), accuracy=None)
        total = self._sums.sum(axis=0)
        value = self._metric.value(total, self._seen)
        if self._metric.counts_samples:
            exact = Accuracy.from_counts(correct=round(float(total[0])), samples=self._seen)
            score = Score(value=value, low=exact.low_percent / 100, high=exact.high_percent / 100)
            return Tallied(score=score, accuracy=exact)
        without = [
            self._metric.value(total - sums, self._seen - int(count))
            for sums, count in zip(self._sums, self._samples, strict=True)
            if 0 < count < self._seen
        ]
        return Tallied(score=jackknife(value, without), accuracy=None)


def scoring_of(data: DataSpecification, *, classes: int, threshold: float = 0.0) -> Scoring:
    """The scoring that ``data`` asks for. Raises :class:`UserError` for a factory that is not there."""
    scoring = Scoring(task=data.task, asked=data.metric, classes=classes, threshold=threshold)
    own = scoring.own
    assert own is None or scoring.name is None
    return scoring


def require_k(scoring: Scoring, outputs: int) -> None:
    """Raise :class:`UserError` if all outputs are among the largest k."""
    if scoring.name == "TopK" and scoring._k >= outputs:
        raise UserError(
            f"the network has {outputs} outputs, so every answer would be right.",
            field="spec.data.metric.k",
            value=scoring._k,
            remedy=f"Give a number below {outputs}.",
        )
