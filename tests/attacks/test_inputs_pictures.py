"""Pictures of a stranger: small on disk and huge decoded, of odd kinds, or no pictures at all."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limited_process import run_limited
from PIL import Image

from edgefolio.errors import UserError
from edgefolio_pruner.data.readers.image_folder import read_image_folder

MEMORY = 400 << 20
# Each folder in turn, after the imports, with MEMORY bytes of address space more than they took.
LOAD = """
import json, sys, warnings, torch
from edgefolio.errors import UserError
from edgefolio.specification import DataSpecification
from edgefolio_pruner.data import load_data
from edgefolio_pruner.data.readers.image_folder import read_image_folder
import PIL.Image; PIL.Image.init()
warnings.simplefilter("ignore")
#limit
for path in sys.argv[1:]:
    try:
        data = load_data(DataSpecification(training_uri=path, image_size=32), seed=0)
        print(json.dumps(["loaded", "", str(data.sample_shape)]))
    except UserError as error:
        print(json.dumps([type(error).__name__, error.field, error.one_line()]))
"""


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (9, 7)) -> Image.Image:
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    values = np.random.default_rng(0).integers(0, 255, (size[1], size[0], channels), dtype=np.uint8)
    return Image.fromarray(values[..., 0] if channels == 1 else values, mode=None if channels < 4 else mode)


def png(width: int, height: int, *, lines: int = 0) -> bytes:
    """A grey PNG of any size in its header, with ``lines`` lines of pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width + 1) * lines), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG with a compressed text of 300 MiB."""
    content = b"note\x00\x00" + zlib.compress(bytes(300 << 20), 1)
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    small = encoded(noise())
    return small[:33] + chunk + small[33:]


def gif(width: int, height: int) -> bytes:
    content = bytearray(encoded(noise().convert("P"), "GIF"))
    content[6:10] = struct.pack("<HH", width, height)
    return bytes(content)


POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch owned) (w) file closefile\nshowpage\n%%EOF\n"
)
# What is refused: content, a word of the problem.
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "30,000 x 30,000 pixels in the header": (lambda: png(30_000, 30_000), "cannot be read|pixels"),
    "2**31 x 2**31 pixels in the header": (lambda: png(2**31 - 1, 2**31 - 1), "cannot be read|pixels"),
    "13,000 x 13,000 pixels that are there": (lambda: png(13_000, 13_000, lines=13_000), "pixels"),
    "a line of 100,000 pixels": (lambda: png(100_000, 1, lines=1), "differ too much"),
    "a line of ten million pixels": (lambda: png(10_000_000, 1, lines=1), "differ too much"),
    "a column of ten million pixels": (lambda: png(1, 10_000_000, lines=10_000_000), "differ too much"),
    "a GIF of 65,535 x 65,535": (lambda: gif(65_535, 65_535), "pixels|cannot be read"),
    "a text of 300 MiB": (text_bomb, "cannot be read"),
    "PostScript": (lambda: POSTSCRIPT, "UnidentifiedImageError"),
    "half a PNG": (lambda: encoded(noise(size=(200, 200)))[:9000], "cannot be read"),
    "half a JPEG": (lambda: encoded(noise(size=(200, 200)), "JPEG")[:3000], "cannot be read"),
    "half a TIFF": (lambda: encoded(noise(size=(200, 200)), "TIFF")[:3000], "cannot be read"),
    "no pixels": (lambda: png(0, 0), "cannot be read"),
    "nothing": (lambda: b"", "cannot be read"),
    "text": (lambda: b"hello", "cannot be read"),
    "a file of 300 MiB": (lambda: bytes(300 << 20), "bytes"),
}
LOADED: dict[str, tuple[Callable[[], bytes], int]] = {
    "RGB": (lambda: encoded(noise()), 3),
    "RGBA": (lambda: encoded(noise("RGBA")), 3),
    "palette": (lambda: encoded(noise().convert("P")), 3),
    "one bit": (lambda: encoded(noise("L").convert("1")), 1),
    "16 bit": (lambda: encoded(Image.fromarray(np.arange(63, dtype=np.uint16).reshape(7, 9) * 1000)), 1),
    "CMYK": (lambda: encoded(noise("CMYK"), "JPEG"), 3),
    "EXIF": (lambda: encoded(noise(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x00" + b"x" * 9), 3),
    "animated GIF": (
        lambda: encoded(noise().convert("P"), "GIF", save_all=True, append_images=[noise("L").convert("P")] * 3),
        3,
    ),
    "animated PNG": (lambda: encoded(noise(), save_all=True, append_images=[noise()] * 3), 3),
    "WebP": (lambda: encoded(noise(), "WEBP"), 3),
    "3,500 x 3,500 pixels": (lambda: encoded(Image.new("RGB", (3500, 3500)), compress_level=1), 3),
}


def folder(root: Path, name: str, contents: list[bytes]) -> str:
    """A folder of two classes with each of ``contents`` in one of them, ``good`` pictures besides."""
    for number, content in enumerate(contents):
        path = root / name / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return name


def test_each_picture_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    good = encoded(noise())
    names = [folder(tmp_path, f"r{n}", [good, good, write()]) for n, (write, _) in enumerate(REFUSED.values())]
    for name, target in (("zero", "/dev/zero"), ("gone", "nowhere.png")):
        names.append(folder(tmp_path, name, [good]))
        (tmp_path / name / "a" / "9.png").symlink_to(target)
    names.append(folder(tmp_path, "pipe", [good]))
    os.mkfifo(tmp_path / "pipe" / "a" / "9.png")
    names.append(folder(tmp_path, "class \x1b[2J", [good, good]))
    (tmp_path / "class \x1b[2J" / "b").rename(tmp_path / "class \x1b[2J" / "b\x1b[31m\nforged")
    finished = run_limited(LOAD, *names, memory=MEMORY, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr[-3000:]
    words = [*((case, word) for case, (_, word) in REFUSED.items()), ("a device", "no file")]
    words += [("a link to nothing", "leads nowhere"), ("a pipe", "no file"), ("a class", "control characters")]
    for (case, word), answer in zip(words, finished.stdout.splitlines(), strict=True):
        kind, field, line = json.loads(answer)
        assert (kind, field) == ("UserError", "spec.data.trainingURI"), (case, line)
        assert any(part in line for part in word.split("|")), (case, line)
        assert line.isprintable(), case
    assert not (tmp_path / "owned").exists()


def test_many_large_pictures_are_read_one_at_a_time(tmp_path: Path) -> None:
    # Twelve of the large ones are 590 MB; samples that are all equal would be refused.
    others = {1: encoded(Image.new("1", (9, 7))), 3: encoded(Image.new("RGB", (9, 7), "red"))}
    names = [
        folder(tmp_path, f"l{n}", [write()] * 12 + [others[of]] * 6) for n, (write, of) in enumerate(LOADED.values())
    ]
    finished = run_limited(LOAD, *names, memory=MEMORY, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr[-3000:]
    answers = [json.loads(line) for line in finished.stdout.splitlines()]
    assert answers == [["loaded", "", f"({count}, 32, 32)"] for _, count in LOADED.values()]


def test_grey_among_coloured_pictures_is_grey_in_three_channels(tmp_path: Path) -> None:
    folder(tmp_path, "mixed", [encoded(noise("L")), encoded(noise()), encoded(noise("L").convert("1"))])
    for size in (None, 5):
        data = read_image_folder(str(tmp_path / "mixed"), image_size=size, field="f")
        images = data.parts["train"].images
        expected = [picture.convert("RGB") for picture in (noise("L"), noise("L").convert("1"), noise())]
        for image, picture in zip(images, expected, strict=True):
            if size is None:
                assert np.array_equal(image, np.asarray(picture).transpose(2, 0, 1))
            assert (np.ptp(image, axis=0) == 0).all() == (picture is not expected[2])


SMALL = {
    kind: encoded(noise(), kind, **options)
    for kind, options in {"PNG": {}, "JPEG": {}, "GIF": {}, "TIFF": {"compression": "tiff_lzw"}, "BMP": {}}.items()
} | {"WEBP": encoded(noise(), "WEBP"), "PPM": encoded(noise(), "PPM")}


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(SMALL)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    st.floats(0.02, 1),
)
@pytest.mark.filterwarnings("ignore")
def test_any_damage_is_one_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, changes: list[tuple[float, int]], part: float
) -> None:
    content = bytearray(SMALL[kind])
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    root = tmp_path_factory.getbasetemp()
    folder(root, "damaged", [bytes(content[: max(1, int(part * len(content)))])])
    with contextlib.suppress(UserError):
        assert read_image_folder(str(root / "damaged"), image_size=8, field="f").class_names == ("a",)
