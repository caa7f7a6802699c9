"""Data as three disjoint, normalised parts; and what is wrong with data that cannot be used."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgefolio.errors import UserError
from edgefolio.specification import DataSpecification
from edgefolio_pruner.data import DataBundle, load_data
from edgefolio_pruner.data.readers import fashion_mnist


def load(uri: object, *, seed: int = 0, **settings: Any) -> DataBundle:
    return load_data(DataSpecification(training_uri=str(uri), **settings), seed=seed)


def save(path: Path, **arrays: np.ndarray[Any, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def numbered(count: int, *, first: int = 0, classes: int = 4) -> dict[str, np.ndarray[Any, Any]]:
    """Samples whose first pixel is their number, so that parts can be compared."""
    images = np.random.default_rng(0).normal(size=(count, 1, 4, 4)).astype(np.float32)
    images[:, 0, 0, 0] = np.arange(first, first + count)
    return {"x": images, "y": np.arange(count) % classes}


def numbers(bundle: DataBundle) -> dict[str, set[int]]:
    scale, shift = bundle.preprocessing.std[0], bundle.preprocessing.mean[0]
    return {
        part: set(np.rint(getattr(bundle, part).images[:, 0, 0, 0] * scale + shift).astype(int).tolist())
        for part in ("train", "validation", "test")
    }


def test_parts_are_disjoint_complete_stratified_and_seeded(tmp_path: Path) -> None:
    path = save(tmp_path / "data.npz", **numbered(400))
    bundle = load(path, validation_percent=20, test_percent=10)
    parts = numbers(bundle)
    assert parts["train"] | parts["validation"] | parts["test"] == set(range(400))
    assert sum(len(part) for part in parts.values()) == 400
    assert (bundle.test.samples, bundle.validation.samples) == (40, 72)
    for split in (bundle.validation, bundle.test):
        assert np.ptp(np.bincount(split.labels, minlength=4)) == 0
    assert numbers(load(path, validation_percent=20, test_percent=10)) == parts
    assert numbers(load(path, validation_percent=20, test_percent=10, seed=1)) != parts


def test_parts_of_their_own_are_taken(tmp_path: Path) -> None:
    train = save(tmp_path / "train.npz", **numbered(40))
    validation = save(tmp_path / "validation.npz", **numbered(12, first=100))
    test = save(tmp_path / "test.npz", **{f"{key}_test": value for key, value in numbered(8, first=200).items()})
    with pytest.raises(UserError, match=r"trainingURI.*no x_train"):
        load(test)
    parts = numbers(load(train, validation_uri=str(validation), test_uri=str(test)))
    assert parts == {"train": set(range(40)), "validation": set(range(100, 112)), "test": set(range(200, 208))}
    whole = save(
        tmp_path / "whole.npz",
        **{f"{key}_train": value for key, value in numbered(40).items()},
        **{f"{key}_test": value for key, value in numbered(8, first=200).items()},
    )
    parts = numbers(load(whole))
    assert parts["test"] == set(range(200, 208))
    assert parts["train"] | parts["validation"] == set(range(40))


def test_normalisation_is_recorded_and_undoes() -> None:
    bundle = load("builtin:digits")
    assert bundle.sample_shape == (1, 8, 8)
    assert (bundle.train.samples + bundle.validation.samples + bundle.test.samples) == 1797
    assert bundle.train.images.dtype == np.float32
    assert abs(float(bundle.train.images.mean())) < 1e-4
    assert abs(float(bundle.train.images.std()) - 1) < 1e-4
    record = bundle.preprocessing
    raw = (bundle.test.images * record.std[0] + record.mean[0]) / record.scale
    assert np.abs(raw - np.rint(raw)).max() < 1e-4
    assert (round(float(raw.min())), round(float(raw.max()))) == (0, 16)
    assert len(bundle.class_names) == 10
    assert load("builtin:digits", image_size=16).sample_shape == (1, 16, 16)


def test_a_normalisation_that_is_given_is_used_and_recorded(tmp_path: Path) -> None:
    images = np.arange(40 * 3 * 4).reshape(40, 3, 2, 2).astype(np.uint8)
    path = save(tmp_path / "data.npz", x=images, y=np.arange(40) % 2)
    settings = {"mean": ["0.485", "0", "-0.25"], "standardDeviation": ["0.229", "1", "0.5"]}
    bundle = load(path, normalization=settings)
    assert bundle.preprocessing.scale == 1 / 255
    assert bundle.preprocessing.mean == (0.485, 0.0, -0.25)
    assert bundle.preprocessing.std == (0.229, 1.0, 0.5)
    plain = load(path)
    assert plain.digests == bundle.digests
    for part in ("train", "validation", "test"):
        record = plain.preprocessing
        unit = getattr(plain, part).images * np.reshape(record.std, (3, 1, 1)) + np.reshape(record.mean, (3, 1, 1))
        expected = (unit - np.array([0.485, 0, -0.25])[:, None, None]) / np.array([0.229, 1, 0.5])[:, None, None]
        np.testing.assert_allclose(getattr(bundle, part).images, expected, atol=1e-5)


def test_what_the_data_alone_decide_can_be_given_as_well() -> None:
    plain = load("builtin:digits")
    record = plain.preprocessing
    settings = {
        "mean": [str(value) for value in record.mean],
        "standardDeviation": [str(value) for value in record.std],
    }
    given = load("builtin:digits", normalization=settings)
    assert given.preprocessing == record
    assert np.array_equal(given.train.images, plain.train.images)


def test_a_normalisation_for_another_number_of_channels_is_refused() -> None:
    settings = {"mean": ["0.5", "0.5", "0.5"], "standardDeviation": ["0.5", "0.5", "0.5"]}
    with pytest.raises(UserError, match=r"3 numbers, but the samples have 1 channel\.") as caught:
        load("builtin:digits", normalization=settings)
    assert caught.value.field == "spec.data.normalization.mean"


def test_digests_follow_the_data(tmp_path: Path) -> None:
    arrays = numbered(100)
    first = load(save(tmp_path / "a.npz", **arrays)).digests
    assert load(save(tmp_path / "b.npz", **arrays)).digests.training_sha256 == first.training_sha256
    arrays["x"][:, 0, 1, 1] += 1
    changed = load(save(tmp_path / "c.npz", **arrays)).digests
    assert changed.training_sha256 != first.training_sha256
    assert len({first.training_sha256, first.validation_sha256, first.test_sha256}) == 3
    assert (first.training_samples, first.validation_samples, first.test_samples) == (84, 8, 8)


def test_calibration_samples_are_training_samples() -> None:
    bundle = load("builtin:digits")
    chosen = bundle.calibration(64, seed=5)
    assert chosen.shape == (64, 1, 8, 8)
    known = {image.tobytes() for image in bundle.train.images}
    assert all(image.tobytes() in known for image in chosen)
    assert np.array_equal(chosen, bundle.calibration(64, seed=5))
    assert not np.array_equal(chosen, bundle.calibration(64, seed=6))
    assert len(bundle.calibration(10**6, seed=5)) == bundle.train.samples


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((40, 6, 5), (1, 6, 5)), ((40, 3, 6, 5), (3, 6, 5)), ((40, 6, 5, 3), (3, 6, 5)), ((40, 1, 6, 3), (1, 6, 3))],
)
def test_layouts_of_npz(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    images = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    bundle = load(save(tmp_path / "data.npz", x_train=images, y_train=np.arange(40) % 2))
    assert bundle.sample_shape == expected
    assert bundle.preprocessing.scale == 1 / 255


def write_images(folder: Path, names: dict[str, int], *, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> None:
    for name, count in names.items():
        for number in range(count):
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
            colour = 40 * len(name) + number
            Image.fromarray(np.full(shape, colour % 256, dtype=np.uint8)).save(path)


def test_image_folders(tmp_path: Path) -> None:
    write_images(tmp_path / "flat", {"dog": 10, "bird": 10})
    (tmp_path / "flat" / "readme.txt").write_text("not an image")
    flat = load(tmp_path / "flat")
    assert flat.class_names == ("bird", "dog")
    assert flat.sample_shape == (3, 4, 6)
    assert (flat.train.samples, flat.validation.samples, flat.test.samples) == (16, 2, 2)
    assert load(tmp_path / "flat", image_size=8).sample_shape == (3, 8, 8)
    write_images(tmp_path / "parts", {"train/a": 6, "train/bb": 6, "val/a": 2, "val/bb": 3, "test/bb": 4}, mode="L")
    parts = load(f"file://{tmp_path / 'parts'}")
    assert parts.sample_shape == (1, 4, 6)
    assert (parts.train.samples, parts.validation.samples, parts.test.samples) == (12, 5, 4)
    assert parts.test.labels.tolist() == [1, 1, 1, 1]


def test_image_folders_that_cannot_be_used(tmp_path: Path) -> None:
    write_images(tmp_path / "sizes", {"a": 3})
    write_images(tmp_path / "sizes", {"b": 3}, size=(5, 5))
    with pytest.raises(UserError, match=r"5x5 is not that of the first image, 6x4.*imageSize"):
        load(tmp_path / "sizes")
    assert load(tmp_path / "sizes", image_size=8).sample_shape == (3, 8, 8)
    (tmp_path / "broken" / "a").mkdir(parents=True)
    (tmp_path / "broken" / "a" / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "broken")
    write_images(tmp_path / "only-test", {"test/a": 3, "test/b": 3})
    with pytest.raises(UserError, match=r"none for train.*<folder>/train/<class>"):
        load(tmp_path / "only-test")
    assert load(tmp_path / "sizes", image_size=8, test_uri=str(tmp_path / "only-test")).test.samples == 6
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        load(tmp_path / "empty")


def wrong_arrays() -> dict[str, tuple[dict[str, np.ndarray[Any, Any]], str]]:
    good = numbered(40)
    with_nan = {"x": good["x"].copy(), "y": good["y"]}
    with_nan["x"][3, 0, 1, 1] = np.nan
    names = np.array(["a", "b"])
    return {
        "NaN": (with_nan, "not finite"),
        "empty": ({"x": good["x"][:0], "y": good["y"][:0]}, "no samples"),
        "labels outside": ({**good, "class_names": names}, r"20 labels lie outside the classes 0\.\.1"),
        "negative labels": ({"x": good["x"], "y": good["y"] - 1}, "10 labels lie outside"),
        "missing labels": ({"x": good["x"]}, "'y' is missing"),
        "too few labels": ({"x": good["x"], "y": good["y"][:7]}, "40 samples but 7 labels"),
        "no samples": ({"x": good["x"].reshape(640), "y": good["y"]}, "640"),
        "labels as numbers": ({"x": good["x"], "y": good["y"] + 0.5}, "integer per sample"),
        "labels as times": ({"x": good["x"], "y": good["y"].astype("datetime64[s]")}, "integer per sample"),
        "samples as text": ({"x": good["x"].astype(str), "y": good["y"]}, "uint8 or floating"),
        "other names": ({"pixels": good["x"], "answers": good["y"]}, "answers, pixels"),
        "objects": ({"x": good["x"].astype(object), "y": good["y"]}, "plain arrays"),
    }


@pytest.mark.parametrize("case", sorted(wrong_arrays()))
def test_npz_files_that_cannot_be_used(tmp_path: Path, case: str) -> None:
    arrays, problem = wrong_arrays()[case]
    path = save(tmp_path / "data.npz", **arrays)
    with pytest.raises(UserError, match=problem) as caught:
        load(path)
    assert caught.value.field == "spec.data.trainingURI"
    assert caught.value.value == str(path)


def test_addresses_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "single.npy", np.zeros(3))
    for uri, problem in {
        "builtin:imagenet": "builtin:digits or builtin:fashion-mnist",
        "gopher9://host/data.npz": "scheme",
        tmp_path / "absent.npz": "no such file",
        tmp_path / "text.npz": "no .npz",
        tmp_path / "single.npy": "no labels beside it",
    }.items():
        with pytest.raises(UserError, match=problem):
            load(uri)
    train = save(tmp_path / "train.npz", **numbered(40))
    other_shape = save(tmp_path / "shape.npz", x=np.zeros((8, 1, 5, 5), np.float32), y=np.arange(8) % 4)
    with pytest.raises(UserError, match=r"validationURI.*1x5x5.*1x4x4"):
        load(train, validation_uri=str(other_shape))
    other_classes = save(tmp_path / "classes.npz", **numbered(12, classes=6))
    with pytest.raises(UserError, match=r"testURI.*classes"):
        load(train, test_uri=str(other_classes))
    few = save(tmp_path / "few.npz", x=np.zeros((3, 1, 4, 4), np.float32), y=np.arange(3))
    with pytest.raises(UserError, match="too few samples"):
        load(few)


def write_idx(folder: Path) -> None:
    folder.mkdir(parents=True)
    for file in fashion_mnist.FILES.values():
        content = bytes(file.header) + bytes(int(np.prod(file.shape)))
        with gzip.open(folder / file.name, "wb", compresslevel=1) as stream:
            stream.write(content)


def test_fashion_mnist_with_other_contents_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "edgefolio" / "fashion-mnist")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fashion_mnist, "INSTALLED", tmp_path / "not-installed")
    with pytest.raises(UserError, match="digest is another"):
        load("builtin:fashion-mnist")
    name = fashion_mnist.FILES["train images"].name
    (tmp_path / "edgefolio" / "fashion-mnist" / name).write_bytes(b"cut off")
    with pytest.raises(UserError, match="digest is another"):
        load("builtin:fashion-mnist")


def test_fashion_mnist_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(fashion_mnist, "INSTALLED", tmp_path / "not-installed")
    with pytest.raises(UserError) as caught:
        load("builtin:fashion-mnist")
    assert "apt-get is not on this machine" in caught.value.problem
    assert ".npz" in caught.value.remedy
    assert not list((tmp_path / "edgefolio").iterdir())
