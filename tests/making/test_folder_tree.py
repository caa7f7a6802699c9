"""Image folders: every class folder is a class with all its pictures, or there is an error; nothing is dropped."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgefolio.errors import UserError
from edgefolio.specification import DataSpecification
from edgefolio_pruner.data import load_data
from edgefolio_pruner.data.bundle import DataBundle
from edgefolio_pruner.data.readers.folder_tree import Arrangement, arrange

CLASSES = ("ant", "bee", "cat", "dog")


def write(root: Path, folder: str, *, count: int = 6, suffix: str = ".png", seed: int = 0) -> None:
    """Noise pictures, no two of them equal."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng([seed, *folder.encode()])
    kind = {".jfif": "JPEG", ".jpe": "JPEG", ".pnm": "PPM"}.get(suffix)
    for number in range(count):
        pixels = generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / folder / f"{number}{suffix}", format=kind)


def tree(root: Path, names: tuple[str, ...] = CLASSES) -> Path:
    for name in names:
        write(root, name)
    return root


def load(root: Path, **settings: object) -> DataBundle:
    return load_data(DataSpecification(training_uri=str(root), **settings), seed=1)


def counts(data: DataBundle) -> dict[str, int]:
    labels = np.concatenate([data.train.labels, data.validation.labels, data.test.labels])
    return dict(zip(data.class_names, np.bincount(labels, minlength=len(data.class_names)).tolist(), strict=True))


def test_a_class_that_is_a_link_is_a_class(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/bee")
    root = tree(tmp_path / "data", ("ant", "cat"))
    (root / "bee").symlink_to(tmp_path / "elsewhere" / "bee", target_is_directory=True)
    assert counts(load(root)) == {"ant": 6, "bee": 6, "cat": 6}


def test_links_to_pictures_are_pictures_and_a_link_upwards_ends(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", ("ant", "cat"))
    write(tmp_path, "store")
    (root / "bee").mkdir()
    for picture in sorted((tmp_path / "store").iterdir()):
        (root / "bee" / picture.name).symlink_to(picture)
    (root / "cat" / "above").symlink_to(root, target_is_directory=True)
    assert counts(load(root)) == {"ant": 6, "bee": 6, "cat": 6}


@pytest.mark.parametrize("name", ["bee", "ant/picture.png"])
def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, name: str) -> None:
    root = tree(tmp_path / "data", ("ant", "cat"))
    (root / name).symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=f"{name.split('/')[-1]}.*leads nowhere"):
        load(root)


@pytest.mark.parametrize("content", [None, "readme.txt", ".hidden.png", "._0.png"])
def test_a_class_without_pictures_is_named(tmp_path: Path, content: str | None) -> None:
    root = tree(tmp_path / "data", ("ant", "cat"))
    (root / "bee").mkdir()
    if content is not None:
        (root / "bee" / content).write_bytes(b"x")
    with pytest.raises(UserError, match="no images: 'bee'"):
        load(root)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG", ".pnm", ".webp", ".tiff"])
def test_a_class_of_pictures_of_any_suffix_is_a_class(tmp_path: Path, suffix: str) -> None:
    root = tree(tmp_path / "data", ("ant", "cat"))
    write(root, "bee", suffix=suffix)
    assert counts(load(root)) == {"ant": 6, "bee": 6, "cat": 6}


@pytest.mark.parametrize("suffix", [".heic", ".AVIF", ".jxl", ".npy", ".dcm"])
@pytest.mark.parametrize("place", ["bee", "ant"])
def test_pictures_that_cannot_be_read_are_named_not_skipped(tmp_path: Path, suffix: str, place: str) -> None:
    root = tree(tmp_path / "data", ("ant", "cat"))
    (root / place).mkdir(exist_ok=True)
    (root / place / f"picture{suffix}").write_bytes(b"x")
    with pytest.raises(UserError, match=f"1 pictures have a format that is not read .'{suffix.lower()}'"):
        load(root)


