"""Samples that are not all held in memory, and their writer."""

from edgefolio_pruner.data.stored.samples import (
    VALUES_AT_ONCE,
    AnySamples,
    FileSamples,
    JoinedSamples,
    NormalisedSamples,
    StoredSamples,
    chosen,
    slices,
)
from edgefolio_pruner.data.stored.writer import SampleWriter

__all__ = [
    "VALUES_AT_ONCE",
    "AnySamples",
    "FileSamples",
    "JoinedSamples",
    "NormalisedSamples",
    "SampleWriter",
    "StoredSamples",
    "chosen",
    "slices",
]
