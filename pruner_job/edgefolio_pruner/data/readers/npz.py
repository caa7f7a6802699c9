"""A data set in one ``.npz`` file of NumPy.

| key | holds |
|---|---|
| ``x_train``, ``y_train`` | samples and labels for training; plain ``x`` and ``y`` mean the same |
| ``x_validation``, ``y_validation``, ``x_test``, ``y_test`` | optional parts of their own |
| ``class_names`` | optional, one text per class; without it the classes are 0..max(y) |

A network of several inputs is fed with the arrays that ``data.inputs`` names (``image``, ``image_test``), as they are.
Other common names are known too (``images`` and ``labels``, ``train_images``, ``data`` and ``targets``:
:mod:`.array_names`). Samples are uint8 (0..255), uint16 (0..65535) or floating, ``[N, H, W]``, ``[N, C, H, W]`` or
``[N, H, W, C]`` (channels last where the last axis has 1, 3 or 4 entries and the second has not), ``[N, numbers]``, or
what else the network takes; labels are what the task takes (:mod:`.targets`). Arrays that are stored as they are, on
this machine, are mapped and not read at once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgefolio.errors import EdgefolioError
from edgefolio.repository.storage import local_root
from edgefolio_pruner.data.arrays.converting import Found, Request, assembled
from edgefolio_pruner.data.arrays.names import arrays_of_parts, class_names_key, inputs_of_parts
from edgefolio_pruner.data.raw import LONGEST_CLASS_NAME, MOST_CLASSES, RawData
from edgefolio_pruner.data.readers.npz_archive import NpzArchive
from edgefolio_pruner.uris import read_uri

#: Bytes of one class name; NumPy takes four a character.
_LARGEST_NAME = 4 * LONGEST_CLASS_NAME


def read_npz(request: Request) -> RawData:
    """The data in the file at ``request.uri`` (any URL that fsspec opens), with at least the part that is needed.

    Raises :class:`UserError` for the request's field.
    """
    path = local_root(request.uri, field=request.field)
    content: bytes | Path = path if path is not None and path.is_file() else read_uri(request.uri, field=request.field)
    try:
        return _read(NpzArchive(content), request)
    except EdgefolioError:
        raise
    except ValueError as error:
        raise request.bad(
            f"this is no .npz file of plain arrays ({error}).",
            "Save it with numpy.savez(path, x_train=..., y_train=...), without objects.",
        ) from error


def _read(archive: NpzArchive, request: Request) -> RawData:
    keys = (
        inputs_of_parts(archive.names, request)
        if request.inputs
        else {
            part: ((samples,), targets) for part, (samples, targets) in arrays_of_parts(archive.names, request).items()
        }
    )
    names = tuple(name for inputs, targets in keys.values() for name in (*inputs, targets) if name is not None)
    archive.require_memory(names, field=request.field, value=request.uri)
    parts = {
        part: Found(
            samples=archive.array(inputs[0], mapped=True),
            targets=None if targets is None else archive.array(targets),
            samples_name=inputs[0],
            targets_name=targets or "",
            others={name: archive.array(name, mapped=True) for name in inputs[1:]},
        )
        for part, (inputs, targets) in keys.items()
    }
    return assembled(parts, request, class_names=_class_names(archive, request))


def _class_names(archive: NpzArchive, request: Request) -> tuple[str, ...] | None:
    key = class_names_key(archive.names)
    if key is None:
        return None
    shape, kind = archive.header(key)
    if len(shape) > 1 or kind.kind not in "USiu" or kind.itemsize > _LARGEST_NAME or shape > (MOST_CLASSES,):
        raise request.bad(
            f"{key} is {kind} with {len(shape)} axes, not one short text per class.",
            f"Give one text per class, at most {MOST_CLASSES}.",
        )
    return tuple(str(name) for name in np.atleast_1d(archive.array(key)))
