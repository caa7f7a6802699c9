"""Pictures of every kind are read as viewers show them, or refused by the name of their mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgefolio.errors import UserError
from edgefolio.specification import DataSpecification
from edgefolio_pruner.data import DataBundle, load_data
from edgefolio_pruner.data.model_input import ModelInput
from edgefolio_pruner.data.pictures import PictureSize
from edgefolio_pruner.data.raw import RawData
from edgefolio_pruner.data.readers.image_folder import read_image_folder


def write(root: Path, pictures: dict[str, Image.Image], **options: Any) -> str:
    """Two classes with the same pictures."""
    for name in ("a", "b"):
        for file, picture in pictures.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            picture.save(root / name / file, **options)
    return str(root)


def read(uri: str, **settings: Any) -> tuple[np.ndarray[Any, Any], RawData]:
    data = read_image_folder(uri, image_size=settings.pop("image_size", None), field="f", **settings)
    images = data.parts["train"].images
    return np.asarray(images[: len(images) // 2]), data


def grey16(level: int = 40_000) -> Image.Image:
    return Image.fromarray((level + np.arange(12).reshape(3, 4)).astype(np.uint16))


def turned(picture: Image.Image, orientation: int) -> Image.Exif:
    del picture
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_keep_their_levels(tmp_path: Path, suffix: str) -> None:
    uri = write(tmp_path, {f"1{suffix}": grey16(), f"2{suffix}": grey16(200)})
    images, data = read(uri)
    assert images.dtype == np.uint16
    assert images[:, 0, 0].tolist() == [[40_000, 40_001, 40_002, 40_003], [200, 201, 202, 203]]
    assert data.scale == 1 / 65535
    assert data.pictures is not None
    assert (data.pictures.channels, data.pictures.values) == ("Grey", "UInt16")
    scaled, _ = read(uri, image_size=8)
    assert scaled.shape == (2, 1, 8, 8)
    assert abs(int(scaled[0].mean()) - 40_005) <= 3


def test_eight_and_sixteen_bits_and_colours_in_one_folder_are_on_one_scale(tmp_path: Path) -> None:
    pictures = {
        "1.png": Image.new("L", (4, 3), 128),
        "2.png": Image.fromarray(np.full((3, 4), 128 * 257, dtype=np.uint16)),
        "3.png": Image.new("RGB", (4, 3), (128, 0, 255)),
    }
    images, data = read(write(tmp_path, pictures))
    assert images.shape == (3, 3, 3, 4)
    assert (images * data.scale)[:, :, 0, 0] == pytest.approx(
        np.array([[128 / 255] * 3, [128 / 255] * 3, [128 / 255, 0, 1]])
    )


def test_floating_values_are_taken_as_they_are(tmp_path: Path) -> None:
    values = np.linspace(-2, 3, 12, dtype=np.float32).reshape(3, 4)
    images, data = read(write(tmp_path, {"1.tif": Image.fromarray(values)}))
    assert np.array_equal(images[0, 0], values)
    assert data.scale == 1
    write(tmp_path, {"2.png": Image.new("L", (4, 3))})
    with pytest.raises(UserError, match=r"floating.*one kind"):
        read(str(tmp_path))


def test_whole_numbers_of_32_bits_are_refused_by_their_mode(tmp_path: Path) -> None:
    uri = write(tmp_path, {"1.tif": Image.fromarray(np.full((3, 4), 100_000, dtype=np.int32))})
    with pytest.raises(UserError, match=r"mode 'I' \(TIFF\)"):
        read(uri)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = Image.fromarray(np.kron(np.array([[0, 80], [160, 240], [40, 200]], dtype=np.uint8), np.ones((8, 8))))
    upright = upright.convert("L")
    transpose = Image.Transpose
    undo = {
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_90,
        7: transpose.TRANSVERSE,
        8: transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = turned(stored, orientation)
    quality: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {"quality": 95} if suffix == ".jpg" else {}
    images, data = read(write(tmp_path, {f"1{suffix}": stored}, exif=exif, **quality))
    assert images.shape[2:] == (24, 16)
    assert np.abs(images[0, 0].astype(int) - np.asarray(upright).astype(int)).max() <= 12
    assert data.pictures is not None
    assert data.pictures.orientation == "Exif"
    if suffix != ".tif":  # Pillow turns these by itself
        assert any("2 pictures were turned" in note for note in data.notes) == (orientation > 1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_the_colour_under_transparent_pixels_is_not_seen(tmp_path: Path, mode: str) -> None:
    def picture(hidden: int) -> Image.Image:
        rgba = np.full((3, 4, 4), 200, dtype=np.uint8)
        rgba[0] = (hidden, hidden, hidden, 0)
        rgba[1, :, 3] = 255
        rgba[2, :, 3] = 255
        whole = Image.fromarray(rgba)
        if mode == "P":
            quantized = whole.convert("RGB").quantize(4)
            quantized.info["transparency"] = quantized.getpixel((0, 0))
            return quantized
        return whole.convert(mode)

    images, data = read(write(tmp_path, {"1.png": picture(17), "2.png": picture(250)}))
    assert (images[:, :, 0] == 0).all()
    assert np.abs(images[:, :, 1:].astype(int) - 200).max() <= 1
    assert "4 pictures have transparent pixels, which are black here" in data.notes
    opaque, data = read(write(tmp_path / "opaque", {"1.png": Image.new("RGBA", (4, 3), (9, 8, 7, 255))}))
    assert opaque[0, :, 0, 0].tolist() == [9, 8, 7]
    assert data.notes == ()


def test_several_pictures_in_a_file_are_told(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 3), level) for level in (10, 200)]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        frames[0].save(tmp_path / name / "1.tif", save_all=True, append_images=frames[1:])
    images, data = read(str(tmp_path))
    assert images[0, 0, 0, 0] == 10
    assert data.notes == ("2 files hold several pictures, of which the first is read",)


def sized(root: Path, *, sides: tuple[int, ...]) -> str:
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        for number in range(12):
            side = sides[number % len(sides)]
            (root / name).mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 255, (side, side + 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return str(root)


MODEL = ModelInput(
    origin="the model's own pretrained_cfg",
    mean=(0.5, 0.4, 0.3),
    deviation=(0.2, 0.2, 0.1),
    size=PictureSize(crop=16, shorter=20, interpolation="Bicubic"),
)


def load(uri: str, model: ModelInput | None, **settings: Any) -> DataBundle:
    return load_data(DataSpecification(training_uri=uri, **settings), seed=0, model_input=model)


def test_pictures_of_several_sizes_are_read_as_the_model_wants_them(tmp_path: Path) -> None:
    uri = sized(tmp_path / "several", sides=(24, 40))
    with pytest.raises(UserError, match=r"imageSize"):
        load(uri, None)
    data = load(uri, MODEL)
    assert data.sample_shape == (3, 16, 16)
    assert (data.preprocessing.mean, data.preprocessing.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    reading = data.preprocessing.pictures
    assert reading is not None
    assert (reading.centre_crop, reading.resized_shorter_side, reading.interpolation) == (16, 20, "Bicubic")
    assert any("pretrained_cfg" in note for note in data.notes)
    assert any("differ in size" in note for note in data.notes)
    picture = Image.open(tmp_path / "several" / "a" / "0.png")
    width, height = round(picture.width * 20 / 24), 20
    left = (width - 16) // 2
    wanted = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC).crop((left, 2, left + 16, 18)))
    raw = np.concatenate([part.images for part in (data.train, data.validation, data.test)])
    raw = np.rint((raw * np.reshape((0.2, 0.2, 0.1), (3, 1, 1)) + np.reshape(MODEL.mean, (3, 1, 1))) * 255)
    assert (np.abs(raw - wanted.transpose(2, 0, 1)).max(axis=(1, 2, 3)) < 0.5).any()


def test_pictures_of_one_size_stay_as_they_are(tmp_path: Path) -> None:
    uri = sized(tmp_path / "one", sides=(24,))
    assert load(uri, MODEL).sample_shape == (3, 24, 32)
    assert load(uri, MODEL, image_size=8).sample_shape == (3, 8, 8)
    own = {"mean": ["0", "0", "0"], "standardDeviation": ["1", "1", "1"]}
    given = load(uri, MODEL, normalization=own)
    assert given.preprocessing.mean == (0, 0, 0)
    assert not given.normalization_of_model


def test_other_parts_are_read_as_the_training_part_was(tmp_path: Path) -> None:
    uri, other = sized(tmp_path / "several", sides=(24, 40)), sized(tmp_path / "test", sides=(30,))
    assert load(uri, MODEL, test_uri=other).test.images.shape[1:] == (3, 16, 16)
