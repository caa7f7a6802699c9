"""Cutting of a worker's graph into segments: what can be computed before the exchanges of each depth arrive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import helper

from edgefolio_pruner.export.onnx_file import IR_VERSION

__all__ = ["CutSegment", "cut"]


@dataclass(frozen=True, eq=False)
class CutSegment:
    """One segment: it needs the exchanges up to ``depth``."""

    depth: int
    content: bytes


def cut(model: onnx.ModelProto, *, depth_of: Mapping[str, int]) -> tuple[CutSegment, ...]:
    """The segments of a worker in order; ``depth_of`` gives the depth of each received tensor.

    A node belongs to the first segment that has all it needs. Values of earlier segments that later ones need are
    outputs of the one and inputs of the other; equal graphs give equal bytes.
    """
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    level = {value.name: depth_of.get(value.name, 0) for value in model.graph.input}
    made_at: dict[str, int] = {}
    nodes: dict[int, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        at = max((level[name] for name in node.input if name and name not in held), default=0)
        nodes.setdefault(at, []).append(node)
        for name in node.output:
            level[name] = made_at[name] = at
    described = _described(model)
    results = {value.name for value in model.graph.output}
    segments = []
    for depth in sorted(nodes):
        needed = dict.fromkeys(name for node in nodes[depth] for name in node.input if name)
        given = [name for name in needed if name not in held and made_at.get(name, -1) != depth]
        later = {name for at, others in nodes.items() if at > depth for node in others for name in node.input}
        made = [name for node in nodes[depth] for name in node.output if name in later or name in results]
        graph = helper.make_graph(
            nodes[depth],
            "model",
            [described[name] for name in given],
            [described[name] for name in made],
            [held[name] for name in needed if name in held],
        )
        part = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=IR_VERSION)
        part.producer_name = "edgefolio"
        content = part.SerializeToString(deterministic=True)
        onnx.checker.check_model(content, full_check=True)
        segments.append(CutSegment(depth, bytes(content)))
    return tuple(segments)


def _described(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    graph = inferred.graph
    return {value.name: value for value in (*graph.value_info, *model.graph.input, *model.graph.output)}
