"""The wire inside a shard: gathering, quantizing, de-quantizing and joining as standard ONNX operators.

Whoever runs a shard moves bytes and nothing else. On a UInt8 wire each slot has its own range, taken over calibration
samples and widened to hold zero exactly; the maps that stay on a worker are not quantized.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgefolio_pruner.split.exchanges.points import ExchangePoint
from edgefolio_pruner.split.shards.writing import RankGraph

__all__ = ["SlotRanges", "Traffic", "add_wire", "received_name", "sent_name", "slots_between"]

_LEVELS = 255


@dataclass(frozen=True, eq=False)
class SlotRanges:
    """The least and the largest value of each slot of an exchange, or of each place along another ``axis`` of its map.

    Rows travel whole, and have a range for each channel.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    axis: int | None = None

    def of(self, slots: NDArray[np.int64], axis: int) -> tuple[NDArray[np.float32], NDArray[np.uint8], int]:
        """Step, level of zero and their axis for these slots along the axis of the exchange."""
        if self.axis is None:
            return self.scale()[slots], self.zero_point()[slots], axis
        return self.scale(), self.zero_point(), self.axis

    def scale(self) -> NDArray[np.float32]:
        """The step of each slot; a slot that never changes gets any."""
        spread = np.maximum(self.high, 0) - np.minimum(self.low, 0)
        return np.where(spread > 0, spread / _LEVELS, 1.0).astype(np.float32)

    def zero_point(self) -> NDArray[np.uint8]:
        """The level that stands for zero."""
        levels = np.rint(-np.minimum(self.low, 0) / self.scale())
        found: NDArray[np.uint8] = np.clip(levels, 0, _LEVELS).astype(np.uint8)
        return found


class Traffic(Protocol):
    """What each worker has before and behind each exchange: channels of an ownership, or rows."""

    @property
    def workers(self) -> int:
        """Number of workers."""

    def owners(self, point: ExchangePoint) -> NDArray[np.int64]:
        """The worker that computes each slot; -1 where all do."""

    def has(self, point: ExchangePoint, worker: int) -> NDArray[np.bool_]:
        """Which slots the worker has in front of the exchange."""

    def keeps(self, point: ExchangePoint, worker: int) -> NDArray[np.bool_]:
        """Which slots the worker has behind the exchange."""


def sent_name(point: ExchangePoint, receiver: int) -> str:
    """The output of the sender's segment."""
    return f"{point.name}_to_{receiver}"


def received_name(point: ExchangePoint, sender: int) -> str:
    """The input of the receiver's segment."""
    return f"{point.name}_from_{sender}"


def slots_between(traffic: Traffic, point: ExchangePoint, sender: int, receiver: int) -> NDArray[np.int64]:
    """The slots that one worker sends another."""
    wants = traffic.keeps(point, receiver) & ~traffic.has(point, receiver)
    sends = traffic.owners(point) == sender
    return np.flatnonzero(sends & wants).astype(np.int64)


