"""The table of ONNX operators for which there is a layer or a call of torch. What is not listed here is refused."""

from __future__ import annotations

from edgefolio_pruner.onnx_source.operators import arranging, elementwise, layers, pooling, resizing
from edgefolio_pruner.onnx_source.operators.operator import Operator

__all__ = ["OPERATORS"]

OPERATORS: dict[str, Operator] = {
    **layers.OPERATORS,
    **elementwise.OPERATORS,
    **arranging.OPERATORS,
    **pooling.OPERATORS,
    **resizing.OPERATORS,
}