@pytest.mark.parametrize("name", ["train", "test", "Val", "training"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_class_that_is_called_like_a_part(tmp_path: Path, name: str, nested: bool) -> None:
    root = tree(tmp_path / "data", ("bus", "car"))
    write(root, f"{name}/camera1" if nested else name)
    names = ["bus", "car", name]
    if nested:
        with pytest.raises(UserError, match=r"may be a part of the data or a class.*data\.classNames"):
            load(root)
    else:
        assert counts(load(root)) == {"bus": 6, "car": 6, name: 6}
    data = load(root, class_names=names)
    assert (data.class_names, counts(data)) == (tuple(names), {"bus": 6, "car": 6, name: 6})


@pytest.mark.parametrize("beside", ["extra", "dev", "ant"])
def test_a_folder_beside_the_parts_is_not_dropped(tmp_path: Path, beside: str) -> None:
    root = tmp_path / "data"
    for part in ("train", "val"):
        tree(root / part)
    write(root, f"{beside}/ant")
    with pytest.raises(UserError, match=f"beside it are '{beside}'"):
        load(root)


def test_images_of_a_part_without_class_folders_are_not_a_class(tmp_path: Path) -> None:
    root = tmp_path / "data"
    tree(root / "train")
    write(root, "test")
    with pytest.raises(UserError, match="'test' is a part, and holds images without a class folder"):
        load(root)


def test_a_class_of_the_test_part_alone_is_named(tmp_path: Path) -> None:
    root = tmp_path / "data"
    tree(root / "train", ("ant", "bee"))
    tree(root / "test", ("ant", "bee", "cat"))
    with pytest.raises(UserError, match="no images for training: 'cat'"):
        load(root)


def test_what_systems_leave_behind_is_no_class_and_is_counted(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", ("ant", "cat"))
    for name in (".ipynb_checkpoints", "__MACOSX"):
        write(root, name, count=1)
    (root / "ant" / "._0.png").write_bytes(b"\x00\x05\x16\x07")
    (root / "ant" / "Thumbs.db").write_bytes(b"x")
    (root / "readme").write_bytes(b"x")
    data = load(root)
    assert counts(data) == {"ant": 6, "cat": 6}
    assert data.notes == ("5 files that are no pictures were skipped: 1 .db, 3 .png, 1 without a suffix",)


def test_one_class_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one class only, 'ant'"):
        load(tree(tmp_path / "data", ("ant",)))


def test_a_part_that_is_the_training_data_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "data")
    for field, name in (("validation_uri", "validationURI"), ("test_uri", "testURI")):
        with pytest.raises(UserError, match="24 of its 24 samples are training samples") as caught:
            load(root, **{field: str(root)})
        assert caught.value.field == f"spec.data.{name}"
    for name in CLASSES:
        write(tmp_path / "other", name, seed=7)
    os.link(root / "ant" / "0.png", tmp_path / "other" / "ant" / "copy.png")
    data = load(root, test_uri=str(tmp_path / "other"))
    assert data.notes == ("1 of the 25 test samples are training samples as well",)


def test_folders_of_other_stores_are_read_alike(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", ("ant", "cat"))
    store = fsspec.filesystem("memory")
    store.put(str(root), "/pictures", recursive=True)
    try:
        there = load_data(DataSpecification(training_uri="memory://pictures"), seed=1)
        assert counts(there) == counts(load(root)) == {"ant": 6, "cat": 6}
        assert there.train.digest == load(root).train.digest
        store.mkdir("/pictures/bee")
        with pytest.raises(UserError, match="no images: 'bee'"):
            load_data(DataSpecification(training_uri="memory://pictures"), seed=1)
    finally:
        store.rm("/pictures", recursive=True)


NAMES = st.sampled_from(["ant", "bee", "train", "val", "10", "9", "Test", "a b", "ä"])
FILES = st.lists(
    st.tuples(
        st.lists(NAMES, min_size=0, max_size=3),
        st.sampled_from(["0.png", "1.jpg", "2.jfif", "a.txt", "b.heic", ".c.png", "noext"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=400, deadline=None)
@given(files=FILES, empty=st.lists(st.lists(NAMES, min_size=1, max_size=2), max_size=2), named=st.booleans())
def test_every_picture_has_a_class_or_there_is_an_error(
    files: list[tuple[list[str], str]], empty: list[list[str]], named: bool
) -> None:
    listed = {"/".join(["/data", *folders, name]): {"type": "file"} for folders, name in files}
    folders = ["/".join(["/data", *parts]) for parts in empty]
    top = {path.split("/")[2] for path in [*listed, *folders] if path.count("/") > 2 or path in folders}
    try:
        found: Arrangement = arrange(
            listed, folders, root="/data", class_names=sorted(top) if named else (), field="f", uri="/data"
        )
    except UserError:
        return
    pictures = {
        path
        for path in listed
        if path.count("/") > 2 and path.endswith((".png", ".jpg", ".jfif")) and not path.split("/")[-1].startswith(".")
    }
    assert {path for _, _, path in found.files} == pictures
    assert sum(found.skipped.values()) == len(listed) - len(pictures)
    assert found.class_names == tuple(sorted({name for _, name, _ in found.files}))
    # The classes are the folders at one depth, all of them.
    parts = {part for part, _, _ in found.files} != {"train"} or any(
        path.split("/")[2] != name for _, name, path in found.files
    )
    depth = 3 if parts else 2
    assert all(path.split("/")[depth] == name for _, name, path in found.files)
    assert {path.split("/")[depth] for path in folders if path.count("/") == depth} <= set(found.class_names)
    if named:
        assert set(found.class_names) == top
