"""Bands of rows: which rows of a map each worker computes, and which rows of its inputs that takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rows", "Window", "band_edges", "divisors", "hull"]


@dataclass(frozen=True)
class Rows:
    """Rows ``start`` to ``stop``, that one not included."""

    start: int
    stop: int

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def holds(self, rows: Rows) -> bool:
        """Whether all of these rows are among them."""
        return self.start <= rows.start and rows.stop <= self.stop


def hull(parts: Iterable[Rows]) -> Rows | None:
    """The rows from the first to the last of all parts; None if no part has a row."""
    found = [part for part in parts if len(part)]
    if not found:
        return None
    return Rows(min(part.start for part in found), max(part.stop for part in found))


@dataclass(frozen=True)
class Window:
    """A convolution or pool along one axis: what it reads for its results.

    ``before`` positions of padding stand in front of the first value; results may reach past the last one.
    """

    kernel: int
    stride: int
    before: int
    dilation: int

    def reads(self, results: Rows) -> Rows:
        """Positions that these results read, those in the padding counted too."""
        first = results.start * self.stride - self.before
        last = (results.stop - 1) * self.stride - self.before + self.dilation * (self.kernel - 1)
        return Rows(first, last + 1)

    def needs(self, results: Rows, size: int) -> tuple[Rows, int, int]:
        """Of values of this ``size``: the rows that these results need, and the padding before and after them."""
        reads = self.reads(results)
        rows = Rows(min(max(reads.start, 0), size), max(min(reads.stop, size), 0))
        return rows, max(0, -reads.start), max(0, reads.stop - size)


def band_edges(size: int, shares: Sequence[int]) -> tuple[int, ...]:
    """Where the bands of ``size`` rows begin and end: 0, ..., size. A band may be empty if there are too few rows."""
    reached = np.cumsum([0, *shares]) / sum(shares)
    return tuple(int(edge) for edge in np.floor(reached * size + 0.5))


def divisors(window: Window, *, results: int, size: int, after: int, includes_padding: bool) -> NDArray[np.float64]:
    """By how many positions along one axis an average pool divides, for each of its ``results``.

    ``after`` positions of padding follow the last value; what ceil mode adds beyond them never counts.
    """
    starts = np.arange(results) * window.stride - window.before
    stops = np.minimum(starts + window.kernel, size + after)
    if not includes_padding:
        starts, stops = np.maximum(starts, 0), np.minimum(stops, size)
    found: NDArray[np.float64] = (stops - starts).astype(np.float64)
    return found
