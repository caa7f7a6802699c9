"""Fields of an ONNX file as protocol buffers: those that ONNX 1.23 defines, by message and number, and the refused."""

from __future__ import annotations

from collections.abc import Mapping

#: Wire types: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes. Repeated numbers come packed or one by one.
_INTEGER, _INTEGERS, BYTES, _FLOAT, _FLOATS, _DOUBLES = (
    frozenset(wires) for wires in ({0}, {0, 2}, {2}, {5}, {5, 2}, {1, 2})
)
_Field = frozenset[int] | str
#: A name is the message inside; one that begins with an exclamation mark is why the field is refused.
OUTSIDE = "!its weights lie outside the file"
_SPARSE = "!it holds a sparse tensor"
_GRAPH_INSIDE = "!it holds a graph within the graph"
_DEVICES = "!it is meant for several devices"
MESSAGES: Mapping[str, Mapping[int, _Field]] = {
    "Model": {
        **dict.fromkeys((1, 5), _INTEGER),
        **dict.fromkeys((2, 3, 4, 6), BYTES),
        7: "Graph",
        8: "OperatorSet",
        14: "ModelMetadata",
        20: "!it holds training information",
        25: "!it defines functions",
        26: _DEVICES,
    },
    "Graph": {
        1: "Node",
        **dict.fromkeys((2, 10), BYTES),
        5: "Tensor",
        **dict.fromkeys((11, 12, 13), "ValueInfo"),
        14: "Annotation",
        15: _SPARSE,
        16: "Entry",
    },
    "Node": {
        **dict.fromkeys((1, 2, 3, 4, 6, 7, 8), BYTES),
        5: "Attribute",
        9: "Entry",
        10: _DEVICES,
    },
    "Attribute": {
        **dict.fromkeys((1, 4, 9, 13, 21), BYTES),
        2: _FLOAT,
        **dict.fromkeys((3, 20), _INTEGER),
        **dict.fromkeys((5, 10), "Tensor"),
        **dict.fromkeys((6, 11), _GRAPH_INSIDE),
        7: _FLOATS,
        8: _INTEGERS,
        **dict.fromkeys((14, 15), "Type"),
        **dict.fromkeys((22, 23), _SPARSE),
    },
    "Tensor": {
        **dict.fromkeys((1, 5, 7, 11), _INTEGERS),
        **dict.fromkeys((2, 14), _INTEGER),
        3: "!it holds a tensor in segments",
        4: _FLOATS,
        **dict.fromkeys((6, 8, 9, 12), BYTES),
        10: _DOUBLES,
        13: OUTSIDE,
        16: "Entry",
    },
    "ValueInfo": {1: BYTES, 2: "Type", 3: BYTES, 4: "Entry"},
    "Annotation": {1: BYTES, 2: "Entry"},
    "Entry": {1: BYTES, 2: BYTES},
    "ModelMetadata": {1: BYTES, 2: BYTES},
    "OperatorSet": {1: BYTES, 2: _INTEGER},
    "Type": {
        1: "TensorType",
        **dict.fromkeys((4, 9), "ElementType"),
        5: "MapType",
        6: BYTES,
        7: "!it needs an opaque type",
        8: "TensorType",
    },
    "TensorType": {1: _INTEGER, 2: "Shape"},
    "ElementType": {1: "Type"},
    "MapType": {1: _INTEGER, 2: "Type"},
    "Shape": {1: "Dimension"},
    "Dimension": {1: _INTEGER, 2: BYTES, 3: BYTES},
}
#: Fields whose value is looked at.
NAMES = frozenset({("Node", 4), ("Node", 7), ("OperatorSet", 1), ("ModelMetadata", 1)})
#: Fields that only functions need; some exporters write them empty.
OF_FUNCTIONS = frozenset({("Node", 8), ("Attribute", 21)})
