"""Times of single layers in ONNX Runtime, whole and as a worker would compute them.

Multiply-accumulate operations mislead: half of the rows of a late map is far more than half of its time, as weights are
read all the same. So each layer is timed in the sizes that shards have: all of it, a band of its rows, a share of its
outputs from all inputs and from a share of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import fx

from edgefolio_pruner.export.onnx_file import IR_VERSION
from edgefolio_pruner.spatial.graph.capture import CapturedModel
from edgefolio_pruner.spatial.graph.nodes import argument, operator_name
from edgefolio_pruner.spatial.graph.program import Program, lower
from edgefolio_pruner.split.rows.bands import Rows, band_edges
from edgefolio_pruner.split.rows.states import windows_of

__all__ = ["LayerTimes", "documents_of", "layer_of", "timed_layers"]

_OPSET = 18
_WARM, _RUNS, _LONGEST_SECONDS = 2, 15, 0.25


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """Milliseconds of one layer for one sample, on one thread, for the worker with the largest share.

    ``band`` is that of ``band_rows`` of its ``rows``; ``read`` its share of the outputs from all inputs, ``own`` from
    its share of them, ``part`` all outputs from its share of the inputs.
    """

    rows: int
    band_rows: int
    whole: float
    band: float
    read: float
    own: float
    part: float

    def by_rows(self, rows: int) -> float:
        """So many rows, between a band and all of them."""
        if self.rows <= self.band_rows:
            return self.whole
        more = (rows - self.band_rows) / (self.rows - self.band_rows)
        return self.band + more * max(0.0, self.whole - self.band)

    def by_channels(self, kept: float) -> float:
        """A share of the outputs from its own inputs and the ``kept`` part of all others."""
        return self.own + kept * max(0.0, self.read - self.own)


def layer_of(node: fx.Node) -> str | None:
    """The name of a convolution or linear layer; None for any other operator, and for weights that are computed."""
    if operator_name(node) not in ("conv2d", "linear"):
        return None
    weight = argument(node, "weight")
    return str(weight.target).removesuffix(".weight") if weight.op == "get_attr" else None


def timed_layers(captured: CapturedModel, shares: Sequence[int]) -> dict[str, LayerTimes]:
    """Time every convolution and linear layer of a network, on this machine."""
    program = lower(captured)
    found: dict[str, LayerTimes] = {}
    for node in program.nodes:
        name = layer_of(node)
        if name is not None and name not in found:
            found[name] = _timed(node, program, shares)
    return found


def _timed(node: fx.Node, program: Program, shares: Sequence[int]) -> LayerTimes:
    share = max(shares) / sum(shares)
    shape = program.shapes[argument(node, "weight")]
    if operator_name(node) == "linear":
        result = program.shapes[node]
        positions = int(math.prod(result[1:-1]))
        outputs, inputs = shape

        def run(outs: int, ins: int, high: int) -> float:  # noqa: ARG001 - a linear layer has no rows
            return _linear(positions, ins, outs)

        rows = groups = 1
    else:
        rows, columns = program.shapes[node][2:]
        groups = int(argument(node, "groups"))
        outputs, inputs = shape[0], shape[1] * groups
        vertical, horizontal = windows_of(node, program)

        def run(outs: int, ins: int, high: int) -> float:
            # As a shard has it: padded before, so that bands and whole maps are computed alike.
            size = (len(vertical.reads(Rows(0, high))), len(horizontal.reads(Rows(0, columns))))
            weight = (outs, ins // _groups(groups, ins), vertical.kernel, horizontal.kernel)
            return _convolution(
                (1, ins, *size),
                weight,
                strides=(vertical.stride, horizontal.stride),
                dilations=(vertical.dilation, horizontal.dilation),
                groups=_groups(groups, ins),
            )

        def _groups(all_groups: int, ins: int) -> int:
            return max(1, round(all_groups * ins / inputs))

    edges = band_edges(rows, shares)
    band_rows = max(1, *(last - first for first, last in pairwise(edges)))
    step = max(1, groups)
    some_outputs = (
        max(step, math.ceil(outputs * share / step) * step) if groups == 1 else _share(outputs, groups, share)
    )
    some_inputs = max(1, math.ceil(inputs * share)) if groups == 1 else _share(inputs, groups, share)
    whole = run(outputs, inputs, rows)
    own = run(some_outputs, some_inputs, rows)
    return LayerTimes(
        rows=rows,
        band_rows=band_rows,
        whole=whole,
        band=whole if band_rows == rows else run(outputs, inputs, band_rows),
        read=own if groups > 1 else run(some_outputs, inputs, rows),
        own=own,
        part=own if groups > 1 else run(outputs, some_inputs, rows),
    )


def _share(channels: int, groups: int, share: float) -> int:
    """Channels of a share of the groups, whole groups."""
    return max(1, math.ceil(groups * share)) * (channels // groups)


def _convolution(
    size: tuple[int, ...],
    weight: tuple[int, ...],
    *,
    strides: tuple[int, int],
    dilations: tuple[int, int],
    groups: int,
) -> float:
    node = helper.make_node(
        "Conv", ["input", "weight"], ["output"], strides=strides, dilations=dilations, group=groups, pads=[0, 0, 0, 0]
    )
    return _milliseconds(node, size, weight)


def _linear(positions: int, inputs: int, outputs: int) -> float:
    node = helper.make_node("MatMul", ["input", "weight"], ["output"])
    return _milliseconds(node, (positions, inputs), (inputs, outputs))


def _milliseconds(node: onnx.NodeProto, size: tuple[int, ...], weight: tuple[int, ...]) -> float:
    """The fastest of several runs on numbers by chance: what others do on this machine only ever makes it slower."""
    generator = np.random.default_rng(0)

    def numbers(shape: tuple[int, ...]) -> NDArray[np.float32]:
        return generator.standard_normal(shape, dtype=np.float32)

    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(numbers(weight), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {"input": numbers(size)}
    for _ in range(_WARM):
        session.run(None, inputs)
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < _RUNS and (not taken or time.perf_counter() - began < _LONGEST_SECONDS):
        start = time.perf_counter()
        session.run(None, inputs)
        taken.append(1000 * (time.perf_counter() - start))
    return min(taken)


def documents_of(times: Mapping[str, LayerTimes]) -> dict[str, dict[str, Any]]:
    """Times as JSON documents."""
    return {name: asdict(each) for name, each in times.items()}
