"""Picture files as samples: decoded as viewers show them, brought to one size, one at a time."""

from edgefolio_pruner.data.pictures.reader import (
    Interpolation,
    PictureSize,
    ReadPictures,
    SizesDifferError,
    read_pictures,
)

__all__ = ["Interpolation", "PictureSize", "ReadPictures", "SizesDifferError", "read_pictures"]
