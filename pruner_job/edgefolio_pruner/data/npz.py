"""A data set in one ``.npz`` file of NumPy.

| key | holds |
|---|---|
| ``x_train``, ``y_train`` | samples and labels for training; plain ``x`` and ``y`` mean the same |
| ``x_validation``, ``y_validation``, ``x_test``, ``y_test`` | optional parts of their own |
| ``class_names`` | optional, one text per class; without it the classes are 0..max(y) |

Samples are uint8 (0..255), uint16 (0..65535) or floating, ``[N, H, W]``, ``[N, C, H, W]`` or ``[N, H, W, C]``
(channels last where the last axis has 1, 3 or 4 entries and the second has not); labels are integers ``[N]``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgefolio.errors import EdgefolioError, UserError
from edgefolio_pruner.data.npz_archive import NpzArchive
from edgefolio_pruner.data.raw import LONGEST_CLASS_NAME, MOST_CLASSES, TEST, TRAIN, VALIDATION, RawData, RawSplit
from edgefolio_pruner.uris import read_uri

_CHANNELS = (1, 3, 4)
_SCALES: dict[np.dtype[np.generic], float] = {np.dtype(np.uint8): 1 / 255, np.dtype(np.uint16): 1 / 65535}
#: Bytes of one class name; NumPy takes four a character.
_LARGEST_NAME = 4 * LONGEST_CLASS_NAME


def read_npz(uri: str, *, needed: str, field: str) -> RawData:
    """The data in the file at ``uri`` (any URL that fsspec opens), with at least the part ``needed`` or plain x and y.

    Raises :class:`UserError` for ``field``.
    """
    content = read_uri(uri, field=field)
    try:
        archive = NpzArchive(content)
        return _read(archive, needed=needed, field=field, uri=uri)
    except EdgefolioError:
        raise
    except ValueError as error:
        raise _bad(
            f"this is no .npz file of plain arrays ({error}).",
            field,
            uri,
            "Save it with numpy.savez(path, x_train=..., y_train=...), without objects.",
        ) from error


def _read(archive: NpzArchive, *, needed: str, field: str, uri: str) -> RawData:
    keys = _keys(archive, needed=needed, field=field, uri=uri)
    archive.require_memory(tuple(key for pair in keys.values() for key in pair), field=field, value=uri)
    parts = {
        part: RawSplit(
            images=_images(archive.array(samples), samples, field, uri),
            labels=_labels(archive.array(labels), labels, field, uri),
        )
        for part, (samples, labels) in keys.items()
    }
    kinds = {part.images.dtype if part.images.dtype.kind == "u" else np.dtype(np.float32) for part in parts.values()}
    if len(kinds) != 1:
        raise _bad("its parts hold values of several types.", field, uri, "Give all parts one element type.")
    class_names = _class_names(archive, parts, field=field, uri=uri)
    return RawData(
        parts=parts,
        class_names=class_names,
        scale=_SCALES.get(kinds.pop(), 1.0),
        has_names="class_names" in archive,
    )


def _keys(archive: NpzArchive, *, needed: str, field: str, uri: str) -> dict[str, tuple[str, str]]:
    """The names of samples and labels of each part."""
    keys: dict[str, tuple[str, str]] = {}
    for part in (TRAIN, VALIDATION, TEST):
        pair = ("x", "y") if part == TRAIN and "x" in archive else (f"x_{part}", f"y_{part}")
        missing = [key for key in pair if key not in archive]
        if len(missing) == 1:
            raise _bad(f"the array {missing[0]!r} is missing.", field, uri, "Give samples and labels of every part.")
        if not missing:
            keys[part] = pair
    if TRAIN not in keys and needed not in keys:
        held = ", ".join(archive.names) or "nothing"
        raise _bad(
            f"it holds {held}, but no x_{needed} or x.", field, uri, f"Save x_{needed} and y_{needed}, or x and y."
        )
    return keys


def _class_names(archive: NpzArchive, parts: dict[str, RawSplit], *, field: str, uri: str) -> tuple[str, ...]:
    if "class_names" not in archive:
        highest = max(int(part.labels.max(initial=0)) for part in parts.values())
        if highest >= MOST_CLASSES:
            raise _bad(f"a label is {highest}.", field, uri, f"Number the classes from 0; at most {MOST_CLASSES}.")
        return tuple(str(label) for label in range(highest + 1))
    shape, kind = archive.header("class_names")
    if len(shape) > 1 or kind.kind not in "USiu" or kind.itemsize > _LARGEST_NAME or shape > (MOST_CLASSES,):
        raise _bad(
            f"class_names is {kind} with {len(shape)} axes, not one short text per class.",
            field,
            uri,
            f"Give one text per class, at most {MOST_CLASSES}.",
        )
    return tuple(str(name) for name in np.atleast_1d(archive.array("class_names")))


def _images(array: npt.NDArray[np.generic], key: str, field: str, uri: str) -> npt.NDArray[np.generic]:
    if array.dtype not in _SCALES and array.dtype.kind != "f":
        raise _bad(
            f"{key} holds {array.dtype}, not uint8 or floating values (nor uint16).",
            field,
            uri,
            "Convert it: whole numbers by .astype(numpy.uint8) or (numpy.uint16), others by .astype(numpy.float32).",
        )
    if array.ndim == 3:
        return array[:, None]
    if array.ndim != 4:
        shape = "x".join(str(size) for size in array.shape)
        raise _bad(f"{key} has the shape {shape}, which are no images.", field, uri, "Give [N, C, H, W] or [N, H, W].")
    if array.shape[3] in _CHANNELS and array.shape[1] not in _CHANNELS:
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    return array


def _labels(array: npt.NDArray[np.generic], key: str, field: str, uri: str) -> npt.NDArray[np.int64]:
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise _bad(
            f"{key} is {array.dtype} with {array.ndim} axes, not one integer per sample.",
            field,
            uri,
            "Give the number of the class of each sample.",
        )
    return array.astype(np.int64)


def _bad(problem: str, field: str, uri: str, remedy: str) -> UserError:
    return UserError(problem, field=field, value=uri, remedy=remedy)
