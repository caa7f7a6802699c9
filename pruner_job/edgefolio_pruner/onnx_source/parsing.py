"""Parser of ONNX files from strangers: bounded and checked bytes to a graph of float32, or a refusal."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgefolio.errors import IntegrityError, UserError
from edgefolio.untrusted.model_file import check_onnx
from edgefolio_pruner.onnx_source.graph import Array, Graph, Input, Node

__all__ = ["parse"]

_FLOAT = onnx.TensorProto.FLOAT
#: Types of constants that are read; the others are floating point numbers of another width, texts and the like.
_READ = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.INT64,
        onnx.TensorProto.INT32,
        onnx.TensorProto.BOOL,
        onnx.TensorProto.UINT8,
        onnx.TensorProto.INT8,
    }
)
_NARROW = frozenset({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})
#: What the check of untrusted files refuses that its owner can mend: a part of the message, and the remedy.
_REMEDIES = {
    "outside the file": "Write it as one file: torch.onnx.export(..., external_data=False), or "
    "onnx.save(onnx.load(path), other_path).",
    "defines functions": "Inline them: onnx.inliner.inline_local_functions(onnx.load(path)).",
    "calls a function": "Inline them: onnx.inliner.inline_local_functions(onnx.load(path)).",
    "graphs within": "Export the network without loops and branches, for one fixed setting.",
    "graph within": "Export the network without loops and branches, for one fixed setting.",
    "outside the standard domain": "Export it with standard operators only (no contrib or custom operators).",
}


def parse(content: bytes, *, field: str, name: str) -> Graph:
    """The graph that ``content`` holds. Raises :class:`UserError` for ``field`` unless it is one of float32 values."""
    try:
        summary = check_onnx(io.BytesIO(content), size=len(content), location=name)
    except IntegrityError as error:
        remedy = next((told for part, told in _REMEDIES.items() if part in error.problem), None)
        raise UserError(
            error.problem,
            field=field,
            value=name,
            remedy=remedy or "Give an ONNX file of the standard operators, whole and in one piece.",
        ) from error
    try:
        model = onnx.load_model_from_string(content)
        without_shape = _with_shapes(model)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker raise their own kinds
        raise UserError(
            f"this is no valid ONNX model ({' '.join(str(error).split())[:300].rstrip('.')}).",
            field=field,
            value=name,
            remedy="Export it again.",
        ) from error
    try:
        return _graph(model.graph, opset=summary.opset, without_shape=without_shape)
    except UserError as error:
        raise UserError(error.problem, field=field, value=name, remedy=error.remedy) from error


def _with_shapes(model: Any) -> frozenset[str]:
    """Let every input and output say something of its shape, as the checker asks; the names of those that did not."""
    without = [
        value
        for value in (*model.graph.input, *model.graph.output)
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")
    ]
    for value in without:
        value.type.tensor_type.shape.SetInParent()
    return frozenset(value.name for value in without)


def _graph(graph: Any, *, opset: int, without_shape: frozenset[str]) -> Graph:
    constants = {tensor.name: _array(tensor, f"the constant {tensor.name!r}") for tensor in graph.initializer}
    nodes = []
    for number, node in enumerate(graph.node):
        attributes = {attribute.name: _attribute(attribute) for attribute in node.attribute}
        if node.op_type == "Constant":
            constants[node.output[0]] = _constant(attributes, node.name)
            continue
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv"):
            raise _refused(
                f"it is quantized (operator {node.op_type}, node {node.name!r}).",
                "Give the model as it was before quantization; methods.quantization makes int8 variants of it.",
            )
        nodes.append(
            Node(
                operator=node.op_type,
                name=node.name or f"{node.op_type}_{number}",
                inputs=tuple(node.input),
                outputs=tuple(node.output),
                attributes=attributes,
                opset=opset,
            )
        )
    outputs = tuple(value.name for value in graph.output)
    return Graph(nodes=tuple(nodes), constants=constants, input=_input(graph, without_shape), outputs=outputs)


def _input(graph: Any, without_shape: frozenset[str]) -> Input:
    held = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in held]
    if len(inputs) != 1:
        shown = ", ".join(value.name for value in inputs[:8])
        raise _refused(
            f"it takes {len(inputs)} inputs ({shown}), and a network of a portfolio takes one.",
            "Export a network that takes one tensor [N, ...], with the others as constants or as parts of it.",
        )
    given = inputs[0].type.tensor_type
    if given.elem_type in _NARROW:
        raise _half(f"its input {inputs[0].name!r}")
    if given.elem_type != _FLOAT:
        kind = onnx.TensorProto.DataType.Name(given.elem_type) if given.elem_type else "no tensor"
        raise _refused(
            f"its input {inputs[0].name!r} is {kind}, not FLOAT.",
            "Export the part behind the embedding or the conversion, which takes float32.",
        )
    if inputs[0].name in without_shape:
        return Input(name=inputs[0].name, sizes=None)
    sizes = tuple(one.dim_value if one.dim_value > 0 else None for one in given.shape.dim)
    if len(sizes) < 2:
        raise _refused(
            f"its input {inputs[0].name!r} has {len(sizes)} axes.", "Export it with a batch axis and at least another."
        )
    if sizes[0] not in (None, 1):
        raise _refused(
            f"its batch is fixed at {sizes[0]}.", "Export it with a free batch (or with a batch of 1, which is freed)."
        )
    return Input(name=inputs[0].name, sizes=sizes)


def _constant(attributes: dict[str, Any], name: str) -> Array:
    for key, kind in (("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64)):
        if key in attributes:
            return np.asarray(attributes[key], dtype=kind)
    if "value_ints" in attributes:
        return np.asarray(attributes["value_ints"], dtype=np.int64)
    value = attributes.get("value")
    if isinstance(value, np.ndarray):
        return value
    raise _refused(
        f"its constant {name!r} is a text or sparse.", "Export it with constants that are tensors of numbers."
    )


def _attribute(attribute: Any) -> Any:
    if attribute.type == onnx.AttributeProto.TENSOR:
        return _array(attribute.t, f"the attribute {attribute.name!r}")
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value


def _array(tensor: Any, what: str) -> Array:
    if tensor.data_type in _NARROW:
        raise _half(what)
    if tensor.data_type not in _READ:
        raise _refused(
            f"{what} is {onnx.TensorProto.DataType.Name(tensor.data_type)}.",
            "Export it in float32, without quantization.",
        )
    array: Array = numpy_helper.to_array(tensor)
    if array.dtype == np.float32 and not bool(np.isfinite(array).all()) and array.ndim >= 2 and np.isnan(array).any():
        raise _refused(f"{what} holds values that are not a number (NaN).", "Train or export the network again.")
    return array


def _half(what: str) -> UserError:
    return _refused(
        f"{what} is of 16 bits (float16 or bfloat16).",
        "Export the network in float32 (model.float()); variants are made in float32 and int8.",
    )


def _refused(problem: str, remedy: str) -> UserError:
    return UserError(problem, field="model", remedy=remedy)
