"""Whatever a file says of sizes, attributes and weights, it is proven against ONNX Runtime, or refused in one way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto
from onnx_graphs import small_networks

from edgefolio.errors import UserError
from edgefolio_pruner.onnx_source.model_file import read_model_file

NETWORKS = {name: found.SerializeToString() for name, found in small_networks().items()}
OPERATORS = sorted({node.op_type for raw in NETWORKS.values() for node in onnx.ModelProto.FromString(raw).graph.node})
INTEGERS = st.one_of(st.integers(-3, 9), st.sampled_from([2**31 - 1, -(2**31), 2**40, 2**62, -(2**62)]))
FLOATS = st.sampled_from([0.0, -1.0, 1e-30, 1e30, float("inf"), float("nan")])
#: Of a file: where it is changed, and how.
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(
            ["attribute", "operator", "input", "drop", "twice", "dims", "values", "type", "shape", "opset"]
        ),
        st.integers(0, 40),
        st.integers(0, 40),
        INTEGERS,
        FLOATS,
    ),
    min_size=1,
    max_size=3,
)


def understood(raw: bytes, folder: Path) -> bool:
    path = folder / "model.onnx"
    path.write_bytes(raw)
    refusal = None
    try:
        found = read_model_file(path, field="--model")
        if found.sample_shape is not None:
            found.proven(found.sample_shape).build()
    except UserError as error:
        refusal = error
    if refusal is None:
        return found.sample_shape is not None
    assert refusal.field == "--model"
    assert refusal.remedy
    assert str(refusal).replace("\n", "").isprintable()
    return False


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_networks_themselves_are_understood(name: str, tmp_path: Path) -> None:
    assert understood(NETWORKS[name], tmp_path)


def changed(found: onnx.ModelProto, change: tuple[str, int, int, int, float]) -> None:
    """Apply one change, at places taken modulo what there is."""
    kind, first, second, number, value = change
    graph = found.graph
    nodes, tensors = graph.node, graph.initializer
    node = nodes[first % len(nodes)] if nodes else None
    tensor = tensors[first % len(tensors)] if tensors else None
    if kind == "attribute" and node is not None and node.attribute:
        _set(node.attribute[second % len(node.attribute)], number, value)
    elif kind == "operator" and node is not None:
        node.op_type = OPERATORS[second % len(OPERATORS)]
    elif kind == "input" and node is not None and node.input:
        names = ["x", "", "absent", *(given.name for given in tensors), *(name for one in nodes for name in one.output)]
        node.input[second % len(node.input)] = names[number % len(names)]
    elif kind == "drop" and nodes:
        del nodes[first % len(nodes)]
    elif kind == "twice" and node is not None:
        nodes.append(node)
    elif kind == "dims" and tensor is not None and tensor.dims:
        tensor.dims[second % len(tensor.dims)] = number
    elif kind == "values" and tensor is not None and tensor.raw_data:
        place = second % len(tensor.raw_data)
        tensor.raw_data = tensor.raw_data[:place] + bytes([number % 256]) + tensor.raw_data[place + 1 :]
    elif kind == "type" and tensor is not None:
        tensor.data_type = TensorProto.DataType.values()[second % len(TensorProto.DataType.values())]
    elif kind == "shape":
        sizes = graph.input[0].type.tensor_type.shape.dim
        sizes[second % len(sizes)].dim_value = number
    elif kind == "opset":
        found.opset_import[0].version = 5 + second


def _set(attribute: Any, number: int, value: float) -> None:
    if attribute.type == AttributeProto.INT:
        attribute.i = number
    elif attribute.type == AttributeProto.INTS and attribute.ints:
        attribute.ints[number % len(attribute.ints)] = number
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = value
    elif attribute.type == AttributeProto.STRING:
        attribute.s = b"\xff" if number < 0 else b"linear"


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(NETWORKS)), changes=CHANGES)
def test_a_changed_file_is_proven_or_refused(
    tmp_path: Path, name: str, changes: list[tuple[str, int, int, int, float]]
) -> None:
    found = onnx.ModelProto.FromString(NETWORKS[name])
    for change in changes:
        changed(found, change)
    understood(found.SerializeToString(), tmp_path)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(NETWORKS)), place=st.floats(0, 1), piece=st.binary(max_size=8), cut=st.integers(0, 8)
)
def test_changed_bytes_are_proven_or_refused(tmp_path: Path, name: str, place: float, piece: bytes, cut: int) -> None:
    raw = NETWORKS[name]
    start = int(place * len(raw))
    understood(raw[:start] + piece + raw[start + cut :], tmp_path)
