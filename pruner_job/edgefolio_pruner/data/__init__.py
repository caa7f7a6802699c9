"""Data sets: built-in, image folders and ``.npz`` files, as normalised arrays in three disjoint splits."""

from edgefolio_pruner.data.bundle import DataBundle, Split
from edgefolio_pruner.data.loading import load_data

__all__ = ["DataBundle", "Split", "load_data"]
