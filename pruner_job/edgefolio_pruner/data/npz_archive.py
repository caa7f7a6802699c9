"""Bounded reading of arrays from a ``.npz`` file: each array's header first, its values only if they fit."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import IO

import numpy as np
import numpy.typing as npt

from edgefolio_pruner.available_memory import require_memory

_SUFFIX = ".npy"
#: What NumPy writes. LZMA's header may ask for gigabytes by itself.
_COMPRESSIONS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
#: NumPy's own limit of a header's text, which it checks after reading it.
_LONGEST_HEADER = 10_000

Array = npt.NDArray[np.generic]
Header = tuple[tuple[int, ...], np.dtype[np.generic]]


class NpzArchive:
    """The arrays in the bytes of a ``.npz`` file. Whatever is wrong with them raises :class:`ValueError`."""

    def __init__(self, content: bytes) -> None:
        self._zip = _readable(content)
        #: By name.
        self._members: Mapping[str, zipfile.ZipInfo] = {
            member.filename.removesuffix(_SUFFIX): member for member in self._zip.infolist()
        }

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays, sorted."""
        return tuple(sorted(self._members))

    def header(self, name: str) -> Header:
        """Shape and element type of the array ``name``, which has as many values as they say."""
        try:
            with self._open(name) as stream:
                return _read_header(stream, self._members[name].file_size)
        except MemoryError:
            raise
        except Exception as error:  # zipfile, zlib, ast and NumPy each raise their own kinds
            raise _unreadable(name, error) from error

    def array(self, name: str) -> Array:
        """The array ``name``. Its size is that of its header."""
        self.header(name)
        try:
            with self._open(name) as stream:
                array: Array = np.lib.format.read_array(stream, allow_pickle=False)  # type: ignore[no-untyped-call]
                # To the end of the member, where its checksum is compared.
                if stream.read(1):
                    raise ValueError("it goes on after its values")
                return array
        except MemoryError:
            raise
        except Exception as error:
            raise _unreadable(name, error) from error

    def require_memory(self, names: tuple[str, ...], *, field: str, value: object) -> None:
        """Raise :class:`~edgefolio.errors.UserError` unless the arrays fit, and float32 copies of them."""
        needed = 0
        for name in names:
            shape, kind = self.header(name)
            needed += math.prod(shape) * (kind.itemsize + np.dtype(np.float32).itemsize)
        require_memory(needed, what="the data", field=field, value=value)

    def _open(self, name: str) -> IO[bytes]:
        member = self._members[name]
        if member.compress_type not in _COMPRESSIONS:
            raise ValueError(f"it is compressed by method {member.compress_type}")
        return self._zip.open(member)


def _readable(content: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(content))
    except MemoryError:
        raise
    except Exception as error:  # a damaged directory raises many kinds
        raise ValueError(str(error)) from error


def _read_header(stream: IO[bytes], size: int) -> Header:
    version = np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
    length_bytes = 2 if version == (1, 0) else 4
    prefix = stream.read(length_bytes)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < length_bytes or length > _LONGEST_HEADER:
        raise ValueError(f"its header is {length} bytes long")
    text = io.BytesIO(prefix + stream.read(length))
    # A header of version 3 differs in its encoding alone, which matters to names of fields.
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(text)  # type: ignore[no-untyped-call]
    if kind.hasobject:
        raise ValueError("it holds objects, which are a pickle")
    given = size - np.lib.format.MAGIC_LEN - length_bytes - length
    if any(side < 0 for side in shape) or math.prod(shape) * kind.itemsize != given:
        raise ValueError(f"its header says {_shown(shape)} values of {kind.itemsize} bytes, and {given} bytes follow")
    return shape, kind


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape[:8]) or "one"


def _unreadable(name: str, error: Exception) -> ValueError:
    return ValueError(f"{name!r}: {' '.join(str(error).split()) or type(error).__name__}")
