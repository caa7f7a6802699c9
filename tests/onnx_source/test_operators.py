"""Each operator of the table as ONNX Runtime computes it, at a batch of 1 and 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_graphs import model, node, written

from edgefolio_pruner.onnx_source.model_file import read_model_file
from edgefolio_pruner.onnx_source.operators.layers import LINEAR
from edgefolio_pruner.onnx_source.operators.registry import OPERATORS

MAPS, VECTORS, SIGNAL = ("n", 4, 6, 6), ("n", 8), ("n", 4, 9)
RANDOM = np.random.default_rng(0)


def weights(*shape: int) -> Any:
    return RANDOM.standard_normal(shape)


def one(
    operator: str, shape: Any = MAPS, *, opset: int = 18, constants: dict[str, Any] | None = None, **given: Any
) -> Any:
    """One node of ``x`` and of the constants, in their order."""
    held = constants or {}
    return model([node(operator, "x", *held, **given)], shape, held, opset=opset)


CASES: dict[str, Any] = {
    name: one(name)
    for name in (
        "Relu", "Sigmoid", "Tanh", "Erf", "Sin", "Cos", "Atan", "Softplus", "Softsign", "HardSwish", "Mish",
        "LeakyRelu", "Elu", "Celu", "ThresholdedRelu", "HardSigmoid", "Selu", "Neg", "Abs", "Floor", "Ceil", "Round",
        "Exp", "Sign", "Identity", "Reciprocal", "Dropout", "GlobalAveragePool", "GlobalMaxPool", "Flatten", "Softmax",
        "LogSoftmax", "LpNormalization",
    )
}  # fmt: skip
CASES |= {
    "Gelu": one("Gelu", opset=20),
    "Gelu tanh": one("Gelu", opset=20, approximate="tanh"),
    "Swish": model([node("Sigmoid", "x", out="s"), node("Mul", "x", "s")], MAPS),
    "HardSigmoid of sixths": one("HardSigmoid", alpha=1 / 6),
    "Sqrt, Log": model([node("Abs", "x", out="a"), node("Sqrt", "a", out="b"), node("Log", "b")], MAPS),
    "Softmax of old, over two axes": one("Softmax", opset=11, axis=2),
    "Softmax of old, by default": one("Softmax", VECTORS, opset=11),
    "Clip": one("Clip", constants={"low": np.float32(-0.5), "high": np.float32(0.5)}),
    "Clip by attributes": one("Clip", opset=9, min=0.0, max=6.0),
    "Clip from below": one("Clip", constants={"low": np.float32(0)}),
    "arithmetic": model(
        [
            node("Add", "x", "scalar", out="a"),
            node("Mul", "a", "channels", out="b"),
            node("Sub", "channels", "b", out="c"),
            node("Div", "c", "scalar", out="d"),
            node("Pow", "d", "two", out="e"),
            node("Sum", "e", "x", "d", out="f"),
            node("Max", "f", "x", "scalar", out="g"),
            node("Min", "g", "d", out="h"),
            node("Mean", "h", "x", out="i"),
            node("Mod", "i", "scalar", fmod=1),
        ],
        MAPS,
        {"scalar": np.float32(1.5), "channels": weights(4, 1, 1), "two": np.float32(2)},
    ),
    "comparisons": model(
        [
            node("Less", "x", "zero", out="a"),
            node("GreaterOrEqual", "x", "one", out="b"),
            node("Or", "a", "b", out="c"),
            node("Not", "c", out="d"),
            node("Greater", "x", "zero", out="e"),
            node("And", "d", "e", out="f"),
            node("LessOrEqual", "x", "one", out="g"),
            node("Cast", "g", to=1, out="h"),
            node("Where", "f", "h", "x", out="i"),
            node("Equal", "i", "zero", out="j"),
            node("Where", "j", "one", "i"),
        ],
        MAPS,
        {"zero": np.float32(0), "one": np.float32(1)},
    ),
    "Conv": one(
        "Conv", constants={"w": weights(6, 2, 3, 3), "b": weights(6)}, group=2, pads=[1, 1, 1, 1], strides=[2, 1]
    ),
    "Conv, uneven padding": one("Conv", constants={"w": weights(6, 4, 3, 2)}, pads=[0, 1, 2, 0], dilations=[2, 1]),
    "Conv, same": one("Conv", constants={"w": weights(6, 4, 2, 3)}, auto_pad="SAME_UPPER", strides=[2, 2]),
    "Conv, same below": one("Conv", constants={"w": weights(6, 4, 2, 4)}, auto_pad="SAME_LOWER"),
    "Conv of signals": one("Conv", SIGNAL, constants={"w": weights(5, 4, 3), "b": weights(5)}, pads=[1, 1]),
    "Conv of volumes": one("Conv", ("n", 2, 4, 4, 4), constants={"w": weights(3, 2, 2, 2, 2)}),
    "ConvTranspose": one(
        "ConvTranspose", constants={"w": weights(4, 3, 3, 3), "b": weights(3)}, strides=[2, 2], pads=[1, 1, 1, 1],
        output_padding=[1, 1],
    ),
    "ConvTranspose, uneven": one("ConvTranspose", constants={"w": weights(4, 2, 3, 3)}, group=2, pads=[0, 1, 1, 0]),
    "Gemm": one("Gemm", VECTORS, constants={"w": weights(3, 8), "b": weights(3)}, transB=1),
    "Gemm with factors": one("Gemm", VECTORS, constants={"w": weights(8, 3), "b": weights(1)}, alpha=0.5, beta=2.0),
    "MatMul, Add": model(
        [node("MatMul", "x", "w", out="a"), node("Add", "b", "a")], SIGNAL, {"w": weights(9, 3), "b": weights(3)}
    ),
    "MatMul of samples": model(
        [node("Transpose", "x", out="t", perm=[0, 2, 1]), node("MatMul", "x", "t")], SIGNAL
    ),
    "MatMul by many": one("MatMul", SIGNAL, constants={"w": weights(1, 9, 3)}),
    "Einsum": one("Einsum", SIGNAL, constants={"w": weights(9, 3)}, equation="ncl,lk->nck"),
    "BatchNormalization": one(
        "BatchNormalization", constants={"w": weights(4), "b": weights(4), "m": weights(4), "v": abs(weights(4)) + 0.5}
    ),
    "BatchNormalization of vectors": one(
        "BatchNormalization", VECTORS, epsilon=1e-3,
        constants={"w": weights(8), "b": weights(8), "m": weights(8), "v": abs(weights(8)) + 0.5},
    ),
    "LayerNormalization": one("LayerNormalization", SIGNAL, constants={"w": weights(9), "b": weights(9)}, epsilon=1e-4),
    "LayerNormalization of maps": one("LayerNormalization", constants={"w": weights(4, 6, 6)}, axis=1),
    "GroupNormalization": one(
        "GroupNormalization", constants={"w": weights(4), "b": weights(4)}, num_groups=2, opset=21
    ),
    "InstanceNormalization": one("InstanceNormalization", constants={"w": weights(4), "b": weights(4)}),
    "PRelu": one("PRelu", constants={"slope": weights(4, 1, 1)}),
    "LRN": one("LRN", size=3, alpha=1e-2),
    "MaxPool": one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "MaxPool, uneven": one("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
    "MaxPool, rounded up": one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "AveragePool": one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
    "AveragePool without padding": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "AveragePool, same": one("AveragePool", kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
    "ReduceMean": one("ReduceMean", constants={"axes": np.array([2, 3])}, keepdims=0),
    "ReduceMean by attribute": one("ReduceMean", opset=13, axes=[-1]),
    **{
        name: one(name, opset=13 if name != "ReduceSum" else 12, axes=[1], keepdims=1)
        for name in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
                     "ReduceLogSumExp")
    },
    "Resize": one("Resize", constants={"roi": np.zeros(0), "scales": [1.0, 1.0, 2.0, 2.0]}, mode="nearest",
                  coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    "Resize by half pixels": one(
        "Resize", constants={"roi": np.zeros(0), "scales": [1.0, 1.0, 1.5, 2.0]}, mode="nearest"
    ),
    "Resize, linear": one("Resize", constants={"roi": np.zeros(0), "scales": [1.0, 1.0, 2.0, 3.0]}, mode="linear"),
    "Resize, cubic": one("Resize", constants={"roi": np.zeros(0), "scales": [1.0, 1.0, 2.0, 2.0]}, mode="cubic"),
    "Resize by corners": one(
        "Resize", constants={"roi": np.zeros(0), "scales": [1.0, 1.0, 2.0, 2.0]}, mode="linear",
        coordinate_transformation_mode="align_corners",
    ),
    "Resize to sizes": model(
        [node("Shape", "x", out="n", end=1), node("Concat", "n", "rest", out="sizes", axis=0),
         node("Resize", "x", "", "", "sizes", mode="linear")],
        MAPS, {"rest": np.array([4, 9, 11])}, opset=15,
    ),
    "Upsample": one("Upsample", opset=9, constants={"scales": [1.0, 1.0, 2.0, 2.0]}, mode="nearest"),
    "Pad": one("Pad", constants={"pads": np.array([0, 0, 1, 2, 0, 1, 0, 1]), "value": np.float32(0.5)}),
    "Pad by attributes": one("Pad", opset=10, pads=[0, 0, 1, 1, 0, 0, 1, 1]),
    "Pad, reflected": one("Pad", constants={"pads": np.array([0, 0, 1, 2, 0, 0, 0, 1])}, mode="reflect"),
    "Pad of channels, reflected": one("Pad", VECTORS, constants={"pads": np.array([0, 2, 0, 3])}, mode="reflect"),
    "Pad, edge": one("Pad", SIGNAL, constants={"pads": np.array([0, 0, 2, 0, 0, 2])}, mode="edge"),
    "DepthToSpace": one("DepthToSpace", blocksize=2),
    "DepthToSpace by columns": one("DepthToSpace", blocksize=2, mode="CRD"),
    "SpaceToDepth": one("SpaceToDepth", blocksize=3),
    "Slice": one("Slice", constants={"s": np.array([1, 0]), "e": np.array([3, 2**62]), "a": np.array([1, -1]),
                                     "t": np.array([1, 2])}),
    "Slice backwards": one("Slice", constants={"s": np.array([-1]), "e": np.array([-(2**62)]), "a": np.array([3]),
                                               "t": np.array([-1])}),
    "Slice by attributes": one("Slice", opset=9, starts=[1], ends=[-1], axes=[2]),
    "Gather": one("Gather", constants={"i": np.array([2, 0, -1])}, axis=1),
    "Gather one": one("Gather", constants={"i": np.array(1)}, axis=1),
    "Gather a table": one("Gather", constants={"i": np.array([[0, 1], [3, 2]])}, axis=1),
    "Transpose, Squeeze": model(
        [node("ReduceMax", "x", out="m", axes=[2, 3], keepdims=1), node("Squeeze", "m", "axes", out="s"),
         node("Unsqueeze", "s", "front", out="u"), node("Transpose", "u", perm=[0, 2, 1])],
        MAPS, {"axes": np.array([2, 3]), "front": np.array([1])}, opset=13,
    ),
    "Squeeze by attributes": model(
        [node("GlobalMaxPool", "x", out="m"), node("Squeeze", "m", axes=[2, 3], out="s"),
         node("Unsqueeze", "s", axes=[1])],
        MAPS, opset=11,
    ),
    "Tile, Concat": model(
        [node("Tile", "x", "counts", out="t"), node("Concat", "t", "x", axis=1)],
        MAPS, {"counts": np.array([1, 2, 1, 1])},
    ),
    "Trilu": one("Trilu", upper=0),
    "a shape that is computed": model(
        [
            node("Shape", "x", out="s"),
            node("Gather", "s", "zero", out="n", axis=0),
            node("Unsqueeze", "n", "zeros", out="u"),
            node("Concat", "u", "rest", out="target", axis=0),
            node("Reshape", "x", "target"),
        ],
        MAPS,
        {"zero": np.array(0), "zeros": np.array([0]), "rest": np.array([-1, 12])},
    ),
    "a token that is repeated": model(
        [
            node("Shape", "x", out="s", end=1),
            node("Concat", "s", "rest", out="sizes", axis=0),
            node("Expand", "token", "sizes", out="tokens"),
            node("Concat", "tokens", "x", axis=1),
        ],
        SIGNAL,
        {"token": weights(1, 1, 9), "rest": np.array([1, 9])},
    ),
    "filled by a shape": model(
        [node("Shape", "x", out="s"), node("ConstantOfShape", "s", out="c"), node("Add", "c", "x")], SIGNAL
    ),
    "a range": model(
        [
            node("Shape", "x", out="s", start=-1),
            node("Squeeze", "s", out="last"),
            node("Range", "zero", "last", "one", out="r"),
            node("Cast", "r", out="f", to=1),
            node("Add", "x", "f"),
        ],
        SIGNAL,
        {"zero": np.array(0), "one": np.array(1)},
    ),
    "constants of constants": model(
        [
            node("Pad", "w", "p", "v", out="a"),
            node("Sigmoid", "a", out="b"),
            node("MatMul", "b", "m", out="c"),
            node("Softmax", "c", out="d"),
            node("Add", "x", "d"),
        ],
        SIGNAL,
        {"w": weights(1, 2), "p": np.array([0, 0, 0, 1]), "v": np.float32(0.5), "m": weights(3, 9)},
    ),
    "a factor of a shape": model(
        [
            node("Shape", "x", out="s"),
            node("Slice", "s", "from", "to", out="last"),
            node("Cast", "last", out="f", to=1),
            node("Sqrt", "f", out="r"),
            node("Div", "x", "r"),
        ],
        SIGNAL,
        {"from": np.array([-1]), "to": np.array([2**62])},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_answers_as_the_runtime(name: str, tmp_path: Path) -> None:
    file = read_model_file(written(CASES[name], tmp_path / "model.onnx"), field="--model")
    shape = file.sample_shape
    assert shape is not None
    file.proven(shape)


def test_every_operator_of_the_table_is_tried() -> None:
    tried = {node.op_type for case in CASES.values() for node in case.graph.node} | {LINEAR}
    # Split is tried below; Swish (operator set 24) is one of torch's own, Size a product.
    of_sizes = {"Size", "Split", "Swish"}
    assert set(OPERATORS) - tried - of_sizes == set()


def test_parts(tmp_path: Path) -> None:
    parts = [
        ("sizes", model([_split("x", "sizes")], MAPS, {"sizes": np.array([1, 3])}, outputs=("one", "other"), opset=13)),
        ("attribute", model([_split("x", split=[1, 3])], MAPS, outputs=("one", "other"), opset=11)),
        ("equal", model([_split("x")], MAPS, outputs=("one", "other"), opset=13)),
    ]
    for name, found in parts:
        file = read_model_file(written(found, tmp_path / f"{name}.onnx"), field="--model").proven((4, 6, 6))
        outputs = file.build()(torch.zeros(3, 4, 6, 6))
        assert isinstance(outputs, dict)
        assert list(outputs) == ["one", "other"]


def _split(*inputs: str, **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node("Split", list(inputs), ["one", "other"], axis=1, **attributes)
