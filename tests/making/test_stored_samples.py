"""Samples in a file: the same as in memory, whatever is asked of them, and no process memory for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefolio.errors import UserError
from edgefolio.manifest import Preprocessing
from edgefolio_pruner.data import normalising
from edgefolio_pruner.data.bundle import digest_of
from edgefolio_pruner.data.raw import RawSplit
from edgefolio_pruner.data.stored import FileSamples, JoinedSamples, NormalisedSamples, SampleWriter, chosen, slices
from edgefolio_pruner.data.stored import writer as writer_module

SHAPE = (3, 4, 5)


def written(values: np.ndarray[Any, Any], folder: Path, *, in_memory_bytes: int = 0) -> Any:
    writer = SampleWriter(
        len(values),
        shape=values.shape[1:],
        dtype=values.dtype,
        folder=folder,
        field="f",
        value="v",
        in_memory_bytes=in_memory_bytes,
    )
    for start in range(0, len(values), 7):
        writer.add(values[start : start + 7])
    return writer.samples()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_stored_samples_are_indexed_as_arrays_are(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    values = np.random.default_rng(0).integers(0, 65535, (23, *SHAPE)).astype(np.uint16)
    stored = written(values, tmp_path_factory.getbasetemp())
    assert isinstance(stored, FileSamples)
    order = np.random.default_rng(1).permutation(23)[:17]
    views = {
        "file": (stored, values),
        "chosen": (chosen(stored, order), values[order]),
        "joined": (
            JoinedSamples([stored, values[:5], chosen(stored, order)]),
            np.concatenate([values, values[:5], values[order]]),
        ),
    }
    view, expected = views[data.draw(st.sampled_from(sorted(views)))]
    count = len(expected)
    bounds = st.none() | st.integers(-count - 2, count + 2)
    index: Any = data.draw(
        st.slices(count)
        | st.builds(slice, bounds, bounds)
        | st.lists(st.integers(-count, count - 1), max_size=9).map(lambda places: np.array(places, dtype=np.int64))
        | st.lists(st.booleans(), min_size=count, max_size=count).map(np.array)
    )
    assert np.array_equal(view[index], expected[index])
    assert view.shape == expected.shape
    assert digest_of(view, np.zeros(3, np.int64)) == digest_of(expected, np.zeros(3, np.int64))


def test_normalised_as_they_are_read_or_before_are_the_same_bits(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (50, *SHAPE)).astype(np.uint8)
    preprocessing = Preprocessing(scale=1 / 255, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.3))
    split = RawSplit(images=values, labels=np.zeros(50, np.int64))
    whole = normalising.normalised(split, preprocessing)
    lazily = NormalisedSamples(written(values, tmp_path), preprocessing)
    assert isinstance(whole.images, np.ndarray)
    assert np.array_equal(lazily[10:20], whole.images[10:20])
    assert np.array_equal(np.concatenate(list(slices(lazily))), whole.images)
    floats = values.astype(np.float32)
    before = floats.copy()
    NormalisedSamples(floats, preprocessing)[:]
    assert np.array_equal(floats, before)


def test_a_writer_that_changes_its_shape_and_type_keeps_what_was_written(tmp_path: Path) -> None:
    grey = np.arange(24, dtype=np.uint8).reshape(2, 1, 3, 4)
    for in_memory_bytes in (0, 1 << 20):
        first = SampleWriter(
            3,
            shape=(1, 3, 4),
            dtype=np.dtype(np.uint8),
            folder=tmp_path,
            field="f",
            value=0,
            in_memory_bytes=in_memory_bytes,
        )
        first.add(grey)
        other = first.changed(shape=(3, 3, 4), dtype=np.dtype(np.uint16), factor=257)
        other.add(np.full((1, 3, 3, 4), 9, dtype=np.uint16))
        expected = np.broadcast_to(grey.astype(np.uint16) * 257, (2, 3, 3, 4))
        assert np.array_equal(other.samples()[:2], expected)
        assert (other.samples()[2:] == 9).all()


def test_no_file_is_left(tmp_path: Path) -> None:
    stored = written(np.zeros((9, *SHAPE), np.uint8), tmp_path / "work")
    assert stored[:].sum() == 0
    assert list((tmp_path / "work").iterdir()) == []


def test_without_room_on_disk_or_in_memory_samples_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr(writer_module.shutil, "disk_usage", lambda _folder: Usage)
    small = written(np.zeros((9, *SHAPE), np.uint8), tmp_path)
    assert isinstance(small, np.ndarray)
    with pytest.raises(UserError, match=r"no room.*10|0\.0 MiB are free") as caught:
        SampleWriter(
            1 << 40,
            shape=SHAPE,
            dtype=np.dtype(np.uint8),
            folder=tmp_path,
            field="spec.data.trainingURI",
            value="./images",
        )
    assert caught.value.field == "spec.data.trainingURI"
    assert "--work-dir" in caught.value.remedy


READ_ALL = """
import resource, sys
import numpy as np
from pathlib import Path
from edgefolio_pruner.data.stored import SampleWriter, slices
count = int(sys.argv[1])
shape, dtype = (3, 224, 224), np.dtype(np.uint8)
writer = SampleWriter(count, shape=shape, dtype=dtype, folder=Path(sys.argv[2]), field="f", value=0)
for number in range(count):
    writer.add(np.full((1, 3, 224, 224), number % 251, dtype=np.uint8))
total = sum(int(piece[:, 0, 0, 0].astype(np.int64).sum()) for piece in slices(writer.samples()))
assert total == sum(number % 251 for number in range(count))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_the_memory_of_the_process_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    # 2,000 samples are 300 MB.
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", READ_ALL, count, tmp_path], capture_output=True, check=True, text=True
            ).stdout
        )
        for count in ("500", "2000")
    ]
    assert peaks[1] < peaks[0] + 60
