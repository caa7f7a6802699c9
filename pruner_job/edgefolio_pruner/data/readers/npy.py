"""Samples in one ``.npy`` file of NumPy, and their targets in another beside it.

The file of the targets is called alike: of ``x_train.npy`` it is ``y_train.npy``, of ``images.npy`` ``labels.npy``. The
samples stay in the file, where that is on this machine.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from edgefolio.errors import EdgefolioError
from edgefolio.repository.storage import local_root
from edgefolio_pruner.available_memory import require_memory
from edgefolio_pruner.data.arrays.converting import Found, Request, assembled
from edgefolio_pruner.data.arrays.names import SAMPLES, TARGETS
from edgefolio_pruner.data.raw import RawData
from edgefolio_pruner.uris import read_uri


def read_npy(request: Request) -> RawData:
    """The samples at ``request.uri`` with the targets beside them. Raises :class:`UserError` for its field."""
    folder, _, name = request.uri.rpartition("/")
    beside = [f"{folder}/{other}" if folder else other for other in _names_of_targets(name)]
    targets = next((uri for uri in beside if _exists(uri)), None)
    if targets is None and request.needs_labels:
        raise request.bad(
            f"there are no labels beside it: {', '.join(other.rpartition('/')[2] for other in beside) or 'y.npy'}.",
            "Save them there, or set data.metric: {name: Agreement}.",
        )
    found = Found(
        samples=_array(request.uri, request, mapped=True),
        targets=None if targets is None else _array(targets, request, mapped=False),
        samples_name=name,
        targets_name="" if targets is None else targets.rpartition("/")[2],
    )
    return assembled({request.needed: found}, request)


def _names_of_targets(name: str) -> list[str]:
    stem = name.lower()
    word = next((word for word in sorted(SAMPLES, key=len, reverse=True) if _word_in(word, stem)), None)
    if word is None:
        return ["y.npy", "labels.npy"]
    place = stem.index(word)
    return [f"{name[:place]}{other}{name[place + len(word) :]}" for other in TARGETS]


def _word_in(word: str, stem: str) -> bool:
    parts = stem.removesuffix(".npy").replace("-", "_").split("_")
    return word in parts


def _exists(uri: str) -> bool:
    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
        return bool(filesystem.exists(path))
    except Exception:  # every driver raises its own kinds; the samples' own reader reports what is wrong
        return False


def _array(uri: str, request: Request, *, mapped: bool) -> Any:
    path = local_root(uri, field=request.field)
    try:
        if mapped and path is not None and path.is_file():
            return np.load(path, mmap_mode="r", allow_pickle=False)
        content = path.read_bytes() if isinstance(path, Path) and path.is_file() else read_uri(uri, field=request.field)
        require_memory(2 * len(content), what="the data", field=request.field, value=uri)
        return np.load(io.BytesIO(content), allow_pickle=False)
    except EdgefolioError:
        raise
    except Exception as error:  # NumPy raises many kinds on damaged files
        raise request.bad(
            f"{uri.rpartition('/')[2]} is no .npy file of plain values ({' '.join(str(error).split())[:200]}).",
            "Save it with numpy.save(path, array), without objects.",
        ) from error
