"""A WebDataset: samples in a tar file, the files of one next to each other and called alike up to the first dot.

``000001.jpg`` and ``000001.cls`` are a sample and its label (a number or a name; ``.cls.txt``, ``.txt``, or ``label``
in ``.json``); ``000001.npy`` holds an array in place of a picture. The archive is read once for its list, then at
places.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgefolio.errors import EdgefolioError
from edgefolio.repository.storage import local_root
from edgefolio_pruner.data.arrays.converting import Found, Request, assembled
from edgefolio_pruner.data.raw import RawData
from edgefolio_pruner.data.readers.held_pictures import PARTS, HeldFiles, data_of_pictures, pictures_of
from edgefolio_pruner.data.stored import SampleWriter
from edgefolio_pruner.uris import read_uri

_PICTURES = ("jpg", "jpeg", "png", "webp", "ppm", "bmp", "tif", "tiff", "gif")
_LABELS = ("cls", "cls.txt", "label", "txt", "json")
_LARGEST_LABEL = 1 << 16
_LARGEST_ARRAY = 1 << 30


@dataclass(frozen=True)
class _Member:
    offset: int
    size: int


def read_tar(request: Request) -> RawData:
    """The archive at ``request.uri``. Raises :class:`UserError` for the request's field."""
    path = local_root(request.uri, field=request.field)
    source: Any = path if path is not None and path.is_file() else read_uri(request.uri, field=request.field)
    try:
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
            return _read(_Archive(file), request)
    except EdgefolioError:
        raise
    except (tarfile.TarError, EOFError, OSError) as error:
        raise request.bad(f"this is no tar file ({error}).", "Write it with tar or the webdataset package.") from error


class _Archive:
    """Members of a tar file, read at their places."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        with tarfile.open(fileobj=file, mode="r:") as archive:
            self.members = {
                member.name: _Member(member.offset_data, member.size) for member in archive if member.isfile()
            }

    def read(self, name: str) -> bytes:
        """The bytes of a member."""
        member = self.members[name]
        self._file.seek(member.offset)
        return self._file.read(member.size)


def _read(archive: _Archive, request: Request) -> RawData:
    samples: dict[str, dict[str, str]] = {}
    for name in archive.members:
        folder, _, file = name.rpartition("/")
        if file.startswith("."):
            continue
        stem, _, suffix = file.partition(".")
        samples.setdefault(f"{folder}/{stem}" if folder else stem, {})[suffix.lower()] = name
    kept = {key: files for key, files in samples.items() if _sample(files) is not None}
    if not kept:
        raise request.bad(
            f"none of its {len(archive.members)} files is a picture or a .npy file.",
            f"Call them KEY.jpg, KEY.png or KEY.npy; known are {', '.join(_PICTURES)}.",
        )
    notes = () if len(kept) == len(samples) else (f"{len(samples) - len(kept)} keys of the archive have no sample",)
    chosen = {key: _sample(files) for key, files in kept.items()}
    kinds = {str(name).rpartition(".")[2].lower() == "npy" for name in chosen.values()}
    if len(kinds) != 1:
        raise request.bad("some samples are pictures and others arrays.", "Give all samples one form.")
    labels = _labels(archive, kept, request)
    parts = [PARTS.get(key.partition("/")[0].lower(), request.needed) for key in kept]
    names = [str(name) for name in chosen.values()]
    if kinds == {True}:
        return _arrays(archive, names, labels, request)
    held = HeldFiles({name: archive.members[name].size for name in names}, archive.read)
    found = pictures_of(held, held.listed, request)
    return data_of_pictures(found, labels, parts, request, labels_name="the labels", notes=notes)


def _sample(files: Mapping[str, str]) -> str | None:
    return next((files[suffix] for suffix in (*_PICTURES, "npy") if suffix in files), None)


def _labels(archive: _Archive, samples: Mapping[str, Mapping[str, str]], request: Request) -> Any:
    """The label of each sample; ``None`` if none has one."""
    found: list[Any] = []
    for key, files in samples.items():
        suffix = next((suffix for suffix in _LABELS if suffix in files), None)
        found.append(None if suffix is None else _label(archive, files[suffix], suffix, key, request))
    if all(label is None for label in found):
        return None
    missing = next((key for key, label in zip(samples, found, strict=True) if label is None), None)
    if missing is not None:
        raise request.bad(f"{missing!r} has no label, others have.", f"Add {missing}.cls.")
    whole = all(isinstance(label, int) for label in found)
    return np.array(found) if whole or not isinstance(found[0], int) else np.array([str(label) for label in found])


def _label(archive: _Archive, name: str, suffix: str, key: str, request: Request) -> Any:
    if archive.members[name].size > _LARGEST_LABEL:
        raise request.bad(f"the label of {key!r} has {archive.members[name].size} bytes.", "Give a number or a name.")
    try:
        text = archive.read(name).decode().strip()
        value = json.loads(text) if suffix == "json" else text
        str(value).encode()  # an escape of JSON may be half a character
    except (ValueError, RecursionError) as error:
        raise request.bad(f"the label of {key!r} cannot be read ({error}).", "Give a number or a name.") from error
    if isinstance(value, dict):
        value = next((value[word] for word in ("label", "cls", "class", "target", "y") if word in value), None)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    number = isinstance(value, int | float) and -(2**63) <= value < 2**63
    if not number and not isinstance(value, str):
        raise request.bad(f"the label of {key!r} is not in {name!r}.", 'Write {"label": 3} or {"label": "cat"}.')
    return value


def _arrays(archive: _Archive, names: list[str], labels: Any, request: Request) -> RawData:
    writer: SampleWriter | None = None
    for name in names:
        if archive.members[name].size > _LARGEST_ARRAY:
            raise request.bad(f"{name!r} has {archive.members[name].size} bytes.", "Give smaller samples.")
        try:
            array = np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise request.bad(
                f"{name!r} is no array ({error}).", "Save it with numpy.save, without objects."
            ) from error
        if writer is None:
            writer = SampleWriter(
                len(names),
                shape=array.shape,
                dtype=array.dtype,
                folder=request.scratch,
                field=request.field,
                value=request.uri,
            )
        if array.shape != writer.sample_shape or array.dtype != writer.dtype:
            raise request.bad(
                f"{name!r} is {array.dtype} {list(array.shape)}, the first {writer.dtype} {list(writer.sample_shape)}.",
                "Give all samples one shape and type.",
            )
        writer.add(array[None])
    assert writer is not None
    found = Found(samples=writer.samples(), targets=labels, samples_name="the arrays", targets_name="the labels")
    return assembled({request.needed: found}, request)
