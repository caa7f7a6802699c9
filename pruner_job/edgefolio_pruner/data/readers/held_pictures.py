"""Pictures that a table or an archive holds, as the reader of picture files takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgefolio.errors import UserError
from edgefolio_pruner.data.arrays.converting import Request
from edgefolio_pruner.data.arrays.targets import classes_in, targets_of
from edgefolio_pruner.data.pictures import ReadPictures, SizesDifferError, read_pictures
from edgefolio_pruner.data.raw import TEST, TRAIN, VALIDATION, RawData, RawSplit

#: Words for the parts, in columns, folders and names.
PARTS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
}


class HeldFiles:
    """Files by name whose bytes are at hand; what the reader of pictures asks of a file system."""

    def __init__(self, sizes: Mapping[str, int], read: Callable[[str], bytes]) -> None:
        self._sizes, self._read = sizes, read

    def info(self, name: str) -> dict[str, Any]:
        """Type and size."""
        return {"name": name, "type": "file", "size": self._sizes[name]}

    def cat_file(self, name: str) -> bytes:
        """The bytes."""
        return self._read(name)

    @property
    def listed(self) -> dict[str, dict[str, Any]]:
        """All of them."""
        return {name: self.info(name) for name in self._sizes}


def pictures_of(filesystem: Any, listed: Mapping[str, Mapping[str, Any]], request: Request) -> ReadPictures:
    """The pictures at the size that is asked for; where they differ, at the model's own."""
    try:
        return read_pictures(filesystem, listed, size=request.image_size, field=request.field, folder=request.scratch)
    except SizesDifferError:
        if request.model_size is None:
            raise
        return read_pictures(filesystem, listed, size=request.model_size, field=request.field, folder=request.scratch)


def data_of_pictures(
    found: ReadPictures,
    labels: Any,
    parts: Sequence[str],
    request: Request,
    *,
    labels_name: str,
    class_names: tuple[str, ...] | None = None,
    notes: tuple[str, ...] = (),
) -> RawData:
    """Pictures with their labels (``None`` where there are none) and the part that each belongs to."""
    if labels is None:
        if request.needs_labels:
            raise request.bad(
                "it holds no labels.", "Add a column or file of labels, or set data.metric: {name: Agreement}."
            )
        targets, names = np.zeros(len(parts), dtype=np.int64), None
    else:
        targets, names = targets_of(
            np.asarray(labels), request.task, key=labels_name, field=request.field, value=request.uri
        )
    names = class_names or names
    owner = np.array(parts)
    whole = RawSplit(images=found.samples, labels=targets)
    return RawData(
        parts={
            part: whole.take(np.flatnonzero(owner == part))
            for part in (TRAIN, VALIDATION, TEST)
            if bool((owner == part).any())
        },
        class_names=names or tuple(str(number) for number in range(classes_in(targets, request.task))),
        scale=found.scale,
        has_names=names is not None,
        has_labels=labels is not None,
        notes=(*notes, *found.notes),
        pictures=found.reading,
    )


def part_called(word: str, request: Request) -> str:
    """The part that ``word`` means. Raises :class:`UserError` for another word."""
    part = PARTS.get(word.strip().lower())
    if part is None:
        raise UserError(
            f"it names the part {word!r}.",
            field=request.field,
            value=request.uri,
            remedy="Call the parts train, validation and test.",
        )
    return part
