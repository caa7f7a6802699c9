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
