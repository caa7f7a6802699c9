"""Order of the classes: whatever order is asked for, every sample keeps its class's name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from edgefolio.errors import UserError
from edgefolio.specification import DataSpecification
from edgefolio_pruner.data import load_data
from edgefolio_pruner.data.bundle import DataBundle
from edgefolio_pruner.data.class_order import ClassOrder, class_names_of_model, in_order, natural
from edgefolio_pruner.data.class_table import class_table
from edgefolio_pruner.data.raw import RawData, RawSplit

NAMES = st.lists(st.text(st.sampled_from("ab019-ä "), min_size=1, max_size=5), min_size=2, max_size=8, unique=True)


def raw(names: tuple[str, ...], *, has_names: bool = True) -> RawData:
    labels = np.arange(3 * len(names)) % len(names)
    part = RawSplit(images=labels.reshape(-1, 1, 1, 1).astype(np.uint8), labels=labels)
    return RawData(parts={"train": part}, class_names=names, scale=1.0, has_names=has_names)


def named(data: RawData) -> list[tuple[int, str]]:
    """What each sample is (its only pixel was its label), and the name of its class."""
    split = data.parts["train"]
    return sorted(
        (int(image.item()), data.class_names[label]) for image, label in zip(split.images, split.labels, strict=True)
    )


@settings(max_examples=200, deadline=None)
@given(names=NAMES, more=st.lists(st.sampled_from(["x", "y", "z"]), unique=True), shuffled=st.randoms())
def test_every_sample_keeps_its_class_in_any_order(names: list[str], more: list[str], shuffled) -> None:
    data = raw(tuple(sorted(names)))
    wanted = [*names, *more]
    shuffled.shuffle(wanted)
    orders = [
        ClassOrder(names=tuple(wanted)),
        ClassOrder(model_names=tuple(wanted)),
        ClassOrder(by="Natural"),
        ClassOrder(),
        ClassOrder(model_names=("something", "else")),
    ]
    for order in orders:
        found = in_order(data, order, field="f", uri="u")
        assert named(found) == named(data)
        assert found.class_names[: len(wanted)] == tuple(wanted) or not (
            order.names or set(names) <= set(order.model_names)
        )
    assert in_order(
        data, ClassOrder(names=tuple(wanted), model_names=("a", "b")), field="f", uri="u"
    ).class_names == tuple(wanted)


def test_numbers_in_names_are_numbers_in_natural_order() -> None:
    names = ["10", "9", "class2", "class10", "class1", "1"]
    assert sorted(names, key=natural) == ["1", "9", "10", "class1", "class2", "class10"]
    # Python makes no number of more than 4300 digits.
    long, longer = "1" * 5000, "1" * 5001
    assert sorted([longer, long, "07", "7", "6"], key=natural) == ["6", "07", "7", long, longer]


@settings(max_examples=200, deadline=None)
@given(names=NAMES)
def test_natural_order_is_one_order(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(names, key=natural) == sorted(backwards, key=natural)


def test_a_class_that_is_not_in_the_list_is_named() -> None:
    with pytest.raises(UserError, match="not in the list: 'Cat'") as caught:
        in_order(raw(("Cat", "dog")), ClassOrder(names=("cat", "dog")), field="spec.data", uri="u")
    assert caught.value.field == "spec.data.classNames"


def test_classes_that_are_only_numbered_are_named_in_the_order_of_their_numbers() -> None:
    data = raw(("0", "1", "2"), has_names=False)
    found = in_order(data, ClassOrder(names=("c", "a", "b", "never")), field="f", uri="u")
    assert found.class_names == ("c", "a", "b", "never")
    assert named(found)[0] == (0, "c")
    with pytest.raises(UserError, match="2 names, but labels up to 2"):
        in_order(data, ClassOrder(names=("a", "b")), field="f", uri="u")


def test_names_that_occur_twice_are_no_list() -> None:
    with pytest.raises(ValidationError, match="classNames holds a name twice"):
        DataSpecification(training_uri="x", class_names=("a", "b", "a"))


@pytest.mark.parametrize(
    "attributes",
    [
        {"class_names": ["b", "a"]},
        {"classes": ("b", "a")},
        {"config": SimpleNamespace(id2label={0: "b", 1: "a"})},
        {"config": SimpleNamespace(id2label={"0": "b", "1": "a"})},
        {"pretrained_cfg": {"label_names": ["b", "a"]}},
    ],
)
def test_a_model_may_bring_its_order(attributes: dict) -> None:
    module = nn.Identity()
    for name, value in attributes.items():
        setattr(module, name, value)
    assert class_names_of_model(module) == ("b", "a")


@pytest.mark.parametrize("value", [None, 10, [], ["a", "a"], ["a", 1], "ab", {"a": 1}])
def test_what_is_no_order_of_classes_is_none(value: object) -> None:
    module = nn.Identity()
    module.class_names = value
    module.config = SimpleNamespace(id2label={0: "a", 5: "b"})
    assert class_names_of_model(module) == ()


def load(path: Path, **settings: object) -> DataBundle:
    return load_data(DataSpecification(training_uri=str(path), **settings), seed=1)


def test_other_parts_follow_the_same_order(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name, classes in (("train", ("ant", "bee", "cat")), ("test", ("cat", "ant", "bee"))):
        labels = np.arange(60) % 3
        images = generator.integers(0, 50, (60, 4, 4), dtype=np.uint8)
        # The class's own brightness, by its name.
        images += np.array([60 * ("ant", "bee", "cat").index(classes[label]) for label in labels], dtype=np.uint8)[
            :, None, None
        ]
        np.savez(tmp_path / f"{name}.npz", x=images, y=labels, class_names=np.array(classes))
    data = load(tmp_path / "train.npz", test_uri=str(tmp_path / "test.npz"), class_names=["bee", "cat", "ant"])
    assert data.class_names == ("bee", "cat", "ant")
    for part in (data.train, data.test):
        brightness = [float(part.images[part.labels == label].mean()) for label in range(3)]
        assert np.argsort(brightness).tolist() == [2, 0, 1]


def test_classes_of_the_list_without_samples_are_told(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (40, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x=images, y=np.arange(40) % 2, class_names=np.array(["a", "c"]))
    data = load(tmp_path / "d.npz", class_names=["a", "b", "c"])
    assert data.notes == ("1 of the 3 classes have no training samples: 'b'",)
    np.savez(tmp_path / "gap.npz", x=images, y=2 * (np.arange(40) % 2))
    with pytest.raises(UserError, match="no training samples of these classes: '1'"):
        load(tmp_path / "gap.npz")


def test_the_table_shows_every_class_and_of_very_many_the_smallest(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (40, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x=images, y=np.arange(40) % 2, class_names=np.array(["ant", "bee"]))
    lines = class_table(load(tmp_path / "d.npz")).split("\n")
    assert [line.split() for line in lines[2:]] == [["0", "ant", "16", "2", "2"], ["1", "bee", "16", "2", "2"]]
    labels = np.concatenate([np.repeat(np.arange(100), 10), np.arange(90)])
    images = np.random.default_rng(0).integers(0, 255, (len(labels), 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "many.npz", x=images, y=labels)
    lines = class_table(load(tmp_path / "many.npz")).split("\n")
    assert len(lines) < 40
    assert "80 more" in "\n".join(lines)
    assert [line.split()[0] for line in lines[-10:]] == [str(number) for number in range(90, 100)]
