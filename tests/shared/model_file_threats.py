"""Model files that must not reach a runtime, each with what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    helper,
    numpy_helper,
)

#: Bytes of a file outside, as weights; where the runtime looks is relative to the model.
LOCATIONS = ("/etc/passwd", "../../../server.json", "sub/../../x", "beside", "file:///etc/passwd", "*/_ORT_MEM_ADDR_/*")


def outside(location: str = "../../../server.json", *, name: str = "leak") -> TensorProto:
    """A tensor whose values lie in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.UINT8, dims=[64], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "64")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def plain(
    nodes: Iterable[NodeProto] = (), tensors: Iterable[TensorProto] = (), *, opset: int = 17, domain: str = ""
) -> ModelProto:
    """A model [batch, 4] -> [batch, 4] that is as it should be, with ``nodes`` and ``tensors`` besides."""
    weights = numpy_helper.from_array(np.eye(4, dtype=np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["image", "weights"], ["logits"]), *nodes],
        "plain",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [weights, *tensors],
    )
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def _graph(*nodes: NodeProto) -> GraphProto:
    inner = helper.make_node("Identity", ["weights"], ["inner"])
    return helper.make_graph(
        [inner, *nodes], "inner", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [4, 4])]
    )


def _sparse(values: TensorProto) -> SparseTensorProto:
    return SparseTensorProto(values=values, indices=numpy_helper.from_array(np.arange(64)), dims=[64])


def _constant(**attribute: Any) -> NodeProto:
    return helper.make_node("Constant", [], ["leak"], **attribute)


def _with(model: ModelProto, **fields: Any) -> ModelProto:
    for name, value in fields.items():
        part = getattr(model, name)
        if isinstance(value, ModelProto | TensorProto | str | int):
            setattr(model, name, value)
        else:
            part.extend(value)
    return model


def _external_without_flag() -> TensorProto:
    tensor = outside()
    tensor.ClearField("data_location")
    return tensor


def _flag_alone() -> TensorProto:
    tensor = outside()
    del tensor.external_data[:]
    return tensor


def _function() -> ModelProto:
    model = plain([helper.make_node("Twice", ["logits"], ["twice"], domain="local")], domain="local")
    body = [helper.make_node("Add", ["x", "x"], ["y"]), _constant(value=outside())]
    model.functions.append(helper.make_function("local", "Twice", ["x"], ["y"], body, [helper.make_opsetid("", 17)]))
    return model


def _training() -> ModelProto:
    model = plain()
    model.training_info.add().algorithm.CopyFrom(_graph(_constant(value=outside())))
    return model


def _metadata(key: str, value: str) -> ModelProto:
    model = plain()
    model.metadata_props.add(key=key, value=value)
    return model


def _loop(operator: str) -> ModelProto:
    if operator == "If":
        node = helper.make_node("If", ["flag"], ["x"], then_branch=_graph(), else_branch=_graph())
    else:
        node = helper.make_node(operator, ["flag"], ["x"], body=_graph())
    return plain([node], [numpy_helper.from_array(np.array(True), "flag")])


def _nested() -> ModelProto:
    graph = _graph(_constant(value=outside()))
    for _ in range(15):
        graph = _graph(helper.make_node("If", ["flag"], ["x"], then_branch=graph, else_branch=_graph()))
    return plain([helper.make_node("Loop", ["flag"], ["x"], body=graph)])


def _twice_the_graph() -> bytes:
    other = ModelProto()
    other.graph.initializer.append(outside())
    return plain().SerializeToString() + other.SerializeToString()


def _attribute(**fields: Any) -> NodeProto:
    node = helper.make_node("Identity", ["logits"], ["again"])
    node.attribute.append(AttributeProto(name="extra", **fields))
    return node


def _wide_location() -> bytes:
    """``data_location`` as 2**32 + 1, which parsers of 32 bits take for 1, EXTERNAL."""
    tensor = TensorProto(name="leak", data_type=TensorProto.UINT8, dims=[64]).SerializeToString()
    tensor += bytes([14 << 3, 0x81, 0x80, 0x80, 0x80, 0x10])
    return _merged(b"\x2a" + _length(tensor) + tensor)


def _length(content: bytes) -> bytes:
    size, found = len(content), bytearray()
    while size > 0x7F:
        found.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*found, size])


def _merged(graph_field: bytes) -> bytes:
    """``plain()`` with one more field at the end of its graph."""
    model = plain()
    graph = model.graph.SerializeToString() + graph_field
    model.ClearField("graph")
    return model.SerializeToString() + b"\x3a" + _length(graph) + graph


