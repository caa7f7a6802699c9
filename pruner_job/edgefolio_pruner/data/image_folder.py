"""A tree of image files: ``<root>/<class>/<file>``, or ``<root>/train/<class>/<file>`` and so on.

The parts may be called train, validation (val) and test. The classes are the names of the folders in alphabetical
order. Images are read by Pillow; they become grey if all are grey, else RGB. With a size they are scaled so that the
shorter side fits and cut to the middle square.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import fsspec
import numpy as np

from edgefolio.errors import UserError
from edgefolio.transient_errors import is_lasting, unreachable
from edgefolio_pruner.data.pictures import read_pictures
from edgefolio_pruner.data.raw import TEST, TRAIN, VALIDATION, RawData, RawSplit

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
_PART_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
}


def is_folder(uri: str, *, field: str) -> bool:
    """Whether ``uri`` names a folder that can be listed.

    Raises :class:`~edgefolio.errors.TransientError` for ``field`` if the store is in trouble: its folder would else
    read as a file that is missing, for good.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
        return bool(filesystem.isdir(path))
    except Exception as error:  # every driver of fsspec raises its own kinds
        if is_lasting(error):
            return False  # the reader of the URI reports it
        raise _unlisted(error, uri, field) from error


def read_image_folder(uri: str, *, image_size: int | None, field: str) -> RawData:
    """The images under the folder ``uri``, as uint8 ``[N, C, H, W]``, in the order of their paths.

    Raises :class:`UserError` for ``field`` if there are none, one cannot be read, or their sizes differ and
    ``image_size`` is None.
    """
    filesystem, root = fsspec.core.url_to_fs(uri)
    files: list[tuple[str, str, str]] = []
    parts_found = False
    base = PurePosixPath(str(root).rstrip("/"))
    try:
        listed: dict[str, dict[str, Any]] = filesystem.find(root, detail=True)
    except Exception as error:
        raise _unlisted(error, uri, field) from error
    for path in sorted(listed):
        inner = PurePosixPath(path).relative_to(base).parts
        if PurePosixPath(path).suffix.lower() not in _SUFFIXES or len(inner) < 2:
            continue
        part = _PART_NAMES.get(inner[0].lower()) if len(inner) >= 3 else None
        parts_found = parts_found or part is not None
        files.append((part or TRAIN, inner[1] if part else inner[0], path))
    if not files:
        raise UserError(
            "there are no images in class folders.",
            field=field,
            value=uri,
            remedy="Arrange the images as <folder>/<class>/<file>.png.",
        )
    if parts_found:
        # Class folders beside train/ and test/ would be read as classes called after the part.
        files = [entry for entry in files if PurePosixPath(entry[2]).relative_to(base).parts[0].lower() in _PART_NAMES]
    class_names = tuple(sorted({name for _, name, _ in files}))
    number = {name: index for index, name in enumerate(class_names)}
    pictures = {path: listed[path] for _, _, path in files}
    images = read_pictures(filesystem, pictures, image_size=image_size, field=field)
    labels = np.array([number[name] for _, name, _ in files], dtype=np.int64)
    owner = np.array([part for part, _, _ in files])
    return RawData(
        parts={
            part: RawSplit(images=images[owner == part], labels=labels[owner == part])
            for part in (TRAIN, VALIDATION, TEST)
            if (owner == part).any()
        },
        class_names=class_names,
        scale=1 / 255,
    )


def _unlisted(error: Exception, uri: str, field: str) -> UserError:
    return unreachable(
        error,
        f"the folder cannot be listed ({type(error).__name__}: {' '.join(str(error).split())[:200]}).",
        field=field,
        value=uri,
        remedy="Check the address and the permission to list it.",
    )
