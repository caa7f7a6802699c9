"""Splits that can be served: a small convolutional net divided by channels over any number of workers.

Built with onnx's helpers alone, so that rooms without torch can serve them. Output 0 is the split's tag times a step,
plus something far smaller that depends on the input, as single variants of the tests have it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgefolio.records.split_plan import Certificate, SplitPlan
from edgefolio_split.probes import with_probes

CLASSES = 4
STEP = 1000.0
#: Maps are within this, so that a wire of bytes has one scale.
_WIRE_SCALE = 1 / 64


@dataclass(frozen=True, kw_only=True)
class ServedSplit:
    """A split with all of its files, by name."""

    plan: SplitPlan
    files: dict[str, bytes]

    @property
    def raw(self) -> bytes:
        return self.plan.to_bytes()


@dataclass(frozen=True, kw_only=True)
class _Net:
    tag: int
    workers: int
    width: int
    layers: int
    size: int
    wire: str

    @property
    def channels(self) -> int:
        return self.width * self.workers

    def kernel(self, layer: int) -> NDArray[np.float32]:
        fan = 1 if layer == 0 else self.channels
        generator = np.random.default_rng(100 * self.tag + layer)
        return (generator.normal(size=(self.channels, fan, 3, 3)) / np.sqrt(9 * fan)).astype(np.float32)

    def matrix(self) -> NDArray[np.float32]:
        return np.random.default_rng(self.tag).normal(size=(self.channels, CLASSES)).astype(np.float32)

    def mine(self, rank: int) -> slice:
        return slice(rank * self.width, (rank + 1) * self.width)


def served_split(
    *, tag: int = 9, workers: int = 2, width: int = 4, layers: int = 3, size: int = 12, wire: str = "Float32"
) -> ServedSplit:
    """``layers`` convolutions, and so ``layers - 1`` exchanges; each worker has ``width`` channels of each."""
    net = _Net(tag=tag, workers=workers, width=width, layers=layers, size=size, wire=wire)
    files = {
        f"shard-{rank}/segment-{layer}.onnx": _segment(net, rank, layer)
        for rank in range(workers)
        for layer in range(layers)
    }
    plan = SplitPlan.model_validate(_document(net, files))
    certificate = Certificate(relative_error=0, certified_percent=100, agreement_percent=100, samples=8)
    samples = np.random.default_rng(7).random((2, 1, size, size), dtype=np.float32)
    plan, probes = with_probes(plan.model_copy(update={"certificate": certificate}), files.__getitem__, samples)
    return ServedSplit(plan=plan, files={**files, **probes})


def whole_model(
    *, tag: int = 9, workers: int = 2, width: int = 4, layers: int = 3, size: int = 12, wire: str = "Float32"
) -> bytes:
    """The net of :func:`served_split` as one file: what its workers compute together, but for the wire."""
    net = _Net(tag=tag, workers=workers, width=width, layers=layers, size=size, wire=wire)
    bias = np.zeros(CLASSES, np.float32)
    bias[0] = STEP * tag
    weights = [numpy_helper.from_array(net.matrix(), "matrix"), numpy_helper.from_array(bias, "bias")]
    nodes, current = [], "image"
    for layer in range(layers):
        weights.append(numpy_helper.from_array(net.kernel(layer), f"kernel{layer}"))
        nodes.append(helper.make_node("Conv", [current, f"kernel{layer}"], [f"sum{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"sum{layer}"], [f"live{layer}"]))
        current = f"live{layer}"
    nodes.append(helper.make_node("GlobalAveragePool", [current], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "matrix", "bias"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "whole",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _segment(net: _Net, rank: int, layer: int) -> bytes:
    peers = [peer for peer in range(net.workers) if peer != rank]
    nodes: list[Any] = []
    weights = [numpy_helper.from_array(net.kernel(layer)[net.mine(rank)], "kernel")]
    map_shape: list[Any] = ["n", net.width, net.size, net.size]
    on_wire = TensorProto.FLOAT if net.wire == "Float32" else TensorProto.UINT8
    if net.wire == "UInt8":
        weights.append(numpy_helper.from_array(np.array(_WIRE_SCALE, np.float32), "scale"))
        weights.append(numpy_helper.from_array(np.array(0, np.uint8), "zero"))
    if layer == 0:
        inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, net.size, net.size])]
        current = "image"
    else:
        own, parts = f"own{layer}", []
        inputs = [helper.make_tensor_value_info(own, TensorProto.FLOAT, map_shape)]
        for peer in range(net.workers):
            name = own if peer == rank else f"x{layer}_from_{peer}"
            if peer != rank:
                inputs.append(helper.make_tensor_value_info(name, on_wire, map_shape))
                if net.wire == "UInt8":
                    nodes.append(helper.make_node("DequantizeLinear", [name, "scale", "zero"], [f"{name}_float"]))
                    name = f"{name}_float"
            parts.append(name)
        nodes.append(helper.make_node("Concat", parts, ["all"], axis=1))
        current = "all"
    nodes.append(helper.make_node("Conv", [current, "kernel"], ["sum"], pads=[1, 1, 1, 1]))
    if layer < net.layers - 1:
        own = f"own{layer + 1}"
        nodes.append(helper.make_node("Relu", ["sum"], [own]))
        outputs = [helper.make_tensor_value_info(own, TensorProto.FLOAT, map_shape)]
        for peer in peers:
            name = f"x{layer + 1}_to_{peer}"
            packing = ("Identity", [own]) if net.wire == "Float32" else ("QuantizeLinear", [own, "scale", "zero"])
            nodes.append(helper.make_node(packing[0], packing[1], [name]))
            outputs.append(helper.make_tensor_value_info(name, on_wire, map_shape))
    else:
        bias = np.zeros(CLASSES, np.float32)
        bias[0] = STEP * net.tag if rank == 0 else 0.0
        weights.append(numpy_helper.from_array(net.matrix()[net.mine(rank)], "matrix"))
        weights.append(numpy_helper.from_array(bias, "bias"))
        nodes.append(helper.make_node("Relu", ["sum"], ["live"]))
        nodes.append(helper.make_node("GlobalAveragePool", ["live"], ["pooled"]))
        nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
        nodes.append(helper.make_node("Gemm", ["flat", "matrix", "bias"], ["logits"]))
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])]
    graph = helper.make_graph(nodes, "segment", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _document(net: _Net, files: dict[str, bytes]) -> dict[str, Any]:
    share = 100 // net.workers
    shares = [share] * (net.workers - 1)
    ranks = range(net.workers)
    return {
        "schemaVersion": "edgefolio.dev/split-plan/v1",
        "workers": net.workers,
        "sharesPercent": [*shares, 100 - sum(shares)],
        "layout": "Channels",
        "wire": net.wire,
        "input": "image",
        "outputs": ["logits"],
        "combination": ["Sum"],
        "exchanges": [
            {
                "name": f"x{layer}",
                "place": f"layer {layer}",
                "kind": "send",
                "depth": layer,
                "elements": net.size * net.size,
                "owners": [rank for rank in ranks for _ in range(net.width)],
                "transfers": [
                    {
                        "sender": sender,
                        "receiver": receiver,
                        "slots": list(range(net.channels))[net.mine(sender)],
                        "sent": f"x{layer}_to_{receiver}",
                        "received": f"x{layer}_from_{sender}",
                    }
                    for sender in ranks
                    for receiver in ranks
                    if sender != receiver
                ],
            }
            for layer in range(1, net.layers)
        ],
        "shards": [
            {
                "rank": rank,
                "segments": [
                    {
                        "file": f"shard-{rank}/segment-{layer}.onnx",
                        "depth": layer,
                        "sha256": hashlib.sha256(files[f"shard-{rank}/segment-{layer}.onnx"]).hexdigest(),
                        "sizeBytes": len(files[f"shard-{rank}/segment-{layer}.onnx"]),
                    }
                    for layer in range(net.layers)
                ],
                "parameters": 0,
                "macs": 0,
            }
            for rank in ranks
        ],
    }
