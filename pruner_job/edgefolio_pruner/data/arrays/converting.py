"""Data from arrays: what readers of files, tables and data sets found, as samples and targets of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefolio.errors import UserError
from edgefolio.specification.metric import Task
from edgefolio_pruner.data.arrays.targets import classes_in, targets_of
from edgefolio_pruner.data.pictures import PictureSize
from edgefolio_pruner.data.raw import RawData, RawSplit
from edgefolio_pruner.data.stored import AnySamples, StoredSamples

_CHANNELS = (1, 3, 4)
_SCALES: dict[np.dtype[Any], float] = {np.dtype(np.uint8): 1 / 255, np.dtype(np.uint16): 1 / 65535}

Array = npt.NDArray[Any]
Way = Callable[[Array], Array]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a reader.

    ``needed`` is the part that must be there (or the training part), ``fits`` tells whether the network takes samples
    of a shape. ``image_size`` is what pictures are brought to, ``model_size`` where they differ in size; many are kept
    in a file in ``scratch``. ``class_names`` are all classes where the user gives them, ``inputs`` the names of the
    arrays that a network of several inputs is fed with.
    """

    uri: str
    needed: str
    field: str
    task: Task = "Classification"
    needs_labels: bool = True
    fits: Callable[[tuple[int, ...]], bool] | None = None
    class_names: tuple[str, ...] = ()
    image_size: PictureSize | None = None
    model_size: PictureSize | None = None
    scratch: Path | None = None
    inputs: tuple[str, ...] = ()

    def bad(self, problem: str, remedy: str) -> UserError:
        """The error of data that cannot be used."""
        return UserError(problem, field=self.field, value=self.uri, remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Samples of one part and their targets, if there are any, with what they are called in errors.

    ``others`` are further inputs by their name there.
    """

    samples: AnySamples
    targets: Array | None
    samples_name: str
    targets_name: str = ""
    others: Mapping[str, AnySamples] = field(default_factory=dict)


def assembled(parts: Mapping[str, Found], request: Request, *, class_names: tuple[str, ...] | None = None) -> RawData:
    """The data in ``parts``; ``class_names`` are those that the file gives. Raises :class:`UserError`."""
    if request.inputs:
        samples, others, scale = *_as_they_are(parts, request), 1.0
    else:
        samples, others = {part: _samples(found, request) for part, found in parts.items()}, {}
        kinds = {array.dtype if array.dtype in _SCALES else np.dtype(np.float32) for array in samples.values()}
        if len(kinds) != 1:
            raise request.bad("its parts hold values of several types.", "Give all parts one element type.")
        scale = _SCALES.get(kinds.pop(), 1.0)
    labels, names = _targets(parts, request)
    if class_names is None:
        class_names = names
    has_names = class_names is not None
    if class_names is None:
        highest = max((classes_in(array, request.task) for array in labels.values()), default=0)
        class_names = tuple(str(number) for number in range(highest))
    return RawData(
        parts={
            part: RawSplit(images=array, labels=labels[part], others=others.get(part, ()))
            for part, array in samples.items()
        },
        class_names=class_names,
        scale=scale,
        has_names=has_names,
        has_labels=all(found.targets is not None for found in parts.values()),
    )


def _targets(parts: Mapping[str, Found], request: Request) -> tuple[dict[str, Array], tuple[str, ...] | None]:
    """Targets of each part, and the names of the classes where these were names."""
    found: dict[str, Array] = {}
    names: dict[str, tuple[str, ...]] = {}
    for part, given in parts.items():
        if given.targets is None:
            if request.needs_labels:
                raise request.bad(
                    f"there are no labels for {given.samples_name}.",
                    "Give labels, or set data.metric: {name: Agreement}, which needs none.",
                )
            found[part] = np.zeros(len(given.samples), dtype=np.int64)
            continue
        targets, own = targets_of(
            given.targets, request.task, key=given.targets_name, field=request.field, value=request.uri
        )
        found[part] = targets
        if own is not None:
            names[part] = own
    if not names:
        return found, None
    if len(names) < len(found):
        raise request.bad("the labels of some parts are names, of others numbers.", "Give all parts one kind of label.")
    every = tuple(sorted({name for own in names.values() for name in own}))
    place = {name: number for number, name in enumerate(every)}
    for part, own in names.items():
        found[part] = np.array([place[name] for name in own], dtype=np.int64)[found[part]]
    return found, every


def _as_they_are(
    parts: Mapping[str, Found], request: Request
) -> tuple[dict[str, AnySamples], dict[str, tuple[AnySamples, ...]]]:
    """The first and the further inputs of each part, as numbers that nothing is done to."""
    first: dict[str, AnySamples] = {}
    others: dict[str, tuple[AnySamples, ...]] = {}
    shapes: set[tuple[tuple[int, ...], ...]] = set()
    for part, found in parts.items():
        arrays = {found.samples_name: found.samples, **found.others}
        for key, array in arrays.items():
            _require_samples(array, key, request)
        whole = tuple(_numbers(array) for array in arrays.values())
        first[part], others[part] = whole[0], whole[1:]
        shapes.add(tuple(tuple(array.shape[1:]) for array in whole))
    if len(shapes) != 1:
        raise request.bad("its parts hold inputs of several shapes.", "Give an input one shape in all parts.")
    return first, others


def _numbers(array: AnySamples) -> AnySamples:
    if array.dtype.kind == "f" or isinstance(array, StoredSamples | np.memmap):
        return array
    return array.astype(np.float32)


def _require_samples(array: AnySamples, key: str, request: Request) -> None:
    if array.dtype not in _SCALES and array.dtype.kind not in "fiub":
        raise request.bad(
            f"{key} holds {array.dtype}, not uint8 or floating values.", "Convert it to uint8 or floating values."
        )
    if len(array.shape) < 2:
        shape = "x".join(str(size) for size in array.shape)
        raise request.bad(
            f"{key} has the shape {shape}, which are no samples.", "Give [N, C, H, W], [N, H, W] or [N, numbers]."
        )


def _samples(found: Found, request: Request) -> AnySamples:
    array, key = found.samples, found.samples_name
    _require_samples(array, key, request)
    ways = _arrangements(array.shape)
    chosen = ways[0]
    if request.fits is not None:
        empty = np.empty((0, *array.shape[1:]), dtype=np.uint8)
        chosen = next((way for way in ways if request.fits(way(empty).shape[1:])), chosen)
    # Whole numbers of other types have no scale of their own: they are taken as they are.
    converts = array.dtype not in _SCALES and array.dtype.kind != "f"
    if isinstance(array, StoredSamples):
        return array if chosen is _as_it_is and not converts else _Rearranged(array, chosen, converts=converts)
    arranged = chosen(array.astype(np.float32) if converts else array)
    # A view with an axis more stays where it is, in memory or in a file.
    return arranged if arranged.ndim > array.ndim or chosen is _as_it_is else np.ascontiguousarray(arranged)


class _Rearranged(StoredSamples):
    """Stored samples with their axes in another order."""

    def __init__(self, samples: StoredSamples, way: Way, *, converts: bool) -> None:
        empty = way(np.empty((0, *samples.shape[1:]), dtype=np.uint8))
        dtype = np.dtype(np.float32) if converts else samples.dtype
        super().__init__(shape=(len(samples), *empty.shape[1:]), dtype=dtype)
        self._samples, self._way = samples, way

    def _rows(self, positions: npt.NDArray[np.int64]) -> Array:
        return np.ascontiguousarray(self._way(self._samples[positions]), dtype=self.dtype)


def _as_it_is(array: Array) -> Array:
    return array


def _with_a_channel(array: Array) -> Array:
    return array[:, None]


def _last_first(array: Array) -> Array:
    """The last axis as channels."""
    return array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))


def _arrangements(shape: tuple[int, ...]) -> tuple[Way, ...]:
    """The ways in which the axes may be meant, the likeliest first."""
    if len(shape) == 2:
        return _as_it_is, _with_a_channel
    if len(shape) == 3:
        return _with_a_channel, _as_it_is, _last_first
    if len(shape) == 4 and shape[3] in _CHANNELS and shape[1] not in _CHANNELS:
        return _last_first, _as_it_is, _with_a_channel
    return _as_it_is, _last_first, _with_a_channel
