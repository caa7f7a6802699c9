"""Metrics by sums over samples, so that a part of the data never has to be in memory at once.

Each adds what it needs of a batch to the sums of groups of samples, and computes its value from sums alone. The groups
give its 95 % interval (jackknife: the value without each of them).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

#: Groups of the jackknife; sample n is in group n modulo this.
GROUPS = 20
#: What a manifest can hold; an error that is no number is this large.
LARGEST = 1e30

Array = npt.NDArray[Any]
Sums = npt.NDArray[np.float64]


class Metric(ABC):
    """One metric: ``sums`` numbers for each group of samples, and the value that they make."""

    title: ClassVar[str]
    """As it is called in a sentence."""
    word: ClassVar[str]
    """As it is called in a heading."""
    higher_is_better: ClassVar[bool] = True
    is_share: ClassVar[bool] = True
    """Whether the value is a share of something, 0 to 1; else it is in a unit of its own."""
    counts_samples: ClassVar[bool] = False
    """Whether the value is a share of samples, each right or wrong (then the interval is Wilson's)."""

    @property
    @abstractmethod
    def sums(self) -> int:
        """The number of sums."""

    @abstractmethod
    def add(self, sums: Sums, groups: Array, outputs: Sequence[Array], targets: Array) -> None:
        """Add one batch to ``sums`` [groups, :attr:`sums`]; ``groups`` holds the group of each sample."""

    @abstractmethod
    def value(self, sums: Sums, samples: int) -> float:
        """The value for ``samples`` samples whose sums are ``sums`` [:attr:`sums`]."""


def classes_of(logits: Array) -> Array:
    """The largest output of each sample along axis 1; -1 where one is no number."""
    found = np.argmax(logits, axis=1)
    return np.where(np.isfinite(logits).all(axis=1), found, -1)


def add_at(sums: Sums, groups: Array, columns: Any, values: Array | int) -> None:
    """Add ``values`` to the sums of each sample's group in ``columns``, one for all or one for each."""
    places: Any = (groups, columns)
    np.add.at(sums, places, values)


class _OfSamples(Metric):
    """The mean of one number for each sample."""

    @property
    def sums(self) -> int:
        return 1

    def add(self, sums: Sums, groups: Array, outputs: Sequence[Array], targets: Array) -> None:
        add_at(sums, groups, 0, self.of_samples(outputs[0], targets))

    def value(self, sums: Sums, samples: int) -> float:
        return float(sums[0]) / samples

    @abstractmethod
    def of_samples(self, output: Array, targets: Array) -> Array:
        """The number of each sample."""


class TopK(_OfSamples):
    """Share of samples whose label is among the ``k`` largest outputs."""

    counts_samples = True

    def __init__(self, k: int) -> None:
        self._k = k
        self.title = "top-1 accuracy" if k == 1 else f"top-{k} accuracy"  # type: ignore[misc]
        self.word = "accuracy" if k == 1 else f"top-{k}"  # type: ignore[misc]

    def of_samples(self, output: Array, targets: Array) -> Array:
        """1 for a sample that is right."""
        if self._k == 1:
            return np.asarray(classes_of(output) == targets)
        own = np.take_along_axis(output, targets[:, None], axis=1)
        # Of equal outputs the first counts, as for the largest.
        before = (output > own).sum(axis=1) + ((output == own) & (np.arange(output.shape[1]) < targets[:, None])).sum(
            axis=1
        )
        return np.asarray((before < self._k) & np.isfinite(output).all(axis=1))


class AbsoluteError(_OfSamples):
    """Mean absolute error."""

    title, word = "mean absolute error", "MAE"
    higher_is_better, is_share = False, False

    def of_samples(self, output: Array, targets: Array) -> Array:
        """The mean over the numbers of a sample."""
        found = np.abs(_differences(output, targets)).mean(axis=1)
        return _bounded(found)


class RootMeanSquareError(_OfSamples):
    """Root of the mean squared error."""

    title, word = "root mean squared error", "RMSE"
    higher_is_better, is_share = False, False

    def of_samples(self, output: Array, targets: Array) -> Array:
        """The mean square over the numbers of a sample."""
        found = np.square(_differences(output, targets)).mean(axis=1)
        return _bounded(found)

    def value(self, sums: Sums, samples: int) -> float:
        """The root of the mean."""
        return math.sqrt(max(0.0, float(sums[0]) / samples))


class BalancedAccuracy(Metric):
    """Mean recall of the classes that have samples."""

    title, word = "balanced accuracy", "balanced"

    def __init__(self, classes: int) -> None:
        self._classes = classes

    @property
    def sums(self) -> int:
        """Samples that are right and samples, by class."""
        return 2 * self._classes

    def add(self, sums: Sums, groups: Array, outputs: Sequence[Array], targets: Array) -> None:
        """Count by class."""
        add_at(sums, groups, targets, classes_of(outputs[0]) == targets)
        add_at(sums, groups, self._classes + targets, 1)

    def value(self, sums: Sums, samples: int) -> float:
        """The mean of the recalls."""
        del samples
        right, all_ = sums[: self._classes], sums[self._classes :]
        return _mean_ratio(right, all_)


class F1(Metric):
    """Mean F1 of classes or labels: those that neither occur nor are answered are left out."""

    title, word = "mean F1 of the classes", "F1"

    def __init__(self, classes: int, *, threshold: float | None) -> None:
        """``threshold`` is where an output says yes, of labels that do not exclude each other; else ``None``."""
        self._classes, self._threshold = classes, threshold

    @property
    def sums(self) -> int:
        """Both, answered and true, by class."""
        return 3 * self._classes

    def add(self, sums: Sums, groups: Array, outputs: Sequence[Array], targets: Array) -> None:
        """Count by class."""
        if self._threshold is None:
            answers = classes_of(outputs[0])
            right = answers == targets
            known = (answers >= 0) & (answers < self._classes)
            add_at(sums, groups, targets, right)
            add_at(sums, groups[known], self._classes + answers[known], np.ones(int(known.sum())))
            add_at(sums, groups, 2 * self._classes + targets, 1)
            return
        yes = outputs[0] > self._threshold
        true = targets > 0
        np.add.at(sums, groups, np.concatenate([yes & true, yes, true], axis=1).astype(np.float64))

    def value(self, sums: Sums, samples: int) -> float:
        """The mean over the classes."""
        del samples
        both, answered, true = np.split(sums, 3)
        return _mean_ratio(2 * both, answered + true)


class MeanIoU(Metric):
    """Mean over the classes of intersection over union of their pixels."""

    title, word = "mean intersection over union", "mIoU"

    def __init__(self, classes: int, *, threshold: float) -> None:
        self._classes, self._threshold = classes, threshold

    @property
    def sums(self) -> int:
        """Intersection and union, by class."""
        return 2 * self._classes

    def add(self, sums: Sums, groups: Array, outputs: Sequence[Array], targets: Array) -> None:
        """Count pixels by class."""
        answers = pixel_classes(outputs[0], self._threshold)
        for group, answer, target in zip(groups, answers, targets, strict=True):
            counted = target >= 0
            answer, target = answer[counted], target[counted]
            both = np.bincount(target[answer == target], minlength=self._classes)
            known = answer[(answer >= 0) & (answer < self._classes)]
            either = np.bincount(known, minlength=self._classes) + np.bincount(target, minlength=self._classes) - both
            sums[group] += np.concatenate([both, either])

    def value(self, sums: Sums, samples: int) -> float:
        """The mean over the classes."""
        del samples
        return _mean_ratio(*np.split(sums, 2))


class PixelAccuracy(Metric):
    """Share of pixels whose class is right."""

    title, word = "share of pixels that are right", "pixels"

    def __init__(self, *, threshold: float) -> None:
        self._threshold = threshold

    @property
    def sums(self) -> int:
        """Right and counted."""
        return 2

    def add(self, sums: Sums, groups: Array, outputs: Sequence[Array], targets: Array) -> None:
        """Count pixels."""
        counted = targets >= 0
        right = (pixel_classes(outputs[0], self._threshold) == targets) & counted
        add_at(sums, groups, 0, right.reshape(len(right), -1).sum(axis=1))
        add_at(sums, groups, 1, counted.reshape(len(counted), -1).sum(axis=1))

    def value(self, sums: Sums, samples: int) -> float:
        """The share."""
        del samples
        return float(sums[0]) / float(sums[1]) if sums[1] else 0.0


def pixel_classes(output: Array, threshold: float) -> Array:
    """The class of each pixel [N, H, W]; one map [N, 1, H, W] tells two classes apart. -1 where it is no number."""
    if output.shape[1] > 1:
        return classes_of(output)
    return np.where(np.isfinite(output[:, 0]), output[:, 0] > threshold, -1).astype(np.int64)


def _differences(output: Array, targets: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        found: Array = output.reshape(len(output), -1).astype(np.float64) - targets.reshape(len(targets), -1)
    return found


def _bounded(errors: Array) -> Array:
    found: Array = np.where(np.isfinite(errors), np.minimum(errors, LARGEST), LARGEST)
    return found


def _mean_ratio(parts: Array, wholes: Array) -> float:
    known = wholes > 0
    return float((parts[known] / wholes[known]).mean()) if known.any() else 0.0
