"""Readers of data: common names of arrays, tables, archives, Arrow, factories; and each wrong form as one error."""

from __future__ import annotations

import csv
import io
import json
import sys
import tarfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from edgefolio.errors import UserError
from edgefolio.specification.metric import Task
from edgefolio_pruner.data.arrays.converting import Request
from edgefolio_pruner.data.raw import RawData
from edgefolio_pruner.data.reading import read_raw
from edgefolio_pruner.data.stored import StoredSamples

FIELD = "spec.data.trainingURI"
RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.integers(0, 256, (12, 3, 6, 5), dtype=np.uint8)
LABELS = np.arange(12) % 3
NAMES = np.array(["ant", "bee", "cat"])


def read(uri: Path | str, *, task: Task = "Classification", labelled: bool = True, fits: Any = None) -> RawData:
    return read_raw(Request(uri=str(uri), needed="train", field=FIELD, task=task, needs_labels=labelled, fits=fits))


def samples_of(data: RawData, part: str = "train") -> Any:
    return np.asarray(data.parts[part].images)


# --- names and forms of arrays ------------------------------------------------------------------------------------


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


# --- tables ---------------------------------------------------------------------------------------------------------


def table(path: Path, rows: list[list[Any]], *, delimiter: str = ",") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def pictures_in(folder: Path) -> list[str]:
    (folder / "pictures").mkdir()
    names = [f"pictures/{number}.png" for number in range(12)]
    for name, picture in zip(names, PICTURES, strict=True):
        Image.fromarray(picture.transpose(1, 2, 0)).save(folder / name)
    return names


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("labels", [LABELS, NAMES[LABELS]], ids=["numbers", "names"])
def test_a_table_of_pictures(tmp_path: Path, labels: Any, delimiter: str) -> None:
    rows = [["filename", "label", "split"]]
    for number, (name, label) in enumerate(zip(pictures_in(tmp_path), labels, strict=True)):
        rows.append([name, label, "val" if number < 3 else "train"])
    data = read(table(tmp_path / "data.csv", rows, delimiter=delimiter))
    assert np.array_equal(samples_of(data), PICTURES[3:])
    assert np.array_equal(data.parts["validation"].labels, LABELS[:3])
    assert data.pictures is not None
    assert data.class_names == (tuple(NAMES) if labels is not LABELS else ("0", "1", "2"))


def test_a_table_of_pictures_with_numbers_or_several_labels(tmp_path: Path) -> None:
    names = pictures_in(tmp_path)
    many = table(tmp_path / "m.csv", [["path", "label_a", "label_b"], *([name, 1, 0] for name in names)])
    assert read(many, task="MultiLabel").parts["train"].labels.shape == (12, 2)
    numbers = table(tmp_path / "n.csv", [["path", "target"], *([name, 0.5] for name in names)])
    assert read(numbers, task="Regression").parts["train"].labels.dtype == np.float32


def test_a_table_of_numbers(tmp_path: Path) -> None:
    rows = [["width", "height", "price"], *([number, number / 2, number * 3.5] for number in range(9))]
    path = table(tmp_path / "t.csv", [["width", "height", "y"], *rows[1:]])
    data = read(path, task="Regression")
    assert samples_of(data).shape == (9, 2)
    assert data.parts["train"].labels.tolist() == [number * 3.5 for number in range(9)]


WRONG_TABLES: dict[str, tuple[str, str]] = {
    "nothing": ("", "no rows below its heading"),
    "a heading": ("path,label\n", "no rows below its heading"),
    "twice the same name": ("path,path,label\na,b,c\n", "a name of its own"),
    "no label": ("path,size\na.png,3\n", "no column is called label"),
    "a short row": ("path,label\na.png,0\nb.png\n", "row 3 has 1 values"),
    "another part": ("path,label,split\na.png,0,holdout\n", "the part 'holdout'"),
    "no number": ("width,label\n3,0\nwide,1\n", "row 3 of the column 'width' is 'wide'"),
    "no such picture": ("path,label\nabsent.png,0\n", "cannot be read"),
    "the same twice": ("path,label\na.png,0\na.png,1\n", "there twice"),
    "another folder": ("path,label\n../a.png,0\n", "holds .."),
    "no text": ("\x00\xff", "no table"),
}


