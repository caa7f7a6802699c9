"""Writer of samples that are read one by one: in memory while they are few, in a file without a name beyond."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefolio.errors import UserError
from edgefolio_pruner.available_memory import available_memory, shown_bytes
from edgefolio_pruner.data.stored.samples import AnySamples, FileSamples, UnnamedFile

#: Samples of fewer bytes stay in memory.
IN_MEMORY_BYTES = 64 << 20
_BLOCK_BYTES = 64 << 20
#: Part of the free memory that samples may take where there is no disk for them.
_SHARE_OF_MEMORY = 0.25
#: The rest is for results, and for others.
_SHARE_OF_DISK = 0.8

Array = npt.NDArray[Any]


class SampleWriter:
    """Takes ``count`` samples of one shape and type, one after the other.

    The file lies in ``folder`` (or the system's own for temporary files) and has no name: it is gone with the process,
    however that ends.
    """

    def __init__(
        self,
        count: int,
        *,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        folder: Path | None,
        field: str,
        value: object,
        in_memory_bytes: int = IN_MEMORY_BYTES,
    ) -> None:
        """Raises :class:`UserError` for ``field`` if neither disk nor memory hold so much."""
        self._shape, self._dtype = (count, *shape), dtype
        self._folder, self._field, self._value, self._in_memory_bytes = folder, field, value, in_memory_bytes
        self._written = 0
        needed = int(np.prod(self._shape, dtype=np.int64)) * dtype.itemsize
        self._array: Array | None = None
        self._file: UnnamedFile | None = None
        if needed > in_memory_bytes:
            self._file = self._opened(needed)
        if self._file is None:
            self._array = np.empty(self._shape, dtype=dtype)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self._shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self._dtype

    def add(self, samples: Array) -> None:
        """The next samples ``[n, ...]``; those of one channel fill all channels."""
        values = np.ascontiguousarray(np.broadcast_to(samples, (len(samples), *self._shape[1:])), dtype=self._dtype)
        if self._array is not None:
            self._array[self._written : self._written + len(values)] = values
        else:
            assert self._file is not None
            self._file.append(values.reshape(-1).view(np.uint8).data)
        self._written += len(values)

    def changed(self, *, shape: tuple[int, ...], dtype: np.dtype[Any], factor: int = 1) -> SampleWriter:
        """A writer for another shape or type, with what was written so far in it, each value times ``factor``."""
        other = SampleWriter(
            self._shape[0],
            shape=shape,
            dtype=dtype,
            folder=self._folder,
            field=self._field,
            value=self._value,
            in_memory_bytes=self._in_memory_bytes,
        )
        written, done = self._so_far(), self._written
        step = max(1, _BLOCK_BYTES // max(1, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize))
        for start in range(0, done, step):
            other.add(written[start : min(start + step, done)].astype(dtype) * dtype.type(factor))
        return other

    def samples(self) -> AnySamples:
        """All samples, once they are written."""
        assert self._written == self._shape[0]
        return self._so_far()

    def _so_far(self) -> AnySamples:
        if self._array is not None:
            return self._array
        assert self._file is not None
        return FileSamples(self._file, shape=self._shape, dtype=self._dtype)

    def _opened(self, needed: int) -> UnnamedFile | None:
        """A file with space for ``needed`` bytes; ``None`` if memory is to hold them."""
        folder = self._folder if self._folder is not None else Path(tempfile.gettempdir())
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if _SHARE_OF_DISK * shutil.disk_usage(folder).free > needed:
                return UnnamedFile(folder)
            problem = f"{shown_bytes(shutil.disk_usage(folder).free)} are free there"
        except OSError as error:
            problem = str(error.strerror or error)
        if needed <= _SHARE_OF_MEMORY * available_memory().free:
            return None
        raise UserError(
            f"the samples take {shown_bytes(needed)}, more than memory is to hold, and there is no room for them in "
            f"{folder} ({problem}).",
            field=self._field,
            value=self._value,
            remedy="Give the work directory (--work-dir) more space, or set data.imageSize to a smaller size.",
        )
