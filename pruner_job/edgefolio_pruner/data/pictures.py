"""Bounded reading of picture files: one at a time, its size off its header before it is unpacked."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgefolio.errors import EdgefolioError, UserError
from edgefolio.transient_errors import unreachable
from edgefolio_pruner.available_memory import require_memory

#: Pillow knows more: of EPS, for one, it lets Ghostscript run the program in it.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_GREY_MODES = frozenset({"1", "L", "LA", "I;16"})
#: Pillow warns from here on, and takes four bytes a pixel. The picture at its new size is bounded by it as well: a
#: row of 60,000 pixels brought to a height of 224 would have three thousand million.
_MOST_PIXELS = 89_478_485
_LARGEST_FILE = 256 << 20
_PIXEL_BYTES = 4
_REMEDY = "Mend or remove it."

Pixels = npt.NDArray[np.uint8]


def read_pictures(
    filesystem: Any, files: Mapping[str, Mapping[str, Any]], *, image_size: int | None, field: str
) -> Pixels:
    """The pictures as uint8 ``[N, C, H, W]``, grey if all are grey, else RGB; ``files`` as the file system lists them.

    With ``image_size`` they are scaled so that the shorter side fits and cut to the middle square. Raises
    :class:`UserError` for ``field`` if one cannot be read or is too large, if they take more memory than there is, or
    if their sizes differ and ``image_size`` is None.
    """
    images: list[Pixels] = []
    for path, listed in files.items():
        picture = _open(filesystem, path, listed, field)
        if images and image_size is None and picture.size != (images[0].shape[2], images[0].shape[1]):
            raise UserError(
                f"its size {picture.width}x{picture.height} is not that of the first image, "
                f"{images[0].shape[2]}x{images[0].shape[1]}.",
                field=field,
                value=path,
                remedy="Set data.imageSize to bring all images to one size.",
            )
        image = _pixels(_decoded(picture, path, field), path, image_size=image_size, field=field)
        if not images or image.shape[0] > images[0].shape[0]:
            # With the float32 copies that training needs. Those before are grey, and become RGB.
            values = image.size * len(files)
            require_memory(5 * values, what="the pictures", field=field, value=path)
        images.append(image)
    channels = max(image.shape[0] for image in images)
    stacked = np.empty((len(images), channels, *images[0].shape[1:]), dtype=np.uint8)
    for place, image in zip(stacked, images, strict=True):
        place[:] = image  # one grey channel fills all three
    return stacked


def _open(filesystem: Any, path: str, listed: Mapping[str, Any], field: str) -> Image.Image:
    """The picture, not yet decoded."""
    try:
        # A link is listed as something else than a file.
        known = listed if listed.get("type") == "file" else filesystem.info(path)
        if known["type"] != "file" or known["size"] > _LARGEST_FILE:
            raise _unusable(
                f"this is no file of at most {_LARGEST_FILE} bytes, but a {known['type']} of {known['size']}",
                path,
                field,
            )
        content = filesystem.cat_file(path)
    except (EdgefolioError, MemoryError):
        raise
    except Exception as error:  # every driver of fsspec raises its own kinds
        raise unreachable(
            error, f"this image cannot be read ({type(error).__name__}).", field=field, value=path, remedy=_REMEDY
        ) from error
    try:
        picture = Image.open(io.BytesIO(content), formats=_FORMATS)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        raise _unusable(f"this image cannot be read ({type(error).__name__})", path, field) from error
    if math.prod(picture.size) > _MOST_PIXELS:
        raise _unusable(
            f"this image has {picture.width}x{picture.height} pixels", path, field, remedy="Make it smaller."
        )
    return picture


def _decoded(picture: Image.Image, path: str, field: str) -> Image.Image:
    require_memory(_PIXEL_BYTES * math.prod(picture.size), what="this image", field=field, value=path)
    try:
        picture.load()
    except MemoryError:
        raise
    except Exception as error:
        raise _unusable(f"this image cannot be read ({type(error).__name__})", path, field) from error
    return picture


def _pixels(picture: Image.Image, path: str, *, image_size: int | None, field: str) -> Pixels:
    """Its values, ``[1, H, W]`` of a grey picture, else ``[3, H, W]``."""
    mode = "L" if picture.mode in _GREY_MODES else "RGB"
    converted = picture if picture.mode == mode else picture.convert(mode)
    if image_size is not None:
        converted = _to_size(converted, image_size, path, field)
    array = np.asarray(converted, dtype=np.uint8)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _to_size(picture: Image.Image, size: int, path: str, field: str) -> Image.Image:
    ratio = size / min(picture.size)
    width, height = (max(size, round(side * ratio)) for side in picture.size)
    if width * height > _MOST_PIXELS:
        raise _unusable(
            f"the sides of this image, {picture.width}x{picture.height}, differ too much", path, field, remedy="Cut it."
        )
    left, top = (width - size) // 2, (height - size) // 2
    return picture.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def _unusable(problem: str, path: str, field: str, *, remedy: str = _REMEDY) -> UserError:
    return UserError(f"{problem}.", field=field, value=path, remedy=remedy)
