"""Shards: what each worker loads, written by the same rewriting that makes pruned variants.

Of the network with exchanges a worker keeps its own channels and what it receives. The result is one ONNX graph with an
output for each map that other workers need and an input for each map that comes back joined; :mod:`.wire` turns these
into packed transfers, and :mod:`.segments` cuts the graph at them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import fx

from edgefolio_pruner.export import export_onnx
from edgefolio_pruner.spatial.graph.macs import count_macs, count_parameters
from edgefolio_pruner.spatial.graph.nodes import argument
from edgefolio_pruner.spatial.graph.shapes import LARGEST_STATIC_SIZE
from edgefolio_pruner.spatial.graph_writer import Writer
from edgefolio_pruner.spatial.passes.removal_plan import plan_of
from edgefolio_pruner.spatial.passes.weights import Matrices
from edgefolio_pruner.spatial.rewrite import rewrite
from edgefolio_pruner.spatial.roles import Exchange
from edgefolio_pruner.split.channels.ownership import Ownership
from edgefolio_pruner.split.exchanges.points import Divided, ExchangePoint

__all__ = [
    "INPUT",
    "Joint",
    "RankGraph",
    "RankModule",
    "exported",
    "output_names",
    "rank_module",
    "sums",
    "traffic_of",
]

aten = torch.ops.aten
INPUT = "input"


@dataclass(frozen=True, eq=False)
class Joint:
    """One exchange as one worker sees it: ``own`` is its output, ``joined`` its input with what it keeps behind.

    ``own`` is None if the worker owns nothing of it, ``joined`` if it keeps nothing.
    """

    point: ExchangePoint
    own: str | None
    joined: str | None


@dataclass(frozen=True, eq=False)
class RankGraph:
    """The ONNX graph of one worker before it is cut, and its exchanges in order."""

    model: onnx.ModelProto
    joints: tuple[Joint, ...]
    parameters: int
    macs: int


def traffic_of(ownership: Ownership, points: tuple[ExchangePoint, ...]) -> frozenset[str]:
    """The exchanges at which anything travels."""
    return frozenset(
        point.name
        for point in points
        if point.kind != "take"
        and any(
            (ownership.keeps(point, worker) & ~ownership.has(point, worker)).any()
            for worker in range(ownership.workers)
        )
    )


def output_names(divided: Divided) -> tuple[str, ...]:
    """The names of the network's outputs in ONNX."""
    count = len(_results(divided))
    return ("output",) if count == 1 else tuple(f"output_{index}" for index in range(count))


def sums(divided: Divided) -> tuple[bool, ...]:
    """Of each output, whether the workers' values are parts of a sum."""
    return tuple(node in divided.partial for node in _results(divided))


def _results(divided: Divided) -> list[fx.Node]:
    return list(next(iter(reversed(divided.structure.program.module.graph.nodes))).all_input_nodes)


@dataclass(frozen=True, eq=False)
class RankModule:
    """One worker's part as a module. Its inputs, of these ``shapes`` without the batch: the sample, then what comes.

    Its outputs are those that others need, then those of the network.
    """

    module: fx.GraphModule
    joints: tuple[Joint, ...]
    shapes: tuple[tuple[int, ...], ...]


def rank_module(divided: Divided, ownership: Ownership, worker: int, *, matrices: Matrices) -> RankModule:
    """The part of one worker, before it is written as ONNX."""
    writing = _Writing(divided, ownership, worker, traffic_of(ownership, divided.points))
    plan = plan_of(divided.structure, ownership.channels(divided, worker), matrices=matrices)
    with torch.no_grad():
        module = rewrite(plan, exchange=writing.exchange, sent=lambda: writing.own)
    if worker:
        _without_bias(module, sums(divided))
    shapes = (*divided.structure.program.captured.input_shapes, *writing.shapes)
    return RankModule(module, tuple(writing.joints), shapes)


def exported(
    module: fx.GraphModule, joints: Sequence[Joint], shapes: Sequence[tuple[int, ...]], outputs: Sequence[str]
) -> RankGraph:
    """A worker's module as ONNX; ``shapes`` are those of its inputs without the batch: the sample, then what comes."""
    names_in = [INPUT, *[joint.joined for joint in joints if joint.joined is not None]]
    names_out = [*[joint.own for joint in joints if joint.own is not None], *outputs]
    with tempfile.TemporaryDirectory(prefix="edgefolio-split-") as folder:
        path = Path(folder) / "shard.onnx"
        examples = tuple(torch.zeros(2, *shape) for shape in shapes)
        export_onnx(module, examples, path, input_names=names_in, output_names=names_out)
        model = onnx.load(path)
    return RankGraph(model, tuple(joints), count_parameters(module), count_macs(module, tuple(shapes)))


def _without_bias(module: fx.GraphModule, parts: tuple[bool, ...]) -> None:
    """The offset of a sum is added once, by the first worker."""
    output = next(iter(reversed(module.graph.nodes)))
    results = output.args[0]
    assert isinstance(results, tuple)
    for node, is_part in zip(results[-len(parts) :], parts, strict=True):
        if is_part:
            assert isinstance(node, fx.Node)
            weight = argument(node, "weight")
            assert isinstance(weight, fx.Node), f"{node} is no layer: the worker owns none of its inputs"
            node.args = tuple(None if place == 2 else value for place, value in enumerate(node.args))
            node.kwargs = {name: value for name, value in node.kwargs.items() if name != "bias"}
    module.graph.eliminate_dead_code()
    module.recompile()


@dataclass
class _Writing:
    """Exchanges of one worker while its graph is written."""

    divided: Divided
    ownership: Ownership
    worker: int
    traffic: frozenset[str]
    own: list[fx.Node] = field(default_factory=list)
    joints: list[Joint] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def exchange(self, writer: Writer, node: fx.Node, role: Exchange) -> fx.Node | None:
        """The value behind an exchange."""
        point = next(point for point in self.divided.points if point.node is node)
        has, keeps = self.ownership.has(point, self.worker), self.ownership.keeps(point, self.worker)
        source = None if writer.plan.is_absent(role.source) else writer.new(role.source)
        if point.kind == "take":
            return self._taken(writer, point, source, has)
        if point.name not in self.traffic:
            return source
        if source is not None:
            self.own.append(source)
        joined = None
        if keeps.any():
            joined = writer.graph.placeholder(f"{point.name}_joined")
            self.shapes.append(self._shape(point, int(keeps.sum())))
        self.joints.append(
            Joint(
                point,
                f"{point.name}_own" if source is not None else None,
                f"{point.name}_joined" if joined is not None else None,
            )
        )
        return joined

    def _taken(
        self, writer: Writer, point: ExchangePoint, source: fx.Node | None, has: NDArray[np.bool_]
    ) -> fx.Node | None:
        """The worker's own channels of a value that everybody has."""
        if source is None or not has.any():
            return None
        if has.all():
            return source
        index = writer.hold(f"channel_orders.{point.name}", torch.from_numpy(np.flatnonzero(has)))
        return writer.call(aten.index_select.default, source, point.axis, index)

    def _shape(self, point: ExchangePoint, slots: int) -> tuple[int, ...]:
        shape = list(self.divided.structure.program.shapes[point.source][1:])
        if len(point.units) > 1:
            shape[point.axis - 1] = slots
        assert all(size < LARGEST_STATIC_SIZE for size in shape), shape
        return tuple(shape)
