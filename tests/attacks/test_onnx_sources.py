"""An ONNX file of a stranger as the source: refused by one error, before torch or ONNX Runtime run it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from model_file_threats import threats
from onnx_graphs import model, node

from edgefolio.errors import UserError
from edgefolio_pruner.onnx_source.model_file import read_model_file

THREATS = threats()


@pytest.fixture
def _no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("the runtime was given the file")

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)


@pytest.mark.usefixtures("_no_runtime")
@pytest.mark.parametrize("name", THREATS)
def test_threats_in_model_files(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(THREATS[name][0])
    with pytest.raises(UserError) as caught:
        read_model_file(tmp_path / "model.onnx", field="spec.source.modelURI")
    assert caught.value.field == "spec.source.modelURI"


COLUMN, ROW = np.ones((1 << 14, 1)), np.ones((1, 1 << 14))
WIDE = np.array([1 << 12, 1 << 12])
BOMBS = {
    "a product": model([node("MatMul", "a", "b", out="c"), node("Add", "x", "c")], ("n", 4), {"a": COLUMN, "b": ROW}),
    "a sum": model([node("Add", "a", "b", out="c"), node("Add", "x", "c")], ("n", 4), {"a": COLUMN, "b": ROW}),
    "a lookup": model(
        [node("Gather", "b", "i", out="c"), node("Add", "x", "c")], ("n", 4),
        {"b": ROW, "i": np.zeros(1 << 14, dtype=np.int64)},
    ),
    "a padding": model(
        [node("Pad", "a", "p", out="c"), node("Add", "x", "c")], ("n", 4),
        {"a": COLUMN, "p": np.array([0, 0, 0, 1 << 40])},
    ),
    "products of products": model(
        [node("Einsum", "a", "a", "a", "a", out="c", equation="ia,jb,kc,ld->"), node("Add", "x", "c")],
        ("n", 4), {"a": COLUMN},
    ),
    "many constants": model(
        [*[node("ConstantOfShape", "s", out=f"c{number}") for number in range(9)],
         node("Sum", "x", *[f"c{number}" for number in range(9)])],
        ("n", 4), {"s": WIDE},
    ),
    "a range": model(
        [node("Range", "z", "e", "o", out="c"), node("Cast", "c", out="f", to=1), node("Add", "x", "f")], ("n", 4),
        {"z": np.array(0), "e": np.array(1 << 50), "o": np.array(1)},
    ),
}  # fmt: skip


@pytest.mark.usefixtures("_no_runtime")
@pytest.mark.parametrize("name", BOMBS)
def test_constants_that_grow(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(BOMBS[name].SerializeToString())
    with pytest.raises(UserError, match=r"constant|too much"):
        read_model_file(tmp_path / "model.onnx", field="--model")


def test_broken_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    weights = {"w": np.ones((4, 2, 3, 3)), "b": np.ones(4), "s": np.array([-1, 64])}
    sound = model(
        [
            node("Conv", "x", "w", "b", out="c", pads=[1, 1, 1, 1]),
            node("Relu", "c", out="r"),
            node("Reshape", "r", "s"),
        ],
        (1, 2, 4, 4),
        weights,
    ).SerializeToString()
    random = np.random.default_rng(0)
    # What describes the graph, and not its weights.
    places = [place for place in range(len(sound)) if sound[place] not in (0, 0x80, 0x3F)]
    path = tmp_path / "model.onnx"
    refused = 0
    for place in random.choice(places, 200):
        broken = bytearray(sound)
        broken[place] ^= 1 << int(random.integers(8))
        path.write_bytes(bytes(broken))
        try:
            read_model_file(path, field="--model")
        except UserError:
            refused += 1
    assert refused > 20
