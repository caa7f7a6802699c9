"""A table of Arrow in a ``.parquet`` or ``.arrow`` file, as the ``datasets`` package of Hugging Face writes them.

The column ``image`` (``img``) holds pictures, as bytes or ``{bytes, path}``; other samples are numbers or lists of them
in the column ``x`` (``data``, ``features``), or all columns but the target where these are numbers. The target is in
``label`` (``labels``, ``target``, ``y``); the names of its classes are taken from the metadata of ``datasets``. It
needs the package pyarrow (the extra ``tables``).
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from edgefolio.errors import EdgefolioError
from edgefolio_pruner.available_memory import require_memory
from edgefolio_pruner.data.arrays.converting import Found, Request, assembled
from edgefolio_pruner.data.arrays.names import SAMPLES, TARGETS, column_of
from edgefolio_pruner.data.raw import RawData
from edgefolio_pruner.data.readers.held_pictures import HeldFiles, data_of_pictures, pictures_of
from edgefolio_pruner.uris import read_uri

_METADATA = b"huggingface"


def read_arrow(request: Request) -> RawData:
    """The table at ``request.uri``. Raises :class:`UserError` for the request's field."""
    try:
        import pyarrow
    except ImportError as error:
        raise request.bad(
            "reading a table of Arrow needs the package pyarrow.", "Install edgefolio[tables]."
        ) from error
    content = read_uri(request.uri, field=request.field)
    try:
        table = _table(content, parquet=request.uri.partition("?")[0].lower().endswith(".parquet"))
        require_memory(table.nbytes, what="the table", field=request.field, value=request.uri)
        return _read(table, request)
    except EdgefolioError:
        raise
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise request.bad(
            f"this is no table of Arrow ({' '.join(str(error).split())[:200]}).",
            "Save it with datasets' to_parquet or save_to_disk.",
        ) from error


def _table(content: bytes, *, parquet: bool) -> Any:
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    if parquet:
        return pyarrow.parquet.read_table(io.BytesIO(content))
    try:
        return pyarrow.ipc.open_stream(content).read_all()
    except pyarrow.ArrowInvalid:
        return pyarrow.ipc.open_file(content).read_all()


def _read(table: Any, request: Request) -> RawData:
    samples, target = column_of(table.column_names, SAMPLES), column_of(table.column_names, TARGETS)
    rows = None if samples is not None else _rows(table, target, request)
    if samples is None and rows is None:
        raise request.bad(
            f"it has the columns {', '.join(table.column_names[:20])}, and none of samples.",
            "Call the column of the samples image or x; columns of numbers are a row's sample where all are.",
        )
    if table.num_rows == 0:
        raise request.bad("the table is empty.", "Name a table with rows.")
    labels = None if target is None else _values(table, target, request)
    names = None if target is None or labels is None or labels.dtype.kind not in "iu" else _class_names(table, target)
    if samples is None:
        assert rows is not None
        found = Found(samples=rows, targets=labels, samples_name="the table", targets_name=str(target))
        return assembled({request.needed: found}, request, class_names=names)
    first = next((value for value in (cell.as_py() for cell in table[samples].slice(0, 16)) if value is not None), None)
    if isinstance(first, dict | bytes):
        pictures = _Pictures(table[samples], request)
        held = HeldFiles({f"row {row}": pictures.size(row) for row in range(table.num_rows)}, pictures.read)
        return data_of_pictures(
            pictures_of(held, held.listed, request),
            labels,
            [request.needed] * table.num_rows,
            request,
            labels_name=f"the column {target!r}",
            class_names=names,
        )
    found = Found(
        samples=_values(table, samples, request), targets=labels, samples_name=samples, targets_name=str(target)
    )
    return assembled({request.needed: found}, request, class_names=names)


def _rows(table: Any, target: str | None, request: Request) -> Any:
    """The numbers of all columns but that of the targets, a sample each row; ``None`` if there are others."""
    import pyarrow

    types = pyarrow.types
    used = [name for name in table.column_names if name != target]
    if not used or not all(
        types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)
        for kind in (table.schema.field(name).type for name in used)
    ):
        return None
    return np.stack([np.asarray(_values(table, name, request), dtype=np.float32) for name in used], axis=1)


class _Pictures:
    """The bytes of pictures by row."""

    def __init__(self, column: Any, request: Request) -> None:
        self._column, self._request = column, request

    def size(self, row: int) -> int:
        return len(self._bytes(row))

    def read(self, name: str) -> bytes:
        return self._bytes(int(name.removeprefix("row ")))

    def _bytes(self, row: int) -> bytes:
        value = self._column[row].as_py()
        held = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(held, bytes):
            raise self._request.bad(
                f"row {row} holds no picture, only {'its path' if isinstance(value, dict) else 'nothing'}.",
                "Embed the pictures: dataset.cast_column('image', Image(decode=False)) after loading them.",
            )
        return held


def _values(table: Any, name: str, request: Request) -> Any:
    column = table[name]
    if column.null_count:
        raise request.bad(f"{column.null_count} rows have no {name!r}.", "Fill or remove them.")
    values = np.array(column.to_pylist())
    if values.dtype == object:
        raise request.bad(f"the rows of {name!r} are not of one shape.", "Give all samples one shape.")
    return values.astype(np.float32) if values.dtype == np.float64 else values


def _class_names(table: Any, name: str) -> tuple[str, ...] | None:
    """The names of a ``ClassLabel``, if ``datasets`` wrote the table."""
    try:
        features = json.loads((table.schema.metadata or {})[_METADATA])["info"]["features"]
        names = features[name]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return tuple(str(entry) for entry in names) if isinstance(names, list) else None
