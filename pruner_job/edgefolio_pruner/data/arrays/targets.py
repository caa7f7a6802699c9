"""Targets of a task from what a file holds: class numbers, names, one-hot rows, labels, numbers or masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgefolio.errors import UserError
from edgefolio.specification.metric import Task
from edgefolio_pruner.data.raw import MOST_CLASSES

#: A pixel that does not count.
IGNORED = -1
_MOST_MASK_CLASSES = 32_000
#: Numbers that people mark ignored pixels with; 255 where masks are bytes.
_IGNORED_VALUES = (-1, -100)

Array = npt.NDArray[Any]
Names = tuple[str, ...] | None


class WrongTargetsError(Exception):
    """Targets that are not what a task takes: a clause, and the remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


def targets_of(array: Array, task: Task, *, key: str, field: str, value: str) -> tuple[Array, Names]:
    """``array`` as the targets of ``task``, and the names of the classes where it holds names.

    Raises :class:`UserError` for ``field``.
    """
    try:
        return _FORMS[task](array)
    except WrongTargetsError as error:
        shape = "x".join(str(size) for size in array.shape)
        raise UserError(
            f"{key} is {array.dtype} [{shape}], {error.problem}.", field=field, value=value, remedy=error.remedy
        ) from error


def classes_in(targets: Array, task: Task) -> int:
    """The number of classes that numbered targets have; 0 of numbers."""
    if task == "Classification" or task == "Segmentation":
        return int(targets.max(initial=-1)) + 1
    return int(targets.shape[1]) if task == "MultiLabel" else 0


def _classification(array: Array) -> tuple[Array, Names]:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind in "US" and array.ndim == 1:
        text = np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array
        names, numbers = np.unique(text, return_inverse=True)
        return numbers.astype(np.int64), tuple(str(name) for name in names)
    if array.ndim == 1 and array.dtype.kind in "iub":
        return _numbers(array), None
    if array.ndim == 2 and array.dtype.kind in "iubf" and array.shape[1] > 1:
        ones = array == 1
        if bool(((array == 0) | ones).all()):
            if bool((ones.sum(axis=1) == 1).all()):
                return ones.argmax(axis=1).astype(np.int64), None
            raise WrongTargetsError("with several labels for a sample, or none", "Set data.task: MultiLabel.")
        raise WrongTargetsError("not one class per sample", "Give class numbers, or set data.task: Regression.")
    if array.ndim == 1 and array.dtype.kind == "f":
        raise WrongTargetsError(
            "not one integer per sample",
            "Give class numbers as integers, or set data.task: Regression (one label of 0 or 1: MultiLabel).",
        )
    if array.ndim in (3, 4) and array.dtype.kind in "iub":
        raise WrongTargetsError("not one integer per sample", "Masks of pixels are of data.task: Segmentation.")
    raise WrongTargetsError("not one integer per sample", "Give the number, or the name, of the class of each sample.")


def _numbers(array: Array) -> Array:
    if array.size and int(array.max()) >= MOST_CLASSES:
        raise WrongTargetsError(f"a label is {int(array.max())}", f"Number the classes from 0; at most {MOST_CLASSES}.")
    return array.astype(np.int64)


def _multi_label(array: Array) -> tuple[Array, Names]:
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "iubf" or array.shape[1] == 0 or array.shape[1] > MOST_CLASSES:
        raise WrongTargetsError("not one row of labels per sample", "Give 0 or 1 for each label, [N, labels].")
    if not bool(((array == 0) | (array == 1)).all()):
        raise WrongTargetsError("with values that are neither 0 nor 1", "Give 0 or 1 for each label, [N, labels].")
    return array.astype(np.uint8), None


def _regression(array: Array) -> tuple[Array, Names]:
    if array.ndim == 0 or array.dtype.kind not in "iuf" or 0 in array.shape[1:]:
        raise WrongTargetsError("not numbers", "Give one number, or an array of numbers, per sample.")
    return _finite(array.astype(np.float32)), None


def _segmentation(array: Array) -> tuple[Array, Names]:
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    if array.ndim != 3 or array.dtype.kind not in "iub":
        raise WrongTargetsError("not one mask per sample", "Give the class of each pixel as integers, [N, H, W].")
    ignored = np.isin(array, [255, *_IGNORED_VALUES] if array.dtype == np.uint8 else _IGNORED_VALUES)
    found = np.where(ignored, IGNORED, array.astype(np.int64))
    low, high = int(found.min(initial=0)), int(found.max(initial=0))
    if low < IGNORED or high > _MOST_MASK_CLASSES:
        raise WrongTargetsError(
            f"with the class {low if low < IGNORED else high}",
            "Number the classes from 0, and mark pixels that do not count with 255 (uint8) or -1.",
        )
    if found.size and not (found >= 0).any():
        raise WrongTargetsError("with no pixel that counts", "Give masks with classes from 0 on.")
    return found.astype(np.int16), None


def _custom(array: Array) -> tuple[Array, Names]:
    if array.ndim == 0 or array.dtype.kind not in "iufb":
        raise WrongTargetsError("not numbers", "Give numbers with the samples on axis 0; the metric is given them.")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)  # torch has no larger unsigned types
    return (_finite(array.astype(np.float32)) if array.dtype.kind == "f" else array), None


def _finite(array: Array) -> Array:
    if not bool(np.isfinite(array).all()):
        raise WrongTargetsError("with values that are not finite", "Clean the data: every target must be a number.")
    return array


_FORMS = {
    "Classification": _classification,
    "MultiLabel": _multi_label,
    "Regression": _regression,
    "Segmentation": _segmentation,
    "Custom": _custom,
}
