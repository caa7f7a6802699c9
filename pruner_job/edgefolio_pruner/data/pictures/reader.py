"""Reader of picture files: one at a time, its size off its header before it is unpacked, as viewers show it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgefolio.errors import UserError
from edgefolio.manifest import PictureReading
from edgefolio_pruner.data.pictures.picture_file import MOST_PIXELS, Counts, Depth, Picture, read_picture
from edgefolio_pruner.data.stored import AnySamples, SampleWriter

Interpolation = Literal["Nearest", "Bilinear", "Bicubic", "Lanczos", "Box", "Hamming"]
_SCALES: Mapping[Depth, float] = {"uint8": 1 / 255, "uint16": 1 / 65535, "float32": 1.0}
#: 255 times it is 65,535.
_SIXTEEN_OVER_EIGHT = 257


@dataclass(frozen=True, kw_only=True)
class PictureSize:
    """The shorter side is scaled to ``shorter`` pixels, then the middle square of ``crop`` pixels is cut out."""

    crop: int
    shorter: int
    interpolation: Interpolation = "Bilinear"

    @classmethod
    def of(cls, image_size: int) -> PictureSize:
        """The whole middle square at this size."""
        return cls(crop=image_size, shorter=image_size)


@dataclass(frozen=True, kw_only=True)
class ReadPictures:
    """Pictures as samples ``[N, C, H, W]``, the factor that brings them to 0..1, and what was done to them."""

    samples: AnySamples
    scale: float
    reading: PictureReading
    notes: tuple[str, ...] = ()


class SizesDifferError(UserError):
    """Pictures of several sizes, and none that they are to have."""


def read_pictures(
    filesystem: Any,
    files: Mapping[str, Mapping[str, Any]],
    *,
    size: PictureSize | None,
    field: str,
    folder: Path | None = None,
) -> ReadPictures:
    """The pictures, grey if all are grey, else RGB; ``files`` as the file system lists them.

    Of 8 bits where all are, else of 16; pictures of floating values are taken as they are. Many are kept in a file in
    ``folder``. Raises :class:`UserError` for ``field`` if one cannot be read or is too large, if there is
    no room for them, or if their sizes differ and ``size`` is None (:class:`SizesDifferError`).
    """
    reader = _Reader(count=len(files), size=size, field=field, folder=folder)
    for path, listed in files.items():
        reader.add(read_picture(filesystem, path, listed, field=field, counts=reader.counts), path)
    return reader.finished()


@dataclass(kw_only=True)
class _Reader:
    """The pictures so far. The first decides what is written; one of more channels or bits changes what was."""

    count: int
    size: PictureSize | None
    field: str
    folder: Path | None
    counts: Counts = dataclasses.field(default_factory=Counts)
    writer: SampleWriter | None = None
    depth: Depth = "uint8"

    def add(self, picture: Picture, path: str) -> None:
        pixels = self._sized(picture, path)
        if self.writer is None:
            self.depth = picture.depth
            self.writer = self._new_writer(pixels.shape)
        self._fit(pixels, picture.depth, path)
        if self.depth == "uint16" and picture.depth == "uint8":
            pixels = pixels.astype(np.uint16) * np.uint16(_SIXTEEN_OVER_EIGHT)
        self.writer.add(pixels[None])

    def finished(self) -> ReadPictures:
        assert self.writer is not None
        return ReadPictures(
            samples=self.writer.samples(),
            scale=_SCALES[self.depth],
            reading=PictureReading(
                channels="Grey" if self.writer.sample_shape[0] == 1 else "RGB",
                values={"uint8": "UInt8", "uint16": "UInt16", "float32": "Float32"}[self.depth],
                resized_shorter_side=None if self.size is None else self.size.shorter,
                interpolation=None if self.size is None else self.size.interpolation,
                centre_crop=None if self.size is None else self.size.crop,
            ),
            notes=self.counts.notes,
        )

    def _new_writer(self, shape: tuple[int, ...]) -> SampleWriter:
        return SampleWriter(
            self.count,
            shape=shape,
            dtype=np.dtype(self.depth),
            folder=self.folder,
            field=self.field,
            value="its pictures",
        )

    def _fit(self, pixels: npt.NDArray[Any], depth: Depth, path: str) -> None:
        """Make the writer one that this picture fits into. Raises :class:`UserError` if there is none."""
        assert self.writer is not None
        held = self.writer.sample_shape
        if pixels.shape[1:] != held[1:]:
            raise SizesDifferError(
                f"its size {pixels.shape[2]}x{pixels.shape[1]} is not that of the first image, {held[2]}x{held[1]}.",
                field=self.field,
                value=path,
                remedy="Set data.imageSize to bring all images to one size.",
            )
        if (depth == "float32") != (self.depth == "float32"):
            raise UserError(
                "its values are floating and those of the images before it are not, or the other way round.",
                field=self.field,
                value=path,
                remedy="Give all images one kind of values.",
            )
        channels = max(held[0], pixels.shape[0])
        deeper = depth == "uint16" and self.depth == "uint8"
        if channels == held[0] and not deeper:
            return
        self.depth = "uint16" if deeper else self.depth
        self.writer = self.writer.changed(
            shape=(channels, *held[1:]),
            dtype=np.dtype(self.depth),
            factor=_SIXTEEN_OVER_EIGHT if deeper else 1,
        )

    def _sized(self, picture: Picture, path: str) -> npt.NDArray[Any]:
        pixels = picture.pixels
        if self.size is None:
            return pixels
        height, width = pixels.shape[1:]
        ratio = self.size.shorter / min(height, width)
        wide, high = (max(self.size.shorter, round(side * ratio)) for side in (width, height))
        if wide * high > MOST_PIXELS:
            raise UserError(
                f"the sides of this image, {width}x{height}, differ too much.",
                field=self.field,
                value=path,
                remedy="Cut it.",
            )
        left, top = ((side - self.size.crop) // 2 for side in (wide, high))
        how = Image.Resampling[self.size.interpolation.upper()]
        box = (left, top, left + self.size.crop, top + self.size.crop)
        planes = [np.asarray(plane.resize((wide, high), how).crop(box)) for plane in _planes(pixels)]
        found = planes[0].transpose(2, 0, 1) if planes[0].ndim == 3 else np.stack(planes)
        if picture.depth == "uint16":
            found = np.rint(found).clip(0, 65535)
        return np.ascontiguousarray(found, dtype=picture.depth)


def _planes(pixels: npt.NDArray[Any]) -> list[Image.Image]:
    """As pictures that can be scaled: of 8 bits in one piece, else channel by channel in floating values."""
    if pixels.dtype == np.uint8:
        return [Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))]
    return [Image.fromarray(plane.astype(np.float32)) for plane in pixels]
