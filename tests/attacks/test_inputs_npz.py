"""Data of a stranger in a ``.npz`` file: small on disk and huge unpacked, or damaged in any place."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limited_process import run_limited

from edgefolio.errors import UserError
from edgefolio_pruner.data.arrays.converting import Request
from edgefolio_pruner.data.readers.npz import read_npz

MEMORY = 600 << 20
GIB = 1 << 30
# Each file in turn, after the imports, with MEMORY bytes of address space more than they took.
LOAD = """
import json, sys, torch, warnings
from edgefolio.errors import TransientError, UserError
from edgefolio.specification import DataSpecification
from edgefolio_pruner.data import load_data
load_data(DataSpecification(training_uri="builtin:digits"), seed=0)
warnings.simplefilter("ignore")
#limit
for path in sys.argv[1:]:
    size, _, name = path.rpartition("=")
    try:
        load_data(DataSpecification(training_uri=name, image_size=int(size) if size else None), seed=0)
        print(json.dumps(["loaded", "", ""]))
    except UserError as error:
        print(json.dumps([type(error).__name__, error.field, error.one_line()]))
"""
Arrays = dict[str, npt.NDArray[Any]]


def good(samples: int = 40) -> Arrays:
    return {
        "x": np.random.default_rng(0).normal(size=(samples, 1, 4, 4)).astype(np.float32),
        "y": np.arange(samples) % 4,
    }


def saved(**arrays: npt.NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def header(shape: object, *, descr: object = "<f4", version: tuple[int, int] = (1, 0)) -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode("latin1") + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text


def with_member(name: str, content: bytes, *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """The good file, with ``content`` as its array ``name``."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", compression=compression) as file:
        for key, array in good().items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array)
            file.writestr(f"{key}.npy", content if key == name else member.getvalue())
        if name not in good():
            file.writestr(f"{name}.npy", content)
    return archive.getvalue()


