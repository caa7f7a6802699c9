"""Readers of arrays: common names, forms of labels and axes; and each wrong form as one error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from read_data import FIELD, LABELS, NAMES, PICTURES, RANDOM, read, samples_of

from edgefolio.errors import UserError
from edgefolio.specification.metric import Task
from edgefolio_pruner.data.stored import StoredSamples


@pytest.mark.parametrize(
    ("samples", "targets"),
    [
        ("x", "y"),
        ("X", "Y"),
        ("images", "labels"),
        ("data", "targets"),
        ("train_images", "train_labels"),
        ("x_train", "y_train"),
        ("X_train", "y_train"),
        ("xtrain", "ytrain"),
        ("images_train", "labels_train"),
        ("features", "target"),
        ("inputs", "class"),
    ],
)
def test_common_names_of_arrays(tmp_path: Path, samples: str, targets: str) -> None:
    np.savez(tmp_path / "d.npz", **{samples: PICTURES, targets: LABELS})
    data = read(tmp_path / "d.npz")
    assert np.array_equal(samples_of(data), PICTURES)
    assert np.array_equal(data.parts["train"].labels, LABELS)


def test_parts_by_their_common_names(tmp_path: Path) -> None:
    arrays = {f"{part}_images": PICTURES[:, 0] for part in ("train", "val", "test")}
    arrays |= {f"{part}_labels": LABELS[:, None] for part in ("train", "val", "test")}
    np.savez(tmp_path / "medmnist.npz", **arrays)
    data = read(tmp_path / "medmnist.npz")
    assert set(data.parts) == {"train", "validation", "test"}
    assert data.parts["validation"].labels.shape == (12,)


@pytest.mark.parametrize(
    "labels",
    [
        NAMES[LABELS],
        NAMES[LABELS].astype("S"),
        np.eye(3)[LABELS],
        np.eye(3, dtype=bool)[LABELS],
        LABELS[:, None],
        LABELS.astype(np.uint8),
        LABELS.astype(np.int32),
    ],
    ids=["text", "bytes", "one-hot", "one-hot of bool", "a column", "uint8", "int32"],
)
def test_forms_of_labels(tmp_path: Path, labels: Any) -> None:
    np.savez(tmp_path / "d.npz", x=PICTURES, y=labels)
    data = read(tmp_path / "d.npz")
    assert np.array_equal(data.parts["train"].labels, LABELS)
    assert len(data.class_names) == 3
    if labels.dtype.kind in "US":
        assert data.class_names == tuple(NAMES)


def test_names_that_differ_between_parts_are_one_list(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "d.npz",
        x_train=PICTURES,
        y_train=np.array(["b", "d"] * 6),
        x_test=PICTURES,
        y_test=np.array(["d", "a"] * 6),
    )
    data = read(tmp_path / "d.npz")
    assert data.class_names == ("a", "b", "d")
    assert data.parts["train"].labels[:2].tolist() == [1, 2]
    assert data.parts["test"].labels[:2].tolist() == [2, 0]


WRONG_TARGETS: dict[str, tuple[Task, Any, str]] = {
    "numbers of a classifier": ("Classification", LABELS + 0.5, "data.task: Regression"),
    "several labels": ("Classification", np.ones((12, 3), dtype=int), "data.task: MultiLabel"),
    "masks": ("Classification", np.zeros((12, 6, 5), dtype=int), "data.task: Segmentation"),
    "other labels": ("MultiLabel", np.full((12, 3), 2), "0 or 1"),
    "texts as numbers": ("Regression", NAMES[LABELS], "number"),
    "no number": ("Regression", np.full((12, 2), np.nan), "every target must be a number"),
    "no masks": ("Segmentation", LABELS, "[N, H, W]"),
    "floating masks": ("Segmentation", np.zeros((12, 6, 5)), "as integers"),
    "all ignored": ("Segmentation", np.full((12, 6, 5), 255, dtype=np.uint8), "classes from 0 on"),
    "negative classes": ("Segmentation", np.full((12, 6, 5), -7), "mark pixels that do not count"),
    "texts": ("Custom", NAMES[LABELS], "numbers"),
}


@pytest.mark.parametrize("case", sorted(WRONG_TARGETS))
def test_targets_that_are_not_those_of_the_task(tmp_path: Path, case: str) -> None:
    task, targets, remedy = WRONG_TARGETS[case]
    np.savez(tmp_path / "d.npz", x=PICTURES, y=targets)
    with pytest.raises(UserError) as caught:
        read(tmp_path / "d.npz", task=task)
    assert caught.value.field == FIELD
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("shape", "takes", "expected"),
    [
        ((20, 7), (7,), (20, 7)),
        ((20, 7), (1, 7), (20, 1, 7)),
        ((20, 9, 8), (1, 9, 8), (20, 1, 9, 8)),
        ((20, 9, 8), (9, 8), (20, 9, 8)),
        ((20, 9, 2), (2, 9), (20, 2, 9)),
        ((20, 64, 4, 4), (64, 4, 4), (20, 64, 4, 4)),
        ((20, 64, 4, 4), (4, 64, 4), (20, 4, 64, 4)),
        ((20, 5, 6, 7), (1, 5, 6, 7), (20, 1, 5, 6, 7)),
        ((20, 5, 6, 7, 2), (2, 5, 6, 7), (20, 2, 5, 6, 7)),
    ],
)
def test_axes_are_as_the_network_takes_them(
    tmp_path: Path, shape: tuple[int, ...], takes: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    array = RANDOM.normal(size=shape).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=array, y=np.arange(20) % 2)
    data = read(tmp_path / "d.npz", fits=lambda found: tuple(found) == takes)
    assert samples_of(data).shape == expected
    assert np.isclose(np.sort(samples_of(data).ravel()), np.sort(array.ravel())).all()


def test_large_arrays_stay_in_their_file(tmp_path: Path) -> None:
    array = np.zeros((40, 3, 400, 400), dtype=np.float32)
    array[7] = 5
    np.savez(tmp_path / "d.npz", x=array, y=np.arange(40) % 2)
    data = read(tmp_path / "d.npz")
    assert isinstance(data.parts["train"].images, np.memmap | StoredSamples)
    assert float(data.parts["train"].images[7:8].mean()) == 5
    np.save(tmp_path / "x.npy", array)
    np.save(tmp_path / "y.npy", np.arange(40) % 2)
    assert isinstance(read(tmp_path / "x.npy").parts["train"].images, np.memmap)


def test_a_file_of_samples_with_its_labels_beside_it(tmp_path: Path) -> None:
    np.save(tmp_path / "train_images.npy", PICTURES)
    with pytest.raises(UserError, match=r"train_labels\.npy"):
        read(tmp_path / "train_images.npy")
    assert not read(tmp_path / "train_images.npy", labelled=False).has_labels
    np.save(tmp_path / "train_labels.npy", NAMES[LABELS])
    assert read(tmp_path / "train_images.npy").class_names == tuple(NAMES)
