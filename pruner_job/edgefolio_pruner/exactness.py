"""The proof that a compressed network computes the same function as the one it came from.

In float64 rounding is so small that any wrong channel shows: the same network, captured and compressed in float64, must
agree to 1e-9 of its largest output. In float32, the type that is served, the compressed network must be as near to the
exact outputs as the sparse network itself is, within a factor of four (or 1e-4, whichever is larger): its sums have
another order.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from edgefolio_pruner.export import evaluating, flat_outputs
from edgefolio_pruner.making.exactness import FLOAT32_FACTOR, FLOAT64_RELATIVE_BOUND
from edgefolio_pruner.spatial import CapturedModel, Compressed, capture, compress
from edgefolio_pruner.spatial.capture import copy_graph_module

#: Largest allowed |difference| / max |output| in float64.
FLOAT64_BOUND = FLOAT64_RELATIVE_BOUND
#: The same in float32, or ``FLOAT32_FACTOR`` times the sparse network's own float32 error where that is larger.
FLOAT32_BOUND = 1e-4


@dataclasses.dataclass(frozen=True)
class Exactness:
    """Largest differences over all samples and outputs, each as a share of the largest output.

    ``float64_difference``: sparse against compressed, both in float64. ``float32_difference``: the compressed network
    in float32 against the sparse one in float64; ``float32_own_error``: the sparse one in float32 against itself in
    float64.
    """

    float64_difference: float
    float32_difference: float
    float32_own_error: float
    samples: int

    @property
    def float32_bound(self) -> float:
        """What ``float32_difference`` may be."""
        return max(FLOAT32_BOUND, FLOAT32_FACTOR * self.float32_own_error)

    @property
    def holds(self) -> bool:
        """Whether both bounds hold; a NaN never does."""
        return self.float64_difference <= FLOAT64_BOUND and self.float32_difference <= self.float32_bound


def prove_exact(
    module: torch.nn.Module, captured: CapturedModel, compressed: Compressed, samples: torch.Tensor
) -> Exactness:
    """Compare ``module`` (float32) with what came of it, on ``samples`` ``[samples, channels, height, width]``.

    ``captured`` and ``compressed`` are of ``module`` in float32. The captured graph is cast to float64; only where the
    module names float32 itself (then it computes a part in float32 in any case) it is captured a second time.
    """
    exact = copy.deepcopy(module).double()
    if _names_its_type(captured):
        captured64 = capture(exact.eval(), (samples[:2].double(),))
    else:
        captured64 = in_dtype(captured, torch.float64)
    compressed64 = compress(captured64)
    with torch.no_grad(), evaluating(exact), evaluating(module):
        truth = flat_outputs(exact(samples.double()))
        float64 = flat_outputs(compressed64.module(samples.double()))
        own = flat_outputs(module(samples.float()))
        float32 = flat_outputs(compressed.module(samples.float()))
    return Exactness(
        float64_difference=relative_difference(truth, float64),
        float32_difference=relative_difference(truth, float32),
        float32_own_error=relative_difference(truth, own),
        samples=len(samples),
    )


def _names_its_type(captured: CapturedModel) -> bool:
    """Whether an operator of the graph, not only its weights, fixes the floating point type."""
    return any(
        captured.dtype in (*node.args, *node.kwargs.values())
        for node in captured.graph_module.graph.nodes
        if node.op == "call_function" and node.target is not torch.ops.aten._assert_tensor_metadata.default
    )


def relative_difference(truth: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """The largest over the outputs of max |truth - other| / max |truth|; infinite for NaN and other shapes."""
    if [tensor.shape for tensor in truth] != [tensor.shape for tensor in other]:
        return float("inf")
    largest = 0.0
    for one, two in zip(truth, other, strict=True):
        difference = float((one.double() - two.double()).abs().max())
        size = float(one.double().abs().max())
        relative = difference / size if size > 0 else (0.0 if difference == 0 else float("inf"))
        largest = max(largest, relative if relative == relative else float("inf"))
    return largest


def in_dtype(captured: CapturedModel, dtype: torch.dtype) -> CapturedModel:
    """The captured model in another floating point type: weights, and types that the graph names."""
    old = captured.dtype
    graph_module = copy_graph_module(captured.graph_module)
    graph_module.to(dtype)

    def cast(value: Any) -> Any:
        if value is old:
            return dtype
        if isinstance(value, (list, tuple)):
            return type(value)(cast(entry) for entry in value)
        if isinstance(value, Mapping):
            return {name: cast(entry) for name, entry in value.items()}
        return value

    for node in list(graph_module.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            # It states the type that a tensor had when the graph was captured, which is what changes here.
            graph_module.graph.erase_node(node)
        elif node.op == "call_function":
            node.args = tuple(argument if isinstance(argument, fx.Node) else cast(argument) for argument in node.args)
            node.kwargs = cast(node.kwargs)
    graph_module.recompile()
    return dataclasses.replace(captured, graph_module=graph_module)