def zeros(size: int, *, shape: object, descr: str = "|u1") -> bytes:
    """A member of ``size`` zero bytes behind its header, written in pieces."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", compression=zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("x.npy", "w", force_zip64=True) as member:
            member.write(header(shape, descr=descr))
            for _ in range(size >> 24):
                member.write(bytes(1 << 24))
        labels = io.BytesIO()
        np.lib.format.write_array(labels, np.arange(64) % 2)
        file.writestr("y.npy", labels.getvalue())
    return archive.getvalue()


def edited(content: bytes, old: bytes, new: bytes, *, count: int = -1) -> bytes:
    assert old in content
    return content.replace(old, new, count)


def encrypted() -> bytes:
    content = bytearray(saved(**good()))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(signature)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(signature, place + 4)
    return bytes(content)


def nested(levels: int) -> str:
    return "(" * levels + ")" * levels


LONG_HEADER = b"\x93NUMPY\x02\x00" + struct.pack("<I", 200 << 20) + bytes(200 << 20)
# What a pruning run must refuse whatever memory there is: name, bytes, a word of the problem.
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "one GiB of zeros in one MiB": (lambda: zeros(GIB, shape=(64, 1, 4096, 4096)), "of memory"),
    "a size that no machine has": (
        lambda: with_member("x", header((2**40, 1, 64, 64)) + bytes(64)),
        "64 bytes follow",
    ),
    "a size beyond 64 bits": (lambda: with_member("x", header((2**40, 2**40, 2**40, 1)) + bytes(64)), "bytes follow"),
    "a size of 400 digits": (lambda: with_member("x", header((10**400, 1, 4, 4)) + bytes(64)), "plain arrays"),
    "a negative size": (lambda: with_member("x", header((-40, 1, 4, 4)) + bytes(64)), "bytes follow"),
    "two negative sizes": (lambda: with_member("x", header((40, 1, -4, -4)) + bytes(2560)), "bytes follow"),
    "fewer values than said": (lambda: with_member("x", header((40, 1, 4, 4)) + bytes(64)), "64 bytes follow"),
    "more values than said": (lambda: with_member("x", header((40, 1, 4, 4)) + bytes(9999)), "9999 bytes follow"),
    "elements of a gigabyte": (lambda: with_member("x", header((40, 1, 4, 4), descr="|V1000000000")), "bytes follow"),
    "a header of a gigabyte": (
        lambda: with_member("x", b"\x93NUMPY\x02\x00" + struct.pack("<I", GIB) + b" " * 100),
        "header",
    ),
    "a header of a gigabyte that is there": (
        lambda: with_member(
            "x",
            b"\x93NUMPY\x02\x00" + struct.pack("<I", 200 << 20) + bytes(200 << 20),
            compression=zipfile.ZIP_DEFLATED,
        ),
        "header",
    ),
    "a nested header": (lambda: with_member("x", _raw_header(nested(3000))), "plain arrays"),
    "a header that is a number": (lambda: with_member("x", _raw_header("1")), "plain arrays"),
    "a header with half a text": (lambda: with_member("x", _raw_header("{'descr': '")), "plain arrays"),
    "objects": (lambda: with_member("x", header((40, 1, 4, 4), descr="|O") + b"cos\nsystem\n(S'true'\ntR."), "objects"),
    "named fields": (lambda: with_member("x", header((2,), descr=[("a", "<f4")]) + bytes(8)), "not uint8"),
    "named objects": (lambda: with_member("x", header((2,), descr=[("a", "|O")]) + bytes(16)), "objects"),
    "dates": (lambda: with_member("x", header((40, 1, 4, 4), descr="<M8[s]") + bytes(40 * 16 * 8)), "not uint8"),
    "an unknown type": (lambda: with_member("x", header((40, 1, 4, 4), descr="<q9")), "plain arrays"),
    "an unknown version": (lambda: with_member("x", header((40, 1, 4, 4), version=(9, 9))), "plain arrays"),
    "no array": (lambda: with_member("x", b"hello"), "plain arrays"),
    "an empty member": (lambda: with_member("x", b""), "plain arrays"),
    "samples without pixels": (lambda: with_member("x", header((40, 1, 0, 4))), "1x0x4"),
    "ten thousand channels": (
        lambda: saved(x=np.zeros((40, 10_000, 1, 5), np.uint8), y=np.arange(40) % 4),
        "10000x1x5",
    ),
    "a label of 2 to the 62": (lambda: saved(x=good()["x"], y=np.full(40, 2**62)), "a label is 4611686018427387904"),
    "a label beyond 63 bits": (lambda: saved(x=good()["x"], y=np.full(40, 2**64 - 1, np.uint64)), "a label is"),
    "a million classes": (lambda: saved(**good(), class_names=np.arange(1_000_000)), "at most 100000"),
    "class names in a square": (lambda: saved(**good(), class_names=np.full((4, 4), "a")), "2 axes"),
    "a class name of a megabyte": (lambda: saved(**good(), class_names=np.array(["a" * 2**20] * 4)), "class_names"),
    "escapes in a class name": (
        lambda: saved(**good(), class_names=np.array(["a", "b", "c", "\x1b[2Jd\nerror: x"])),
        "control characters",
    ),
    "values that overflow": (lambda: saved(x=np.full((40, 1, 4, 4), 1e300), y=good()["y"]), "not finite"),
    "infinity": (lambda: saved(x=np.full((40, 1, 4, 4), np.inf), y=good()["y"]), "not finite"),
    "cut off": (lambda: saved(**good())[:-30], "plain arrays"),
    "cut off in the middle": (lambda: saved(**good())[:1500], "plain arrays"),
    "another checksum": (
        lambda: edited(saved(**good()), good()["x"].tobytes()[:64], bytes(64)),
        "CRC",
    ),
    "another method": (lambda: with_member("x", b"x" * 99, compression=zipfile.ZIP_LZMA), "method 14"),
    "encrypted": (encrypted, "encrypted"),
    "no zip": (lambda: b"\x93NUMPY" + bytes(100), "plain arrays"),
    "empty": (lambda: b"", "plain arrays"),
}


def _raw_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def test_each_file_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    arguments = []
    for number, (write, _) in enumerate(FILES.values()):
        (tmp_path / f"{number}.npz").write_bytes(write())
        arguments.append(f"{number}.npz")
    (tmp_path / "endless.npz").symlink_to("/dev/zero")
    with (tmp_path / "sparse.npz").open("wb") as sparse:
        sparse.truncate(1 << 40)
    finished = run_limited(
        LOAD, *arguments, "endless.npz", "sparse.npz", "1024=builtin:digits", memory=MEMORY, folder=tmp_path
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    answers = [json.loads(line) for line in finished.stdout.splitlines()]
    words = [
        *((case, word) for case, (_, word) in FILES.items()),
        ("a device", "of memory"),
        ("a file of nothing", "no .npz file"),
        ("size", "of memory"),
    ]
    for (case, word), (kind, field, line) in zip(words, answers, strict=True):
        assert kind != "loaded", case
        assert field == "spec.data.trainingURI", case
        assert word in line, (case, line)
        assert line.isprintable(), case
        assert len(line) < 1500, case
        # What will never fit is not tried again.
        assert kind == "UserError" or "of memory" in word, (case, kind)


def test_what_is_not_asked_for_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(with_member("notes", header((2**40, 2**40)) + bytes(64)))
    assert len(read_npz(Request(uri=str(path), needed="train", field="f")).parts["train"].labels) == 40


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_arrays_as_they_are_written_are_read(tmp_path: Path, write: Callable[..., None]) -> None:
    arrays = {**good(), "class_names": np.array(["ä", "b", "c", "d"])}
    arrays["x"] = np.asfortranarray(arrays["x"].astype(">f8"))
    write(tmp_path / "data.npz", **arrays)
    data = read_npz(Request(uri=str(tmp_path / "data.npz"), needed="train", field="f"))
    assert np.array_equal(data.parts["train"].images, arrays["x"])
    assert data.class_names == ("ä", "b", "c", "d")


GOOD = saved(**good(), class_names=np.array(["a", "b", "c", "d"]))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, len(GOOD)),
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_damage_is_one_error(tmp_path_factory: pytest.TempPathFactory, bytes_: Any, length: int) -> None:
    content = bytearray(GOOD)
    for place, value in bytes_:
        content[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    for damaged in (content, content[:length]):
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):
            assert len(read_npz(Request(uri=str(path), needed="train", field="f")).parts["train"].labels) == 40
