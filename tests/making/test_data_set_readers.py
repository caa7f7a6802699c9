"""Reader of a user's own data set by its factory; and each wrong form as one error."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from read_data import FIELD, LABELS, NAMES, PICTURES, read, samples_of

from edgefolio.errors import UserError


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
