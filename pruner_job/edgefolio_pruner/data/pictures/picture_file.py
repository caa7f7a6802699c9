"""One picture file, decoded as viewers show it: turned as its EXIF orientation says, transparent parts on black."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from edgefolio.errors import EdgefolioError, UserError
from edgefolio.transient_errors import unreachable
from edgefolio_pruner.available_memory import require_memory

#: Pillow knows more: of EPS, for one, it lets Ghostscript run the program in it.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_GREY_MODES = frozenset({"1", "L", "LA", "La"})
_SIXTEEN_BITS = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_EIGHT_BITS = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}) | _GREY_MODES
#: Pillow warns from here on, and takes four bytes a pixel. The picture at its new size is bounded by it as well: a
#: row of 60,000 pixels brought to a height of 224 would have three thousand million.
MOST_PIXELS = 89_478_485
_LARGEST_FILE = 256 << 20
_PIXEL_BYTES = 4
_ORIENTATION = 0x112
_REMEDY = "Mend or remove it."

Depth = Literal["uint8", "uint16", "float32"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Its values ``[C, H, W]``, one channel of a grey picture and three of others."""

    pixels: npt.NDArray[Any]
    depth: Depth


@dataclass(kw_only=True)
class Counts:
    """How many pictures were changed before they became samples."""

    turned: int = 0
    transparent: int = 0
    animated: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each kind."""
        told = {
            "pictures were turned as their EXIF orientation says": self.turned,
            "pictures have transparent pixels, which are black here": self.transparent,
            "files hold several pictures, of which the first is read": self.animated,
        }
        return tuple(f"{count} {what}" for what, count in told.items() if count)


def read_picture(filesystem: Any, path: str, listed: Mapping[str, Any], *, field: str, counts: Counts) -> Picture:
    """The picture at ``path``, upright. Raises :class:`UserError` for ``field``."""
    picture = _opened(filesystem, path, listed, field)
    require_memory(_PIXEL_BYTES * math.prod(picture.size), what="this image", field=field, value=path)
    try:
        picture.load()
        counts.animated += int(getattr(picture, "is_animated", False))
        if picture.getexif().get(_ORIENTATION, 1) in range(2, 9):
            counts.turned += 1
            picture = ImageOps.exif_transpose(picture)
        return _values(picture, path, field, counts)
    except (EdgefolioError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        raise _unusable(f"this image cannot be read ({type(error).__name__})", path, field) from error


def _opened(filesystem: Any, path: str, listed: Mapping[str, Any], field: str) -> Image.Image:
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
    except Exception as error:
        raise _unusable(f"this image cannot be read ({type(error).__name__})", path, field) from error
    if math.prod(picture.size) > MOST_PIXELS:
        raise _unusable(
            f"this image has {picture.width}x{picture.height} pixels", path, field, remedy="Make it smaller."
        )
    return picture


def _values(picture: Image.Image, path: str, field: str, counts: Counts) -> Picture:
    if picture.mode in _EIGHT_BITS:
        return Picture(pixels=_eight_bits(picture, path, field, counts), depth="uint8")
    array = np.asarray(picture)[None]
    if picture.mode in _SIXTEEN_BITS:
        return Picture(pixels=_without_key(array.astype(np.uint16), picture, counts), depth="uint16")
    if picture.mode == "F":
        return Picture(pixels=array.astype(np.float32), depth="float32")
    # Pillow brings PNG and PPM of more than 8 bits to 0..65535 in this mode. What a TIFF of 32 bits means is not known.
    if picture.mode == "I" and picture.format in ("PNG", "PPM") and 0 <= array.min() <= array.max() <= 65535:
        return Picture(pixels=_without_key(array.astype(np.uint16), picture, counts), depth="uint16")
    raise _unusable(
        f"this image is of Pillow's mode {picture.mode!r} ({picture.format}), whose range is not known",
        path,
        field,
        remedy="Convert it to 8 or 16 bits, or to floating values (TIFF).",
    )


def _eight_bits(picture: Image.Image, path: str, field: str, counts: Counts) -> npt.NDArray[np.uint8]:
    grey = picture.mode in _GREY_MODES
    if picture.has_transparency_data or picture.mode in ("La", "RGBa"):
        # Decoded, with its transparency, and on black.
        require_memory(3 * _PIXEL_BYTES * math.prod(picture.size), what="this image", field=field, value=path)
        shown = picture if picture.mode in ("LA", "RGBA") else picture.convert("LA" if grey else "RGBA")
        alpha = shown.getchannel("A")
        if alpha.getextrema()[0] != 255:
            counts.transparent += 1
            black = Image.new(shown.mode, shown.size, 0)
            picture = Image.composite(shown, black, alpha)
    mode = "L" if grey else "RGB"
    if picture.mode in ("LA", "RGBA"):
        # Of these the conversion would leave out the transparency by itself, and keep the colour under it.
        picture = Image.merge(mode, picture.split()[:-1])
    array = np.asarray(picture if picture.mode == mode else picture.convert(mode), dtype=np.uint8)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _without_key(array: npt.NDArray[np.uint16], picture: Image.Image, counts: Counts) -> npt.NDArray[np.uint16]:
    """With black where the value is the one that stands for transparent."""
    key = picture.info.get("transparency")
    if isinstance(key, int) and (array == key).any():
        counts.transparent += 1
        return np.where(array == key, np.uint16(0), array)
    return array


def _unusable(problem: str, path: str, field: str, *, remedy: str = _REMEDY) -> UserError:
    return UserError(f"{problem}.", field=field, value=path, remedy=remedy)
