"""Random numbers that are pure functions of a seed and an index: no hidden state, so work can resume anywhere.

The mixer is the finaliser of splitmix64 (Steele, Lea and Flood 2014); every stream has a name of its own.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def random_bits(indices: npt.NDArray[np.int64], *, seed: int, stream: str, epoch: int = 0) -> npt.NDArray[np.uint64]:
    """64 random bits per index; equal arguments give equal bits on every machine."""
    key = hashlib.sha256(f"{stream}/{seed}/{epoch}".encode()).digest()[:8]
    with np.errstate(over="ignore"):
        mixed = indices.astype(np.uint64) * _GOLDEN + np.uint64(int.from_bytes(key, "little"))
        for multiplier in (_FIRST, _SECOND):
            mixed = (mixed ^ (mixed >> np.uint64(30))) * multiplier
        result: npt.NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return result


def shuffled(count: int, *, seed: int, stream: str, epoch: int = 0) -> npt.NDArray[np.int64]:
    """The numbers 0..count-1 in random order: sorted by their :func:`random_bits`."""
    bits = random_bits(np.arange(count), seed=seed, stream=stream, epoch=epoch)
    return np.argsort(bits, kind="stable").astype(np.int64)
