"""Table of onnxruntime's time per layer and width on this machine: multiples and plateaus as they are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from edgefolio_pruner.progress import Progress, no_progress

#: Oldest operator set that holds the operators below as they are written; every Triton in use reads it.
_OPSET = 18
_IR_VERSION = 8
_ROUNDS = 5
_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """A convolution or linear layer as the runtime sees it, and the widths at which it is wanted.

    ``rows`` and ``columns`` are the kept sizes of its weight's first two axes, ascending, the whole size last. ``size``
    are the height and width of the input, or the rows of a linear layer, per sample. ``depthwise``: a group per row.
    """

    name: str
    kind: Literal["conv", "linear"]
    size: tuple[int, ...]
    groups: int
    depthwise: bool
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]


@dataclass(frozen=True)
class LayerTimes:
    """Milliseconds of one layer by kept rows (all columns) and by kept columns (all rows)."""

    rows: tuple[tuple[int, float], ...]
    columns: tuple[tuple[int, float], ...]

    def at(self, rows: int, columns: int) -> float:
        """Milliseconds at these widths: those of the next measured ones, and never less than a narrower layer's."""
        whole = self.rows[-1][1]
        if rows == 0 or columns == 0 or whole <= 0:
            return 0.0
        return _at(self.rows, rows) * _at(self.columns, columns) / whole


def _at(points: Sequence[tuple[int, float]], width: int) -> float:
    return min(milliseconds for measured, milliseconds in points if measured >= width)


def measure_layer_times(
    shapes: Sequence[LayerShape], *, batch: int, threads: int, progress: Progress = no_progress
) -> dict[str, LayerTimes]:
    """The least time of each layer at each of its widths, over several rounds in which the widths take turns."""
    found: dict[str, LayerTimes] = {}
    known: dict[Any, LayerTimes] = {}
    for index, shape in enumerate(shapes):
        progress(stage="one-shot", fraction=index / len(shapes), message=f"timing {shape.name}")
        values = {name: getattr(shape, name) for name in LayerShape.__dataclass_fields__ if name != "name"}
        key = tuple(values.values())
        if key not in known:
            known[key] = _measure(shape, batch=batch, threads=threads)
        found[shape.name] = known[key]
    return found


def _measure(shape: LayerShape, *, batch: int, threads: int) -> LayerTimes:
    whole = (shape.rows[-1], shape.columns[-1])
    wanted = dict.fromkeys(
        (*((rows, whole[1]) for rows in shape.rows), *((whole[0], columns) for columns in shape.columns))
    )
    sessions = {width: _session(shape, *width, batch=batch, threads=threads) for width in wanted}
    best: dict[tuple[int, int], float] = dict.fromkeys(wanted, float("inf"))
    for _ in range(_ROUNDS):
        for width, (session, feed) in sessions.items():
            for _ in range(_RUNS):
                start = time.perf_counter()
                session.run(None, feed)
                best[width] = min(best[width], 1000 * (time.perf_counter() - start))
    return LayerTimes(
        rows=tuple((rows, best[rows, whole[1]]) for rows in shape.rows),
        columns=tuple((columns, best[whole[0], columns]) for columns in shape.columns),
    )


def _session(
    shape: LayerShape, rows: int, columns: int, *, batch: int, threads: int
) -> tuple[onnxruntime.InferenceSession, Mapping[str, Any]]:
    generator = np.random.default_rng(0)
    if shape.kind == "linear":
        dimensions = [batch, *shape.size, columns]
        weight = generator.standard_normal((columns, rows), dtype=np.float32)
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
    else:
        groups = max(1, rows * shape.groups // shape.rows[-1]) if shape.depthwise else shape.groups
        dimensions = [batch, groups * columns, *shape.size]
        weight = generator.standard_normal((rows, columns, *shape.kernel), dtype=np.float32)
        node = helper.make_node(
            "Conv",
            ["x", "w"],
            ["y"],
            group=groups,
            strides=list(shape.stride),
            pads=[*shape.padding, *shape.padding],
            dilations=list(shape.dilation),
        )
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dimensions)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, {"x": generator.standard_normal(dimensions, dtype=np.float32)}