@pytest.mark.parametrize("case", sorted(WRONG_TABLES))
def test_tables_that_cannot_be_used(tmp_path: Path, case: str) -> None:
    text, problem = WRONG_TABLES[case]
    (tmp_path / "t.csv").write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=problem) as caught:
        read(tmp_path / "t.csv")
    assert caught.value.field == FIELD
    assert caught.value.remedy


# --- archives -------------------------------------------------------------------------------------------------------


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def png(picture: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture.transpose(1, 2, 0)).save(content, format="PNG")
    return content.getvalue()


def npy(array: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        ("cls", lambda label: str(label).encode()),
        ("txt", lambda label: NAMES[label].encode()),
        ("json", lambda label: json.dumps({"label": int(label)}).encode()),
    ],
)
def test_a_webdataset(tmp_path: Path, suffix: str, write: Callable[[int], bytes]) -> None:
    files: dict[str, bytes] = {}
    for number, label in enumerate(LABELS):
        files[f"{number:06}.png"] = png(PICTURES[number])
        files[f"{number:06}.{suffix}"] = write(label)
    data = read(archive(tmp_path / "d.tar", files))
    assert np.array_equal(samples_of(data), PICTURES)
    assert np.array_equal(data.parts["train"].labels, LABELS)
    arrays = {name: content for name, content in files.items() if not name.endswith("png")}
    arrays |= {f"{number:06}.npy": npy(PICTURES[number].astype(np.float32)) for number in range(12)}
    again = read(archive(tmp_path / "arrays.tar", dict(sorted(arrays.items()))))
    assert samples_of(again).shape == PICTURES.shape


WRONG_ARCHIVES: dict[str, tuple[dict[str, bytes], str]] = {
    "nothing": ({}, "none of its 0 files"),
    "no samples": ({"a.cls": b"0"}, "none of its 1 files"),
    "no labels": ({"a.png": png(PICTURES[0])}, "no labels"),
    "one label missing": ({"a.png": png(PICTURES[0]), "a.cls": b"0", "b.png": png(PICTURES[1])}, "'b' has no label"),
    "mixed": ({"a.png": png(PICTURES[0]), "a.cls": b"0", "b.npy": npy(PICTURES[1]), "b.cls": b"1"}, "others arrays"),
    "no label in it": ({"a.png": png(PICTURES[0]), "a.json": b"{}"}, "the label of 'a' is not in"),
    "no JSON": ({"a.png": png(PICTURES[0]), "a.json": b"{"}, "cannot be read"),
    "a broken picture": ({"a.png": b"PNG", "a.cls": b"0"}, "cannot be read"),
    "a pickle": ({"a.npy": npy(np.array([{}], dtype=object)), "a.cls": b"0"}, "no array"),
    "two shapes": (
        {"a.npy": npy(np.ones(3)), "a.cls": b"0", "b.npy": npy(np.ones(4)), "b.cls": b"1"},
        r"is float64 \[4\]",
    ),
}


@pytest.mark.parametrize("case", sorted(WRONG_ARCHIVES))
def test_archives_that_cannot_be_used(tmp_path: Path, case: str) -> None:
    files, problem = WRONG_ARCHIVES[case]
    with pytest.raises(UserError, match=problem) as caught:
        read(archive(tmp_path / "d.tar", files))
    assert caught.value.remedy


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "d.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(UserError, match="no tar file"):
        read(tmp_path / "d.tar")


# --- Arrow ----------------------------------------------------------------------------------------------------------


def arrow_table(*, metadata: bool = True) -> Any:
    features = {"info": {"features": {"label": {"names": list(NAMES), "_type": "ClassLabel"}}}}
    found = pyarrow.table(
        {
            "image": [{"bytes": png(picture), "path": None} for picture in PICTURES],
            "label": pyarrow.array(LABELS.tolist(), type=pyarrow.int64()),
        }
    )
    return found.replace_schema_metadata({"huggingface": json.dumps(features)}) if metadata else found


