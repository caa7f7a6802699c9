"""A table in a CSV file: pictures by their path with a label, or rows of numbers with a target.

A column called ``path`` (``file``, ``image``, ``filename``) names pictures, from the folder of the table on; without
one, all columns but those of targets are the numbers of a sample. The target is in the column ``label`` (``target``,
``y``, ``class``); of several labels or numbers in the columns ``label_...`` (``y_...``, ``target_...``). A column
``split`` names the part.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import fsspec
import numpy as np

from edgefolio_pruner.data.arrays.converting import Found, Request, assembled
from edgefolio_pruner.data.arrays.names import column_of
from edgefolio_pruner.data.raw import TRAIN, RawData
from edgefolio_pruner.data.readers.held_pictures import data_of_pictures, part_called, pictures_of
from edgefolio_pruner.uris import read_uri

_PATHS = ("path", "file", "filepath", "file_path", "image", "image_path", "filename", "file_name", "img")
_TARGETS = ("label", "target", "y", "class", "labels", "targets")
_PARTS = ("split", "part", "subset", "partition")
_MOST_ROWS, _MOST_COLUMNS = 20_000_000, 10_000


def read_csv(request: Request) -> RawData:
    """The table at ``request.uri``. Raises :class:`UserError` for the request's field."""
    header, rows = _table(request)
    parts_column = column_of(header, _PARTS)
    targets = _target_columns(header)
    if not targets and request.needs_labels:
        raise request.bad(
            f"no column is called label; it has {', '.join(header[:20])}.",
            "Call the column of the labels label, or set data.metric: {name: Agreement}.",
        )
    place = {name: number for number, name in enumerate(header)}
    parts = [TRAIN if parts_column is None else part_called(row[place[parts_column]], request) for row in rows]
    labels = _labels([[row[place[name]] for name in targets] for row in rows], request) if targets else None
    paths = column_of(header, _PATHS)
    if paths is not None:
        return _pictures(
            [row[place[paths]] for row in rows], labels, parts, request, labels_name=targets[0] if targets else ""
        )
    used = [name for name in header if name not in (*targets, parts_column)]
    if not used:
        raise request.bad("it has no column of paths, and none of numbers.", "Name pictures in a column called path.")
    numbers = _numbers([[row[place[name]] for name in used] for row in rows], used, request)
    owner = np.array(parts)
    return assembled(
        {
            part: Found(
                samples=numbers[owner == part],
                targets=None if labels is None else labels[owner == part],
                samples_name="the table",
                targets_name=targets[0] if targets else "",
            )
            for part in dict.fromkeys(parts)
        },
        request,
    )


def _table(request: Request) -> tuple[list[str], list[list[str]]]:
    content = read_uri(request.uri, field=request.field)
    try:
        text = content.decode("utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        lines = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise request.bad(f"this is no table of comma-separated text in UTF-8 ({error}).", "Save it as CSV.") from error
    rows = [line for line in lines if line]
    if len(rows) < 2:
        raise request.bad("the table has no rows below its heading.", "Name the columns in the first line.")
    header = [name.strip() for name in rows[0]]
    if len(set(header)) != len(header) or "" in header or len(header) > _MOST_COLUMNS or len(rows) > _MOST_ROWS:
        raise request.bad(
            f"its heading is {', '.join(map(repr, header[:20]))}.",
            "Give each column a name of its own in the first line.",
        )
    wrong = next((number for number, row in enumerate(rows, start=1) if len(row) != len(header)), None)
    if wrong is not None:
        raise request.bad(
            f"row {wrong} has {len(rows[wrong - 1])} values, the heading {len(header)} names.", "Mend the row."
        )
    return header, rows[1:]


def _target_columns(header: Sequence[str]) -> list[str]:
    one = column_of(header, _TARGETS)
    if one is not None:
        return [one]
    return [name for name in header if name.lower().startswith(tuple(f"{word}_" for word in _TARGETS))]


def _labels(columns: list[list[str]], request: Request) -> Any:
    """Whole numbers where all are, else numbers, else text; one column as one axis."""
    found: Any = np.array(columns)
    for kind in (np.int64, np.float64):
        try:
            found = np.array(columns, dtype=kind)
            break
        except (ValueError, OverflowError):
            continue
    if request.task == "Classification" and found.dtype.kind == "f":
        found = np.array(columns)
    return found[:, 0] if found.shape[1] == 1 else found


def _numbers(rows: list[list[str]], names: Sequence[str], request: Request) -> Any:
    try:
        found = np.array(rows, dtype=np.float32)
    except ValueError:
        row, column = next(
            (row, column)
            for row, values in enumerate(rows)
            for column, value in enumerate(values)
            if not _is_number(value)
        )
        raise request.bad(
            f"row {row + 2} of the column {names[column]!r} is {rows[row][column]!r}, and no number.",
            "Give numbers in every column but the label, or name pictures in a column called path.",
        ) from None
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _pictures(paths: list[str], labels: Any, parts: list[str], request: Request, *, labels_name: str) -> RawData:
    filesystem, own = fsspec.core.url_to_fs(request.uri)
    folder = str(own).rpartition("/")[0]
    full = [path if path.startswith("/") and folder.startswith("/") else f"{folder}/{path}".lstrip() for path in paths]
    repeated = len(full) - len(set(full))
    if repeated:
        raise request.bad(f"{repeated} of its {len(full)} paths are there twice.", "Name each picture once.")
    if any(".." in path.split("/") for path in paths):
        raise request.bad("a path holds ..", "Name pictures below the folder of the table.")
    listed = {path: {"name": path, "type": "link"} for path in full}
    return data_of_pictures(
        pictures_of(filesystem, listed, request), labels, parts, request, labels_name=f"the column {labels_name!r}"
    )
