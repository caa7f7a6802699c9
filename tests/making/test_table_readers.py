"""Readers of tables and archives: CSV, WebDataset, Arrow; and each wrong form as one error."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from PIL import Image
from read_data import FIELD, LABELS, NAMES, PICTURES, RANDOM, read, samples_of

from edgefolio.errors import UserError


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


@pytest.mark.parametrize(
    "label",
    [
        "--5",
        "-",
        "9" * 5000,
        "[" * 30_000,
        "[[1], [2, 3]]",
        "1e999",
        "9" * 30,
        '{"label": [1]}',
        '"x\\ud800"',
        "{}",
        "null",
    ],
    ids=lambda label: label[:12],
)
@pytest.mark.parametrize("suffix", ["cls", "json"])
def test_a_label_of_a_stranger_is_a_label_or_refused(tmp_path: Path, label: str, suffix: str) -> None:
    files: dict[str, bytes] = {}
    for number in range(20):
        text = label if number == 19 else str(number % 2)
        files |= {f"{number:04}.png": png(PICTURES[number % 12]), f"{number:04}.{suffix}": text.encode()}
    with contextlib.suppress(UserError):
        data = read(archive(tmp_path / "d.tar", files))
        assert len(data.class_names) == 3
        assert all(name.encode() for name in data.class_names)


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "d.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(UserError, match="no tar file"):
        read(tmp_path / "d.tar")


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


def test_a_table_whose_notes_are_nonsense_has_no_names(tmp_path: Path) -> None:
    for note in (b"", b"[" * 100_000, b"\xff", b"[]", b'{"info": {"features": {"label": {"names": {}}}}}'):
        table = arrow_table().replace_schema_metadata({b"huggingface": note})
        pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
        assert not read(tmp_path / "d.parquet").has_names


def test_tables_of_arrow_with_numbers(tmp_path: Path) -> None:
    rows = RANDOM.normal(size=(12, 4))
    pyarrow.parquet.write_table(
        pyarrow.table({"x": rows.tolist(), "target": rows[:, 0].tolist()}), tmp_path / "d.parquet"
    )
    data = read(tmp_path / "d.parquet", task="Regression")
    assert samples_of(data).shape == (12, 4)


def test_columns_of_numbers_are_a_sample_each_row(tmp_path: Path) -> None:
    rows = RANDOM.normal(size=(12, 2))
    columns = {"a": rows[:, 0], "label": [0, 1] * 6, "count": range(12), "b": rows[:, 1], "is": [True, False] * 6}
    pyarrow.parquet.write_table(
        pyarrow.table({name: list(column) for name, column in columns.items()}), tmp_path / "d.parquet"
    )
    found = samples_of(read(tmp_path / "d.parquet"))
    assert found.shape == (12, 4)
    np.testing.assert_allclose(found[:, [0, 2]], rows, rtol=1e-6)
    assert found[:, 1].tolist() == list(range(12))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("shards-{000..004}.tar", "a pattern of several files"),
        ("shards-*.tar", "a pattern of several files"),
        ("{a,b}.tar", "a pattern of several files"),
        ("data.tar.gz", "a compressed archive"),
        ("data.tgz", "a compressed archive"),
        ("data.h5", "files of this kind are not read"),
        ("data.PT", "files of this kind are not read"),
        ("data.json", "files of this kind are not read"),
    ],
)
def test_what_is_not_read_is_said_with_what_to_do(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(UserError, match=problem) as caught:
        read(tmp_path / name)
    assert caught.value.field == FIELD
    assert caught.value.remedy


def test_a_folder_may_be_called_like_a_file(tmp_path: Path) -> None:
    for label in ("a", "b"):
        folder = tmp_path / "pictures{1,2}.zip" / label
        folder.mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (4, 4), (60 * number, 0, 0)).save(folder / f"{number}.png")
    assert read(tmp_path / "pictures{1,2}.zip").class_names == ("a", "b")


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