def add_wire(
    graph: RankGraph, traffic: Traffic, worker: int, *, ranges: Mapping[str, SlotRanges] | None
) -> onnx.ModelProto:
    """The worker's graph with packed transfers; ``ranges`` by exchange for a UInt8 wire, None for Float32."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    writer = _Writer(model)
    replaced = {joint.own for joint in graph.joints} | {joint.joined for joint in graph.joints}
    outputs = [value for value in model.graph.output if value.name not in replaced]
    inputs = [value for value in model.graph.input if value.name not in replaced]
    shapes = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    sent: list[onnx.ValueInfoProto] = []
    received: list[onnx.ValueInfoProto] = []
    for joint in graph.joints:
        point = joint.point
        held = np.flatnonzero(traffic.has(point, worker))
        limits = None if ranges is None else ranges[point.name]
        peers = [rank for rank in range(traffic.workers) if rank != worker]
        for peer in peers:
            slots = slots_between(traffic, point, worker, peer)
            if len(slots):
                assert joint.own is not None
                name = sent_name(point, peer)
                places = np.searchsorted(held, slots)
                kind = writer.pack(joint.own, name, places, len(held), point.axis, slots, limits)
                sent.append(_like(shapes[joint.own], name, point, len(slots), kind))
        if joint.joined is None:
            continue
        parts, order = ([joint.own] if joint.own is not None else []), [held] if joint.own is not None else []
        for peer in peers:
            slots = slots_between(traffic, point, peer, worker)
            if len(slots):
                name = received_name(point, peer)
                parts.append(writer.unpack(name, point.axis, slots, limits))
                order.append(slots)
                kind = int(TensorProto.FLOAT if limits is None else TensorProto.UINT8)
                received.append(_like(shapes[joint.joined], name, point, len(slots), kind))
        writer.join(parts, joint.joined, np.concatenate(order), point.axis)
    del model.graph.input[:]
    model.graph.input.extend([*inputs, *received])
    del model.graph.output[:]
    model.graph.output.extend([*sent, *outputs])
    writer.finish()
    return model


def _like(value: onnx.ValueInfoProto, name: str, point: ExchangePoint, slots: int, kind: int) -> onnx.ValueInfoProto:
    """A tensor of the shape of ``value`` with ``slots`` along the axis of the exchange."""
    dimensions: list[Any] = [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
    if len(point.units) > 1:
        dimensions[point.axis] = slots
    return helper.make_tensor_value_info(name, kind, dimensions)


class _Writer:
    """Nodes that are added in front of and behind those of a graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = []

    def hold(self, name: str, array: NDArray[Any]) -> str:
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _quantizer(self, name: str, limits: tuple[NDArray[np.float32], NDArray[np.uint8], int]) -> tuple[str, str, int]:
        scale, zero, axis = limits
        return self.hold(f"{name}_scale", scale), self.hold(f"{name}_zero", zero), axis

    def pack(
        self,
        source: str,
        name: str,
        places: NDArray[np.int64],
        held: int,
        axis: int,
        slots: NDArray[np.int64],
        limits: SlotRanges | None,
    ) -> int:
        """Select, and quantize; the type of the result."""
        if len(places) < held:
            index = self.hold(f"{name}_slots", places.astype(np.int64))
            selected = name if limits is None else f"{name}_selected"
            self.nodes.append(helper.make_node("Gather", [source, index], [selected], axis=axis))
            source = selected
        elif limits is None:
            self.nodes.append(helper.make_node("Identity", [source], [name]))
        if limits is None:
            return int(TensorProto.FLOAT)
        scale, zero, along = self._quantizer(name, limits.of(slots, axis))
        self.nodes.append(helper.make_node("QuantizeLinear", [source, scale, zero], [name], axis=along))
        return int(TensorProto.UINT8)

    def unpack(self, name: str, axis: int, slots: NDArray[np.int64], limits: SlotRanges | None) -> str:
        """De-quantize what was received."""
        if limits is None:
            return name
        scale, zero, along = self._quantizer(name, limits.of(slots, axis))
        self.nodes.append(helper.make_node("DequantizeLinear", [name, scale, zero], [f"{name}_numbers"], axis=along))
        return f"{name}_numbers"

    def join(self, parts: list[str], name: str, order: NDArray[np.int64], axis: int) -> None:
        """Own and received slots in their order."""
        place = np.argsort(order, kind="stable")
        in_order = bool((place == np.arange(len(place))).all())
        if len(parts) == 1:
            self.nodes.append(helper.make_node("Identity", parts, [name]))
            return
        together = name if in_order else f"{name}_unordered"
        self.nodes.append(helper.make_node("Concat", parts, [together], axis=axis))
        if not in_order:
            index = self.hold(f"{name}_order", place.astype(np.int64))
            self.nodes.append(helper.make_node("Gather", [together, index], [name], axis=axis))

    def finish(self) -> None:
        """All nodes in an order in which each follows what it reads."""
        waiting = [*self.model.graph.node, *self.nodes]
        known = {value.name for value in self.model.graph.input}
        known |= {tensor.name for tensor in self.model.graph.initializer} | {""}
        ordered: list[onnx.NodeProto] = []
        while waiting:
            ready = [node for node in waiting if known.issuperset(node.input)]
            assert ready, [node.name for node in waiting]
            for node in ready:
                known.update(node.output)
            ordered += ready
            waiting = [node for node in waiting if not any(node is each for each in ready)]
        copied = []
        for node in ordered:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copied.append(copy)
        del self.model.graph.node[:]
        self.model.graph.node.extend(copied)