def _raw(model: ModelProto | bytes) -> bytes:
    return model if isinstance(model, bytes) else model.SerializeToString()


def threats() -> dict[str, tuple[bytes, str]]:
    """Each file by what it tries, and words of its refusal."""
    whole = plain().SerializeToString()
    found: dict[str, tuple[ModelProto | bytes, str]] = {
        **{
            f"weights at {location}": (plain(tensors=[outside(location)]), "outside the file") for location in LOCATIONS
        },
        "weights outside, unflagged": (plain(tensors=[_external_without_flag()]), "outside the file"),
        "weights outside, nowhere": (plain(tensors=[_flag_alone()]), "outside the file"),
        "weights outside, wide flag": (_wide_location(), "outside the file"),
        "constant outside": (plain([_constant(value=outside())]), "outside the file"),
        "list of constants outside": (plain([_attribute(type=AttributeProto.TENSORS, tensors=[outside()])]), "outside"),
        "sparse constant": (plain([_constant(sparse_value=_sparse(outside()))]), "sparse"),
        "sparse list": (plain([_attribute(sparse_tensors=[_sparse(outside())])]), "sparse"),
        "sparse weights": (_with_sparse(), "sparse"),
        "second graph": (_twice_the_graph(), "more than 1"),
        "graphs in an attribute": (
            plain([_attribute(graphs=[_graph(_constant(value=outside()))])]),
            "within the graph",
        ),
        **{operator: (_loop(operator), "within the graph") for operator in ("If", "Loop", "Scan", "SequenceMap")},
        "Loop without a body": (plain([helper.make_node("Loop", ["n"], ["x"])]), "operator Loop"),
        "graphs 15 deep": (_nested(), "within the graph"),
        "function": (_function(), "functions|domain"),
        "function's attribute": (plain([_attribute(ref_attr_name="alpha", type=AttributeProto.INT)]), "function"),
        "overload": (plain([_with(helper.make_node("Identity", ["logits"], ["x"]), overload="other")]), "function"),
        "training": (_training(), "training"),
        "own domain": (plain([helper.make_node("Evil", ["logits"], ["x"], domain="evil")], domain="evil"), "domain"),
        "Microsoft's domain": (
            plain([helper.make_node("EPContext", [], ["x"], domain="com.microsoft", ep_cache_context="../../key")]),
            "domain",
        ),
        "domain with a NUL": (plain([helper.make_node("Add", ["logits"], ["x"], domain="\0com.microsoft")]), "domain"),
        "domain in the terminal": (
            plain([helper.make_node("Evil", ["x"], ["y"], domain="\x1b[2J\nsound")]),
            "x1b",
        ),
        "operator with a NUL": (plain([helper.make_node("Add\0", ["logits"], ["x"])]), "operator"),
        "settings of the runtime": (_metadata("ort_config", '{"session_options": {}}'), "settings"),
        "path of a library": (_metadata("session.custom_ops_library", "/tmp/evil.so"), "settings"),
        "old operator set": (plain(opset=6), "operator set 6"),
        "future operator set": (plain(opset=900), "operator set 900"),
        "old IR": (_with(plain(), ir_version=2), "IR version 2"),
        "no operator set": (_without(plain(), "opset_import"), "no ONNX model"),
        "no graph": (_without(plain(), "graph"), "no ONNX model"),
        "empty": (b"", "bytes"),
        "truncated": (whole[:-7], "truncated"),
        "bytes to spare": (whole + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "number"),
        "another field": (whole + b"\xea\x07\x03abc", "field 125"),
        "a group": (whole + b"\x3b\x3c", "wire type 3"),
        "an archive": (b"PK\x03\x04" + whole, "field|wire|truncated"),
        "a runtime's own format": (b"\x18\x00\x00\x00ORTM" + whole, "field|wire|truncated"),
        "many nodes": (plain(helper.make_node("Identity", ["logits"], [f"x{n}"]) for n in range(50_001)), "Node"),
        "many fields": (_merged(b"\x72\x00" * 500_001), "fields"),
    }
    return {name: (_raw(model), words) for name, (model, words) in found.items()}


def _with_sparse() -> ModelProto:
    model = plain()
    model.graph.sparse_initializer.append(_sparse(outside()))
    return model


def _without(model: ModelProto, field: str) -> ModelProto:
    model.ClearField(field)
    return model
