"""What is no source is refused by one error with the field, what is wrong, and the remedy, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_graphs import model, node, written

from edgefolio.errors import UserError
from edgefolio_pruner.onnx_source import proof
from edgefolio_pruner.onnx_source.model_file import read_model_file
from edgefolio_pruner.onnx_source.network import OnnxNetwork

RANDOM = np.random.default_rng(0)
SHAPE = ("n", 4, 6, 6)
RESULT = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)


def several_inputs() -> onnx.ModelProto:
    found = model([node("Add", "x", "y")], SHAPE)
    found.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, list(SHAPE)))
    return found


def outside() -> onnx.ModelProto:
    found = model([node("Add", "x", "w")], SHAPE, {"w": RANDOM.standard_normal((4, 1, 1))})
    tensor = found.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return found


def branch() -> onnx.ModelProto:
    inner = helper.make_graph(
        [node("Relu", "x", out="inner")], "b", [], [helper.make_tensor_value_info("inner", 1, None)]
    )
    given = helper.make_node("If", ["flag"], ["output"], then_branch=inner, else_branch=inner)
    return model([given], SHAPE, {"flag": np.array(True)})


def custom() -> onnx.ModelProto:
    found = model([helper.make_node("FusedConv", ["x"], ["output"], domain="com.microsoft")], SHAPE)
    found.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return found


def quantized() -> onnx.ModelProto:
    constants = {"scale": np.float32(0.1), "zero": np.array(0, dtype=np.uint8)}
    nodes = [node("QuantizeLinear", "x", "scale", "zero", out="q"), node("DequantizeLinear", "q", "scale", "zero")]
    return model(nodes, SHAPE, constants)


def recurrent() -> onnx.ModelProto:
    weights = {"w": RANDOM.standard_normal((1, 8, 3)), "r": RANDOM.standard_normal((1, 8, 2))}
    cell = helper.make_node("LSTM", ["x", "w", "r"], ["output"], hidden_size=2, name="cell")
    return model([cell], (1, "n", 3), weights)


CASES: dict[str, tuple[Callable[[], onnx.ModelProto], str, str]] = {
    "several inputs": (several_inputs, r"takes 2 inputs \(x, y\)", "one tensor"),
    "weights outside": (outside, "outside the file", "external_data=False"),
    "a branch": (branch, "If", "without loops and branches"),
    "an operator of somebody's": (custom, "outside the standard domain", "standard operators"),
    "int8": (quantized, r"quantized \(operator QuantizeLinear, node 'QuantizeLinear_of_q'\)", "before quantization"),
    "a recurrent net": (recurrent, r"operator LSTM \(node 'cell'\) is not known", "without it"),
    "float16": (lambda: model([node("Relu", "x")], SHAPE, kind=TensorProto.FLOAT16), "16 bits", "float32"),
    "weights of float16": (
        lambda: model([node("Cast", "w", to=1, out="f"), node("Add", "x", "f")], SHAPE, {"w": np.ones(6, np.float16)}),
        "'w' is of 16 bits",
        "float32",
    ),
    "numbers of words": (lambda: model([node("Abs", "x")], SHAPE, kind=TensorProto.INT64), "INT64", "embedding"),
    "float64": (lambda: model([node("Relu", "x")], SHAPE, kind=TensorProto.DOUBLE), "DOUBLE", "float32"),
    "a batch of eight": (lambda: model([node("Relu", "x")], (8, 4, 6, 6)), "batch is fixed at 8", "free batch"),
    "no batch": (lambda: model([node("Relu", "x")], (4,)), "1 axes", "batch axis"),
    "computed weights": (
        lambda: model([node("Conv", "x", "x")], (1, 1, 2, 2)),
        "operator Conv .* weights that are constants",
        "constant",
    ),
    "a place that samples name": (
        lambda: model([node("Cast", "x", to=7, out="i"), node("Gather", "w", "i")], ("n", 3), {"w": np.ones((4, 2))}),
        "operator Gather",
        "embedding",
    ),
    "places of maxima": (
        lambda: model(
            [helper.make_node("MaxPool", ["x"], ["output", "places"], kernel_shape=[2, 2])], SHAPE, outputs=("output",)
        ),
        "MaxPool.*places of the maxima",
        "another pool",
    ),
    "statistics of the batch": (
        lambda: model([node("BatchNormalization", "x", "w", "w", "w", "w", training_mode=1)], SHAPE, {"w": np.ones(4)}),
        "statistics of the batch",
        "evaluation mode",
    ),
    "a constant that is huge": (
        lambda: model(
            [node("ConstantOfShape", "s", out="c"), node("Add", "x", "c")], SHAPE, {"s": np.array([1 << 20, 1 << 20])}
        ),
        "ConstantOfShape.*constant of 1048576x1048576",
        "without constants",
    ),
    "a tile that is huge": (
        lambda: model(
            [node("Tile", "w", "s", out="c"), node("Add", "x", "c")], SHAPE, {"w": np.ones(6), "s": np.array([1 << 40])}
        ),
        "Tile",
        "without constants",
    ),
    "a batch that is mixed": (
        lambda: model([node("ReduceMean", "x", axes=[0, 1], keepdims=0)], (1, 4, 6, 6), opset=13),
        "ReduceMean.*batch of 1",
        "free batch",
    ),
    "a batch that is taken off": (
        lambda: model([node("Squeeze", "x", axes=[0])], (1, 4, 6, 6), opset=11),
        "Squeeze.*batch of 1",
        "free batch",
    ),
    "too large for memory": (
        lambda: model([node("Resize", "x", "", "s")], SHAPE, {"s": [1.0, 1.0, 1e5, 1e5]}),
        "operator Resize .* takes at least",
        "memory",
    ),
}


def read_and_prove(path: Path) -> None:
    file = read_model_file(path, field="spec.source.modelURI")
    file.proven(file.sample_shape or (4, 6, 6))


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(name: str, tmp_path: Path) -> None:
    make, problem, remedy = CASES[name]
    path = written(make(), tmp_path / "model.onnx")
    with pytest.raises(UserError, match=problem) as caught:
        read_and_prove(path)
    assert caught.value.field == "spec.source.modelURI"
    assert "model.onnx" in str(caught.value.value)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"no model", b"PK\x03\x04" + bytes(64)], ids=["empty", "text", "archive"])
def test_bytes_that_are_no_model(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_model_file(tmp_path / "model.onnx", field="--model")
    assert caught.value.field == "--model"


def test_samples_of_another_shape(tmp_path: Path) -> None:
    path = written(model([node("Relu", "x")], SHAPE), tmp_path / "model.onnx")
    with pytest.raises(UserError, match="samples of 4x6x6, not 3x6x6"):
        read_model_file(path, field="--model").proven((3, 6, 6))


def test_a_network_that_answers_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(model([node("Relu", "x")], SHAPE), tmp_path / "model.onnx")
    file = read_model_file(path, field="--model")
    answered = OnnxNetwork.forward
    monkeypatch.setattr(OnnxNetwork, "forward", lambda self, samples: answered(self, samples) * 1.001)
    with pytest.raises(UserError, match="differs from ONNX Runtime by"):
        proof.require_same_answers(file.network, file.content, (4, 6, 6), field="--model", name="model.onnx")