@pytest.mark.parametrize("kind", ["parquet", "arrow stream", "arrow file"])
def test_tables_of_arrow(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("d.parquet" if kind == "parquet" else "d.arrow")
    if kind == "parquet":
        pyarrow.parquet.write_table(arrow_table(), path)
    else:
        write = pyarrow.ipc.new_stream if kind == "arrow stream" else pyarrow.ipc.new_file
        with write(path, arrow_table().schema) as writer:
            writer.write_table(arrow_table())
    data = read(path)
    assert np.array_equal(samples_of(data), PICTURES)
    assert data.class_names == tuple(NAMES)
    assert data.has_names


def test_tables_of_arrow_with_numbers(tmp_path: Path) -> None:
    rows = RANDOM.normal(size=(12, 4))
    pyarrow.parquet.write_table(
        pyarrow.table({"x": rows.tolist(), "target": rows[:, 0].tolist()}), tmp_path / "d.parquet"
    )
    data = read(tmp_path / "d.parquet", task="Regression")
    assert samples_of(data).shape == (12, 4)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"pixels": [[1.0]], "label": [0]}, "none of samples"),
        ({"x": [[1.0], None], "label": [0, 1]}, "1 rows have no 'x'"),
        ({"x": [[1.0, 2.0], [1.0, 2.0]], "label": [0, None]}, "1 rows have no 'label'"),
        ({"image": [{"bytes": None, "path": "a.png"}], "label": [0]}, "only its path"),
        ({"x": [[1.0]]}, "no labels"),
    ],
)
def test_tables_of_arrow_that_cannot_be_used(tmp_path: Path, columns: dict[str, Any], problem: str) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "d.parquet")
    with pytest.raises(UserError, match=problem) as caught:
        read(tmp_path / "d.parquet")
    assert caught.value.remedy


def test_what_is_no_table_of_arrow(tmp_path: Path) -> None:
    for name in ("d.parquet", "d.arrow"):
        (tmp_path / name).write_bytes(b"no table")
        with pytest.raises(UserError, match="no table of Arrow"):
            read(tmp_path / name)


# --- factories ------------------------------------------------------------------------------------------------------


class DataSet(torch.utils.data.Dataset[Any]):
    """Pairs, dicts or samples alone."""

    classes = list(NAMES)

    def __init__(self, form: Any, samples: int = 12) -> None:
        self._form, self._samples = form, samples

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, number: int) -> Any:
        return self._form(number)


FACTORIES: dict[str, Callable[..., Any]] = {
    "pairs": lambda: DataSet(lambda number: (torch.from_numpy(PICTURES[number]), int(LABELS[number]))),
    "tensors": lambda: DataSet(lambda number: (torch.from_numpy(PICTURES[number]), torch.tensor(LABELS[number]))),
    "pictures": lambda: DataSet(
        lambda number: (Image.fromarray(PICTURES[number].transpose(1, 2, 0)), NAMES[LABELS[number]].item())
    ),
    "dicts": lambda: DataSet(lambda number: {"image": PICTURES[number], "label": LABELS[number]}),
    "arrays": lambda: (PICTURES, LABELS),
    "a list": lambda: list(zip(PICTURES, LABELS, strict=True)),
    "by part": lambda part: (PICTURES, LABELS) if part == "train" else None,
}
WRONG_FACTORIES: dict[str, tuple[Any, str]] = {
    "absent": (None, "cannot be imported"),
    "a number": (lambda: 3, "no length or no items"),
    "nothing": (lambda: DataSet(None, 0), "the data set is empty"),
    "fails": (lambda: 1 / 0, "the data set failed"),
    "three parts": (lambda: [(1, 2, 3)], "sample 0 has 3 parts"),
    "other keys": (lambda: [{"a": 1}], "sample 0 has the keys a"),
    "two shapes": (lambda: [(np.ones(3), 0), (np.ones(4), 1)], "sample 1 is float32"),
    "mixed targets": (lambda: [(np.ones(3), [0]), (np.ones(3), [0, 1])], "targets are not of one kind"),
    "no labels": (lambda: [np.ones(3)], "no labels"),
}


def given_module(monkeypatch: pytest.MonkeyPatch, function: Any) -> str:
    module = types.ModuleType("data_of_a_test")
    if function is not None:
        module.build = function  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "data_of_a_test", module)
    return "factory:data_of_a_test:build"


@pytest.mark.parametrize("case", sorted(FACTORIES))
def test_data_sets_of_ones_own(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    data = read(given_module(monkeypatch, FACTORIES[case]))
    assert np.array_equal(samples_of(data), PICTURES)
    assert np.array_equal(data.parts["train"].labels, LABELS)


@pytest.mark.parametrize("case", sorted(WRONG_FACTORIES))
def test_data_sets_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    function, problem = WRONG_FACTORIES[case]
    with pytest.raises(UserError, match=problem) as caught:
        read(given_module(monkeypatch, function))
    assert caught.value.field == FIELD
    assert caught.value.remedy
