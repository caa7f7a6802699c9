"""A data set in one ``.npz`` file of NumPy.

| key | holds |
|---|---|
| ``x_train``, ``y_train`` | samples and labels for training; plain ``x`` and ``y`` mean the same |
| ``x_validation``, ``y_validation``, ``x_test``, ``y_test`` | optional parts of their own |
| ``class_names`` | optional, one text per class; without it the classes are 0..max(y) |

Samples are uint8 (0..255) or floating, ``[N, H, W]``, ``[N, C, H, W]`` or ``[N, H, W, C]`` (channels last where
the last axis has 1, 3 or 4 entries and the second has not); labels are integers ``[N]``.
"""

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np
import numpy.typing as npt

from edgefolio.errors import UserError
from edgefolio_pruner.data.raw import TEST, TRAIN, VALIDATION, RawData, RawSplit
from edgefolio_pruner.uris import read_uri

_CHANNELS = (1, 3, 4)


def read_npz(uri: str, *, needed: str, field: str) -> RawData:
    """The data in the file at ``uri`` (any URL that fsspec opens), with at least the part ``needed`` or plain x and y.

    Raises :class:`UserError` for ``field``.
    """
    arrays = _arrays(read_uri(uri, field=field), field=field, uri=uri)
    parts: dict[str, RawSplit] = {}
    for name in (TRAIN, VALIDATION, TEST):
        keys = (f"x_{name}", f"y_{name}")
        if name == TRAIN and "x" in arrays:
            keys = ("x", "y")
        if keys[0] not in arrays and keys[1] not in arrays:
            continue
        missing = [key for key in keys if key not in arrays]
        if missing:
            raise _bad(f"the array {missing[0]!r} is missing.", field, uri, "Give samples and labels of every part.")
        parts[name] = RawSplit(
            images=_images(arrays[keys[0]], keys[0], field, uri), labels=_labels(arrays[keys[1]], keys[1], field, uri)
        )
    if TRAIN not in parts and needed not in parts:
        held = ", ".join(sorted(arrays)) or "nothing"
        raise _bad(
            f"it holds {held}, but no x_{needed} or x.", field, uri, f"Save x_{needed} and y_{needed}, or x and y."
        )
    if "class_names" in arrays:
        class_names = tuple(str(name) for name in np.atleast_1d(arrays["class_names"]))
    else:
        class_names = tuple(
            str(label) for label in range(int(max(part.labels.max(initial=0) for part in parts.values())) + 1)
        )
    kinds = {part.images.dtype.kind for part in parts.values()}
    if len(kinds) != 1:
        raise _bad("some parts hold uint8 and others floating values.", field, uri, "Give all parts one element type.")
    return RawData(parts=parts, class_names=class_names, scale=1 / 255 if kinds == {"u"} else 1.0)


def _arrays(content: bytes, *, field: str, uri: str) -> dict[str, npt.NDArray[np.generic]]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            return {name: archive[name] for name in archive.files}
    except (
        ValueError,
        OSError,
        EOFError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
        AttributeError,
        TypeError,
    ) as error:
        raise _bad(
            f"this is no .npz file of plain arrays ({' '.join(str(error).split())[:200]}).",
            field,
            uri,
            "Save it with numpy.savez(path, x_train=..., y_train=...), without objects.",
        ) from error


def _images(array: npt.NDArray[np.generic], key: str, field: str, uri: str) -> npt.NDArray[np.generic]:
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise _bad(f"{key} holds {array.dtype}, not uint8 or floating values.", field, uri, "Convert it.")
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
