"""Agreement with the dense model: how alike the answers of a variant are to its answers. It needs no labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgefolio.specification.metric import Task
from edgefolio_pruner.scoring.metrics import Array, Metric, Sums, add_at, classes_of, pixel_classes


class SameAnswers(Metric):
    """Share of answers that are the same: samples of a classifier, labels, or pixels."""

    def __init__(self, task: Task, *, threshold: float) -> None:
        self._task, self._threshold = task, threshold
        self.counts_samples = task == "Classification"  # type: ignore[misc]
        self.title, self.word = "agreement with the dense model", "agreement"  # type: ignore[misc]

    @property
    def sums(self) -> int:
        """The mean share of each sample."""
        return 1

    def add(self, sums: Sums, groups: Array, outputs: Sequence[Array], targets: Array) -> None:
        """Compare the first outputs; ``targets`` is the dense model's."""
        same = self._answers(outputs[0]) == self._answers(targets)
        add_at(sums, groups, 0, same.reshape(len(same), -1).mean(axis=1))

    def value(self, sums: Sums, samples: int) -> float:
        """The mean over the samples."""
        return float(sums[0]) / samples

    def _answers(self, output: Array) -> Array:
        if self._task == "Classification":
            return classes_of(output)
        if self._task == "Segmentation":
            return pixel_classes(output, self._threshold)
        return np.asarray(output > self._threshold)


class ExplainedVariance(Metric):
    """Share of the variance of the dense model's numbers that a variant's explain; below 0 it is 0."""

    title, word = "share of the dense model's variance that is explained", "agreement"

    def __init__(self, mean: Array) -> None:
        """``mean`` is the dense model's mean output."""
        self._mean = mean.astype(np.float64)

    @property
    def sums(self) -> int:
        """Squared difference, and squared deviation from the mean."""
        return 2

    def add(self, sums: Sums, groups: Array, outputs: Sequence[Array], targets: Array) -> None:
        """Compare the first outputs; ``targets`` is the dense model's."""
        wanted = targets.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            lost = np.square(outputs[0].astype(np.float64) - wanted).reshape(len(wanted), -1).sum(axis=1)
        held = np.square(wanted - self._mean).reshape(len(wanted), -1).sum(axis=1)
        add_at(sums, groups, 0, np.where(np.isfinite(lost), lost, np.inf))
        add_at(sums, groups, 1, held)

    def value(self, sums: Sums, samples: int) -> float:
        """The share."""
        del samples
        if not np.isfinite(sums[0]):
            return 0.0
        return max(0.0, 1 - float(sums[0]) / float(sums[1])) if sums[1] > 0 else float(sums[0] == 0)
