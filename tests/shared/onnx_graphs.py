"""Small ONNX files for tests: of single operators by onnx.helper, and of networks by the exporters of torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from edgefolio_pruner.export import export_onnx


def node(operator: str, *inputs: str, out: str = "output", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), [out], name=f"{operator}_of_{out}", **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str | None],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 18,
    kind: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("output",),
) -> onnx.ModelProto:
    """A model of one input ``x`` whose constants are initializers; floats are float32."""
    held = {}
    for name, value in (constants or {}).items():
        array = np.asarray(value)
        held[name] = array.astype(np.float32) if array.dtype.kind == "f" and array.dtype != np.float16 else array
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def written(found: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(found.SerializeToString())
    return path


def exported(module: torch.nn.Module, shape: Sequence[int], path: Path, *, by: str) -> Path:
    """``module`` as ONNX, ``by`` our exporter or torch's old or new one, with a free batch or one of 1."""
    samples = torch.zeros((2 if "1" not in by else 1, *shape))
    module = module.eval()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            if by == "own":
                export_onnx(module, (samples,), path, input_names=["input"], output_names=["output"])
            elif by.startswith("old"):
                axes = {"dynamic_axes": {"input": {0: "n"}}} if by == "old" else {}
                torch.onnx.export(module, (samples,), path, dynamo=False, input_names=["input"], **axes)
            else:
                sizes = {"dynamic_shapes": ({0: torch.export.Dim("n")},)} if by == "new" else {}
                torch.onnx.export(module, (samples,), path, dynamo=True, external_data=False, verbose=False, **sizes)
        finally:
            logging.disable(level)
    return path


def small_networks() -> dict[str, onnx.ModelProto]:
    """Networks of a few nodes that together have most kinds of operators; all take samples of known sizes."""
    random = np.random.default_rng(0)

    def weights(*shape: int) -> Any:
        return random.standard_normal(shape) / 3

    convolution = model(
        [
            node("Conv", "x", "w", "b", out="c", pads=[1, 1, 1, 1], strides=[2, 2], kernel_shape=[3, 3]),
            node("BatchNormalization", "c", "s", "o", "m", "v", out="n"),
            node("Relu", "n", out="r"),
            node("MaxPool", "r", out="p", kernel_shape=[2, 2], strides=[1, 1]),
            node("ConvTranspose", "p", "u", out="t", strides=[2, 2]),
            node("Concat", "t", "t", out="k", axis=1),
            node("GlobalAveragePool", "k", out="g"),
            node("Flatten", "g", out="f", axis=1),
            node("Gemm", "f", "h", out="output", transB=1, alpha=0.5),
        ],
        ("n", 2, 6, 6),
        {
            "w": weights(4, 2, 3, 3), "b": weights(4), "s": weights(4), "o": weights(4), "m": weights(4),
            "v": np.abs(weights(4)) + 0.5, "u": weights(4, 3, 2, 2), "h": weights(5, 6),
        },
    )  # fmt: skip
    reshaped = model(
        [
            node("Shape", "x", out="sizes"),
            node("Gather", "sizes", "zero", out="batch", axis=0),
            node("Unsqueeze", "batch", "zero", out="batches"),
            node("Concat", "batches", "rest", out="wanted", axis=0),
            node("Reshape", "x", "wanted", out="a"),
            node("Transpose", "a", out="b", perm=[0, 2, 1]),
            node("MatMul", "b", "w", out="c"),
            node("Softmax", "c", out="d", axis=-1),
            node("Slice", "d", "zero_list", "two_list", "one_list", out="e"),
            node("ReduceMean", "e", "two_list", out="f", keepdims=0),
            node("Clip", "f", "low", "high", out="output"),
        ],
        ("n", 3, 2, 2),
        {
            "zero": np.array(0), "rest": np.array([3, 4]), "w": weights(3, 6), "zero_list": np.array([0]),
            "two_list": np.array([2]), "one_list": np.array([1]), "low": np.float32(-1), "high": np.float32(1),
        },
    )  # fmt: skip
    resized = model(
        [
            node("Resize", "x", "", "scales", out="a", mode="nearest"),
            node("Pad", "a", "pads", out="b", mode="constant"),
            node("InstanceNormalization", "b", "s", "o", out="c"),
            node("Split", "c", out="d"),
            node("Sigmoid", "d", out="e"),
            node("DepthToSpace", "e", out="output", blocksize=2),
        ],
        ("n", 4, 3, 3),
        {
            "scales": np.array([1, 1, 2, 2], np.float32), "pads": np.array([0, 0, 1, 1, 0, 0, 0, 0]),
            "s": weights(4), "o": weights(4),
        },
    )  # fmt: skip
    resized.graph.node[3].op_type = "Identity"
    fixed = model(
        [
            node("Reshape", "x", "sizes", out="a"),
            node("Gemm", "a", "w", out="b"),
            node("Tanh", "b", out="c"),
            node("Add", "c", "o", out="output"),
        ],
        (1, 2, 3),
        {"sizes": np.array([1, 6]), "w": weights(6, 4), "o": weights(1, 4)},
    )
    return {"convolution": convolution, "reshaped": reshaped, "resized": resized, "fixed": fixed}
