"""Samples that are not all held in memory: rows of a file, rows of another array, and rows normalised as they are read.

They are indexed along their first axis alone, by a slice, an array of positions or a mask, and give arrays of NumPy.
Files are read at positions and not mapped: mapped pages count as memory of the process, which is to stay flat.
"""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefolio.manifest import Preprocessing

Array = npt.NDArray[Any]
Positions = npt.NDArray[np.int64]
#: Values in one step of a computation on all samples.
VALUES_AT_ONCE = 1 << 22

Index = slice | Positions | npt.NDArray[np.bool_] | npt.NDArray[np.integer[Any]]


class StoredSamples(ABC):
    """Samples ``[N, ...]`` elsewhere than in one array."""

    def __init__(self, *, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype

    @property
    def ndim(self) -> int:
        """Number of axes, that of the samples included."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Index) -> Array:
        return self._rows(positions_of(index, len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """All samples at once, in memory."""
        return np.asarray(self[:], dtype=dtype)

    @abstractmethod
    def _rows(self, positions: Positions) -> Array:
        """The samples at ``positions``, none of which is negative."""


#: Raw samples, or normalised ones.
AnySamples = Array | StoredSamples


class UnnamedFile:
    """A file in ``folder`` without a name: it is gone with this object, or with the process, however that ends."""

    def __init__(self, folder: Path) -> None:
        with tempfile.TemporaryFile(prefix="edgefolio-samples-", dir=folder) as file:
            self.descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.descriptor)

    def append(self, content: memoryview) -> None:
        """Write ``content`` at its end."""
        while content:
            content = content[os.write(self.descriptor, content) :]


class FileSamples(StoredSamples):
    """Samples in a file, one after the other from ``offset`` on, in C order."""

    def __init__(self, file: UnnamedFile, *, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int = 0) -> None:
        super().__init__(shape=shape, dtype=dtype)
        self._file, self._offset = file, offset
        self._row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize

    def _rows(self, positions: Positions) -> Array:
        found = np.empty((len(positions), *self.shape[1:]), dtype=self.dtype)
        if found.nbytes == 0:
            return found
        view = found.reshape(-1).view(np.uint8).data
        # Neighbours are read together.
        starts = np.flatnonzero(np.diff(positions, prepend=-2) != 1)
        for start, stop in zip(starts, [*starts[1:], len(positions)], strict=True):
            self._read(view[start * self._row_bytes : stop * self._row_bytes], int(positions[start]))
        return found

    def _read(self, into: memoryview, position: int) -> None:
        place, done = self._offset + position * self._row_bytes, 0
        while done < len(into):
            count = os.preadv(self._file.descriptor, [into[done:]], place + done)
            if count == 0:
                raise OSError(f"the file of samples ends at byte {place + done}")
            done += count


class ChosenSamples(StoredSamples):
    """Some of other samples, in the order of their ``positions``."""

    def __init__(self, samples: AnySamples, positions: Positions) -> None:
        super().__init__(shape=(len(positions), *samples.shape[1:]), dtype=samples.dtype)
        self._samples, self._positions = samples, positions

    def _rows(self, positions: Positions) -> Array:
        return rows_of(self._samples, self._positions[positions])


class NormalisedSamples(StoredSamples):
    """Raw samples as the network takes them: float32, scaled, with mean and deviation of each channel taken off.

    Without any mean and deviation they are scaled alone.
    """

    def __init__(self, samples: AnySamples, preprocessing: Preprocessing) -> None:
        super().__init__(shape=samples.shape, dtype=np.dtype(np.float32))
        self._samples = samples
        shape = (1, -1, *(1 for _ in samples.shape[2:]))
        self._scale = np.float32(preprocessing.scale)
        self._mean = np.array(preprocessing.mean or (0.0,), dtype=np.float32).reshape(shape)
        self._deviation = np.array(preprocessing.std or (1.0,), dtype=np.float32).reshape(shape)

    def _rows(self, positions: Positions) -> Array:
        values = np.ascontiguousarray(rows_of(self._samples, positions), dtype=np.float32)
        if values.base is not None or values is self._samples:
            values = values.copy()
        values *= self._scale
        values -= self._mean
        values /= self._deviation
        return values


class JoinedSamples(StoredSamples):
    """Several samples one after the other."""

    def __init__(self, parts: list[AnySamples]) -> None:
        shape, dtype = parts[0].shape[1:], parts[0].dtype
        super().__init__(shape=(sum(len(part) for part in parts), *shape), dtype=dtype)
        self._parts = parts

    def _rows(self, positions: Positions) -> Array:
        found = np.empty((len(positions), *self.shape[1:]), dtype=self.dtype)
        first = 0
        for part in self._parts:
            here = (positions >= first) & (positions < first + len(part))
            if here.any():
                found[here] = rows_of(part, positions[here] - first)
            first += len(part)
        return found


def rows_of(samples: AnySamples, positions: Positions) -> Array:
    """The samples at ``positions``, as an array of their own."""
    found: Array = samples[positions]
    return found


def chosen(samples: AnySamples, positions: Positions) -> AnySamples:
    """The samples at ``positions``; of stored ones a view."""
    return ChosenSamples(samples, positions) if isinstance(samples, StoredSamples) else samples[positions]


def positions_of(index: Index, count: int) -> Positions:
    """The positions that ``index`` means, of ``count`` samples."""
    if isinstance(index, slice):
        return np.arange(*index.indices(count), dtype=np.int64)
    given = np.asarray(index)
    if given.dtype == bool:
        return np.flatnonzero(given).astype(np.int64)
    if given.ndim != 1:
        raise IndexError("stored samples are indexed along their first axis alone")
    positions = given.astype(np.int64)
    positions = np.where(positions < 0, positions + count, positions)
    if len(positions) and not (positions.min() >= 0 and positions.max() < count):
        raise IndexError(f"there are {count} samples")
    return positions


def slices(images: AnySamples) -> Iterator[Array]:
    """The samples in consecutive slices, so that a computation on all of them takes little memory at a time."""
    step = min(4096, max(1, VALUES_AT_ONCE // max(1, math.prod(images.shape[1:]))))
    for start in range(0, images.shape[0], step):
        yield images[start : start + step]
