"""Equalization across layers: channels of one activation are scaled to like ranges, and their readers back.

An activation has one scale for all its channels. Where the channels of a depthwise block differ in size by a hundred,
the small ones are left with two or three steps. ReLU commutes with a positive factor, so a convolution before it can
make a channel larger and the convolution behind it take that back: the float model computes the same.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgefolio_pruner.quantization.calibration import Ranges

_LARGEST_FACTOR = 1e3
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """A convolution, the activation behind it, and the one convolution that reads that."""

    writer: onnx.NodeProto
    activation: str
    highest: float
    reader: onnx.NodeProto


def equalized(model: onnx.ModelProto, ranges: Ranges) -> onnx.ModelProto | None:
    """A copy of ``model`` with equalized channels; ``None`` if it has no pair of convolutions to equalize.

    A clipped activation (ReLU6) is only scaled up to its bound: beyond the calibrated range it may be cut off earlier,
    as the quantized form cuts it off.
    """
    result = copy.deepcopy(model)
    weights = {tensor.name: tensor for tensor in result.graph.initializer}
    found = _pairs(result, weights)
    for pair in found:
        _scale(pair, ranges, weights)
    return result if found else None


def _pairs(model: onnx.ModelProto, weights: dict[str, onnx.TensorProto]) -> list[_Pair]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    answers = {value.name for value in model.graph.output}

    def only_reader(name: str) -> onnx.NodeProto | None:
        found = readers.get(name, [])
        return found[0] if len(found) == 1 and name not in answers else None

    def owns_weights(node: onnx.NodeProto) -> bool:
        return all(name in weights and len(readers[name]) == 1 for name in node.input[1:] if name)

    pairs = []
    for writer in model.graph.node:
        if writer.op_type != "Conv" or not owns_weights(writer):
            continue
        value, highest = writer.output[0], np.inf
        reader = only_reader(value)
        if reader is not None and reader.op_type in ("Relu", "Clip"):
            if reader.op_type == "Clip":
                bounds = [
                    float(numpy_helper.to_array(weights[name])) if name in weights else np.nan
                    for name in reader.input[1:]
                ]
                if len(bounds) != 2 or bounds[0] != 0 or not bounds[1] > 0:
                    continue
                highest = bounds[1]
            value = reader.output[0]
            reader = only_reader(value)
        if reader is None or reader.op_type != "Conv" or reader.input[0] != value or not owns_weights(reader):
            continue
        if _groups(reader) in (1, weights[writer.input[1]].dims[0]):
            pairs.append(_Pair(writer=writer, activation=value, highest=highest, reader=reader))
    return pairs


def _groups(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _scale(pair: _Pair, ranges: Ranges, weights: dict[str, onnx.TensorProto]) -> None:
    size = np.maximum(np.abs(ranges.lowest[pair.activation]), np.abs(ranges.highest[pair.activation])).astype(float)
    first, second = weights[pair.writer.input[1]], weights[pair.reader.input[1]]
    reading = numpy_helper.to_array(second).astype(np.float64)
    depthwise = _groups(pair.reader) > 1
    largest = size.max(initial=0.0)
    live = size > largest / _LARGEST_FACTOR
    if not live.any():
        return
    upwards = largest / np.where(live, size, largest)
    if depthwise:
        # Each channel has a scale for its weights, so these cost nothing.
        factors = upwards
    else:
        # The reader's weights share a scale over their inputs: both are balanced, as geometric means.
        height = np.abs(reading).max(axis=(0, 2, 3))
        live &= height > 0
        factors = np.sqrt(np.where(live, height, 1.0) / np.where(live, size, 1.0))
        factors /= factors[np.argmax(size)]
        factors = np.clip(factors, 1.0 if np.isfinite(pair.highest) else 1 / _LARGEST_FACTOR, upwards)
    factors = np.where(live, factors, 1.0)
    _store(first, numpy_helper.to_array(first) * factors.reshape(-1, 1, 1, 1))
    if len(pair.writer.input) > 2:
        bias = weights[pair.writer.input[2]]
        _store(bias, numpy_helper.to_array(bias) * factors)
    _store(second, reading / factors.reshape((-1, 1, 1, 1) if depthwise else (1, -1, 1, 1)))


def _store(tensor: onnx.TensorProto, values: Array) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
