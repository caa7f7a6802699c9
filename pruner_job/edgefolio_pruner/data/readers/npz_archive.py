"""Bounded reading of arrays from a ``.npz`` file: each array's header first, its values only if they fit."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from edgefolio_pruner.available_memory import require_memory

_SUFFIX = ".npy"
#: What NumPy writes. LZMA's header may ask for gigabytes by itself.
_COMPRESSIONS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
#: NumPy's own limit of a header's text, which it checks after reading it.
_LONGEST_HEADER = 10_000
#: Smaller arrays are read at once.
_MAPPED_BYTES = 64 << 20
_BLOCK_BYTES = 1 << 20
#: A member's own header: 26 bytes of no interest here, the lengths of its name and of what follows it.
_LOCAL_HEADER = struct.Struct("<26sHH")

Array = npt.NDArray[np.generic]
Header = tuple[tuple[int, ...], np.dtype[np.generic]]


class NpzArchive:
    """The arrays of a ``.npz`` file, in memory or on disk. Whatever is wrong with them raises :class:`ValueError`."""

    def __init__(self, content: bytes | Path) -> None:
        self._zip = _readable(content)
        self._path = content if isinstance(content, Path) else None
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

    def array(self, name: str, *, mapped: bool = False) -> Array:
        """The array ``name``. Its size is that of its header.

        With ``mapped`` it stays in the file, where that is a file on this machine and the array is stored as it is.
        """
        self.header(name)
        try:
            if mapped and self._can_be_mapped(name):
                return self._mapped(name)
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
            if self._can_be_mapped(name):
                continue
            needed += math.prod(shape) * (kind.itemsize + np.dtype(np.float32).itemsize)
        require_memory(needed, what="the data", field=field, value=value)

    def _can_be_mapped(self, name: str) -> bool:
        member = self._members[name]
        return (
            self._path is not None and member.compress_type == zipfile.ZIP_STORED and member.file_size >= _MAPPED_BYTES
        )

    def _mapped(self, name: str) -> Array:
        assert self._path is not None
        member = self._members[name]
        with self._open(name) as stream:
            while stream.read(_BLOCK_BYTES):
                pass  # its checksum is compared at its end
        with self._path.open("rb") as file:
            file.seek(member.header_offset)
            fixed = file.read(_LOCAL_HEADER.size)
            _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(fixed)
            start = member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
            file.seek(start)
            shape, kind = _read_header(file, member.file_size)
            file.seek(start)
            version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            in_columns = bool(read(file)[1])  # type: ignore[no-untyped-call]
            offset = file.tell()
        return np.memmap(self._path, dtype=kind, mode="r", offset=offset, shape=shape, order="F" if in_columns else "C")

    def _open(self, name: str) -> IO[bytes]:
        member = self._members[name]
        if member.compress_type not in _COMPRESSIONS:
            raise ValueError(f"it is compressed by method {member.compress_type}")
        return self._zip.open(member)


def _readable(content: bytes | Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(content if isinstance(content, Path) else io.BytesIO(content))
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
