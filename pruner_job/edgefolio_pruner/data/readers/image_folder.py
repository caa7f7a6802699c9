"""A tree of image files: ``<root>/<class>/<file>``, or ``<root>/train/<class>/<file>`` and so on.

The parts may be called train, validation (val) and test. The classes are the names of the folders in alphabetical
order, all of them (:mod:`.folder_tree`). Images are read by Pillow; they become grey if all are grey, else RGB. With a
size they are scaled so that the shorter side fits and cut to the middle square. They are never all in memory.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import fsspec
import numpy as np

from edgefolio.errors import UserError
from edgefolio.transient_errors import is_lasting, unreachable
from edgefolio_pruner.data.pictures import PictureSize, SizesDifferError, read_pictures
from edgefolio_pruner.data.raw import TEST, TRAIN, VALIDATION, RawData, RawSplit
from edgefolio_pruner.data.readers.folder_tree import arrange, list_tree


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


def read_image_folder(
    uri: str,
    *,
    image_size: int | PictureSize | None,
    model_size: PictureSize | None = None,
    class_names: Collection[str] = (),
    field: str,
    scratch: Path | None = None,
) -> RawData:
    """The images under the folder ``uri`` ``[N, C, H, W]``, in the order of their paths.

    ``model_size`` is how the model wants them where ``image_size`` is None and their sizes differ. ``class_names`` are
    all classes where the user gave them. Many images are kept in a file in ``scratch``. Raises :class:`UserError` for
    ``field`` if there are no images, a class has none, one cannot be read, or their sizes differ without a wanted one.
    """
    filesystem, root = fsspec.core.url_to_fs(uri)
    try:
        listed, folders = list_tree(filesystem, str(root))
    except Exception as error:
        raise _unlisted(error, uri, field) from error
    found = arrange(listed, folders, root=str(root), class_names=class_names, field=field, uri=uri)
    number = {name: index for index, name in enumerate(found.class_names)}
    pictures = {path: listed[path] for _, _, path in found.files}
    size = PictureSize.of(image_size) if isinstance(image_size, int) else image_size
    notes = list(found.notes)
    try:
        read = read_pictures(filesystem, pictures, size=size, field=field, folder=scratch)
    except SizesDifferError:
        if model_size is None:
            raise
        read = read_pictures(filesystem, pictures, size=model_size, field=field, folder=scratch)
        notes.append(
            f"the pictures differ in size: the model's own {model_size.crop} x {model_size.crop} is taken, cut from a "
            f"shorter side of {model_size.shorter} ({model_size.interpolation.lower()}); data.imageSize sets another"
        )
    labels = np.array([number[name] for _, name, _ in found.files], dtype=np.int64)
    owner = np.array([part for part, _, _ in found.files])
    return RawData(
        parts={
            part: RawSplit(images=read.samples, labels=labels).take(np.flatnonzero(owner == part))
            for part in (TRAIN, VALIDATION, TEST)
            if (owner == part).any()
        },
        class_names=found.class_names,
        scale=read.scale,
        notes=(*notes, *read.notes),
        pictures=read.reading,
    )


def _unlisted(error: Exception, uri: str, field: str) -> UserError:
    return unreachable(
        error,
        f"the folder cannot be listed ({type(error).__name__}: {' '.join(str(error).split())[:200]}).",
        field=field,
        value=uri,
        remedy="Check the address and the permission to list it.",
    )
