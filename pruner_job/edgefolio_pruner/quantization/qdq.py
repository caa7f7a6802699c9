"""Quantized ONNX file of a float one: QuantizeLinear and DequantizeLinear of the standard domain, per channel.

Weights have 7 bits (``reduce_range``). Processors without VNNI multiply unsigned by signed bytes in pairs and add them
in 16 bits: with 8 bits that saturates, and the same file gives other answers there. With 7 bits it cannot, so all
processors compute the same integers, and the probe holds on each of them.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from edgefolio_pruner.quantization.calibration import NotQuantizableError, Ranges, one_line

#: Operators with weights: a layer is one of them.
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: Operators that may compute on bytes. Softmax and the norms stay float: they need the resolution and save nothing.
QUANTIZED_OPERATORS = (
    *_WEIGHTED, "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul",
    "Pad", "Relu", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
#: Operators whose own rounding may cost accuracy; the others only move bytes.
_LAYERS = frozenset({*_WEIGHTED, "Add", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul"})


def load_float(content: bytes) -> onnx.ModelProto:
    """The float model with shapes inferred and every node named."""
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content))
    taken: set[str] = set()
    for position, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{position}"
        taken.add(node.name)
    return model


def layers_of(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the nodes that may be quantized or stay float, in order."""
    return tuple(
        node.name for node in model.graph.node if node.op_type in _LAYERS and not _without_weights(node, model)
    )


def weighted_layers(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the layers with weights; without any of them quantized nothing is won."""
    return frozenset(
        node.name for node in model.graph.node if node.op_type in _WEIGHTED and not _without_weights(node, model)
    )


def quantized(
    model: onnx.ModelProto, ranges: Ranges, *, float_layers: Collection[str] = (), seven_bits: bool = True
) -> bytes:
    """The quantized file of ``model``; the nodes named by ``float_layers`` stay float.

    Equal inputs give equal bytes. Raises :class:`NotQuantizableError`.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    whole = {name: (np.min(low), np.max(ranges.highest[name])) for name, low in ranges.lowest.items()}
    excluded = {*float_layers, *(node.name for node in model.graph.node if _without_weights(node, model))}
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it logs each tensor that stays float
    try:
        quantizer = QDQQuantizer(
            copy.deepcopy(model),
            True,  # per channel
            seven_bits,  # "reduce_range"
            QuantType.QInt8,
            QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, whole),
            [],
            sorted(excluded),
            list(QUANTIZED_OPERATORS),
            {},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        result: onnx.ModelProto = quantizer.model.model
    except Exception as error:  # the quantizer raises many kinds, all about the model
        raise NotQuantizableError(f"the quantizer cannot express it ({one_line(error)})") from error
    finally:
        logging.disable(before)
    _leave_answers_float(result)
    _normalise(result, like=model)
    _require_numbers(result)
    return bytes(result.SerializeToString(deterministic=True))


def _without_weights(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    """Whether this is a product of two activations: attention, whose inputs need their resolution."""
    if node.op_type not in ("MatMul", "Gemm"):
        return False
    return node.input[1] not in {initializer.name for initializer in model.graph.initializer}


def _leave_answers_float(result: onnx.ModelProto) -> None:
    """Drop the pair of Q and DQ before each output: 256 steps over all logits would be coarser than need be."""
    makers = {output: node for node in result.graph.node for output in node.output}
    for answer in result.graph.output:
        back = makers.get(answer.name)
        there = makers.get(back.input[0]) if back is not None and back.op_type == "DequantizeLinear" else None
        maker = makers.get(there.input[0]) if there is not None and there.op_type == "QuantizeLinear" else None
        if back is None or there is None or maker is None:
            continue
        readers = [node for node in result.graph.node if set(node.input) & {there.input[0], back.input[0], answer.name}]
        if [node.name for node in readers] != [there.name, back.name]:
            continue
        position = list(maker.output).index(there.input[0])
        result.graph.node.remove(back)
        result.graph.node.remove(there)
        maker.output[position] = answer.name
    used = {name for node in result.graph.node for name in node.input}
    kept = [tensor for tensor in result.graph.initializer if tensor.name in used]
    del result.graph.initializer[:]
    result.graph.initializer.extend(kept)


def _normalise(result: onnx.ModelProto, *, like: onnx.ModelProto) -> None:
    """The headers of the float file, and nothing that differs from run to run."""
    result.ir_version = like.ir_version
    result.producer_name, result.producer_version, result.doc_string = like.producer_name, like.producer_version, ""
    del result.metadata_props[:]
    del result.graph.value_info[:]
    domains = {node.domain for node in result.graph.node}
    kept = [entry for entry in result.opset_import if entry.domain in ("", *domains)]
    del result.opset_import[:]
    result.opset_import.extend(kept)
    foreign = sorted(domains - {"", "ai.onnx"})
    if foreign:
        raise NotQuantizableError(f"its quantized form needs operators outside the standard domain ({foreign[0]})")
    initializers = sorted(result.graph.initializer, key=lambda tensor: tensor.name)
    del result.graph.initializer[:]
    result.graph.initializer.extend(initializers)


def _require_numbers(result: onnx.ModelProto) -> None:
    tensors = {tensor.name: tensor for tensor in result.graph.initializer}
    for node in result.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale = numpy_helper.to_array(tensors[node.input[1]])
        # Written so that NaN is refused.
        if not (np.isfinite(scale) & (scale > 0)).all():
            raise NotQuantizableError(f"the scale of {node.input[0]!r} is not a number above 0")


def quantized_layers(content: bytes, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the layers ``names`` that compute on bytes in the file: inputs and weights are dequantized."""
    graph = onnx.load_model_from_string(content).graph
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    return tuple(
        node.name
        for node in graph.node
        if node.name in names and all(made_by.get(name) == "DequantizeLinear" for name in node.input[:2])
    )
