"""Exactness proof: a compressed network computes the same function as its source.

In float64 rounding is so small that any wrong channel shows: the same network, captured and compressed in float64, must
agree to 1e-9 of its largest output. In float32, the type that is served, the compressed network must be as near to the
exact outputs as the sparse network itself is, within a factor of four (or 1e-4, absolute and of the largest output, if
that is more): its summation order differs.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from edgefolio.errors import EdgefolioError
from edgefolio.manifest import ExactnessProof
from edgefolio_pruner.export import evaluating, flat_outputs
from edgefolio_pruner.network_inputs import Samples, count, first, pieces
from edgefolio_pruner.spatial import CapturedModel, Compressed, capture, compress
from edgefolio_pruner.spatial.graph.capture import copy_graph_module

#: Largest allowed |difference| / max |output| in float64.
FLOAT64_BOUND = 1e-9
#: The same in float32, as long as outputs are at most 1; above, it is the largest allowed |difference|.
FLOAT32_BOUND = 1e-4
#: The float32 bound as a multiple of the sparse network's own float32 error, where that is more.
FLOAT32_FACTOR = 4.0
_BATCH = 64
#: Networks whose weights take more bytes are held in float64 one at a time.
_LARGE = 128 << 20


class NotExactError(EdgefolioError):
    """Spatial pruning changed a model's outputs: a bug, and the model is not written."""


@dataclasses.dataclass(frozen=True)
class Exactness:
    """Largest differences over all samples and outputs, each as a share of the largest value of that output.

    ``float64_difference``: sparse against compressed, both in float64. ``float32_difference``: the compressed network
    in float32 against the sparse one in float64; ``float32_own_error``: the sparse one in float32 against itself in
    float64. ``largest_output`` is the largest absolute value of all outputs.
    """

    float64_difference: float
    float32_difference: float
    float32_own_error: float
    largest_output: float
    samples: int

    @property
    def float32_bound(self) -> float:
        """Bound of ``float32_difference``."""
        return max(FLOAT32_BOUND / max(1.0, self.largest_output), FLOAT32_FACTOR * self.float32_own_error)

    @property
    def holds(self) -> bool:
        """Whether both bounds hold; a NaN never does."""
        return self.float64_difference <= FLOAT64_BOUND and self.float32_difference <= self.float32_bound

    def require(self, name: str) -> None:
        """Raise :class:`NotExactError` for the model ``name`` unless both bounds hold."""
        if not self.holds:
            raise NotExactError(
                f"Spatial pruning changed the outputs of {name!r}: float64 by {self.float64_difference:.3g} of the "
                f"largest (allowed {FLOAT64_BOUND:g}), float32 by {self.float32_difference:.3g} (allowed "
                f"{self.float32_bound:.3g}). Nothing is written. Please report it with the architecture."
            )

    def record(self) -> ExactnessProof:
        """The manifest's proof for a variant, which has one output: float32 in absolute numbers."""
        return ExactnessProof(
            float64_relative_difference=self.float64_difference,
            float32_absolute_difference=self.float32_difference * self.largest_output,
            float32_bound=self.float32_bound * self.largest_output,
        )


def prove_exact(
    module: torch.nn.Module, captured: CapturedModel, compressed: Compressed, samples: Samples
) -> Exactness:
    """Compare ``module`` (float32) with its compression on ``samples`` ``[samples, channels, height, width]``
    (of several inputs one tensor for each).

    ``captured`` and ``compressed`` are of ``module`` in float32. The captured graph is cast to float64; only where the
    module names float32 itself (then it computes a part in float32 in any case) it is captured a second time.
    """
    batches = pieces(samples, _BATCH)
    networks = _Networks(module, captured, compressed, batches[0])
    float64, own, float32 = _Differences(), _Differences(), _Differences()
    # The answers of a large network are held, so that it need not be held twice in float64 as well.
    for part in [batches] if _weight_bytes(module) > _LARGE else [[batch] for batch in batches]:
        truth = networks.answers("exact", part)
        for differences, name in ((float64, "compressed64"), (own, "own"), (float32, "compressed")):
            for one, two in zip(truth, networks.answers(name, part), strict=True):
                differences.add(one, two)
    return Exactness(
        float64_difference=float64.relative,
        float32_difference=float32.relative,
        float32_own_error=own.relative,
        largest_output=float64.largest_output,
        samples=count(samples),
    )


def _cast(samples: tuple[torch.Tensor, ...], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    return tuple(given.to(dtype) for given in samples)


class _Networks:
    """The networks that a proof compares; of a large one no two are held in float64 at a time."""

    def __init__(
        self,
        module: torch.nn.Module,
        captured: CapturedModel,
        compressed: Compressed,
        example: tuple[torch.Tensor, ...],
    ) -> None:
        self._module, self._captured, self._example = module, captured, example
        self._made: dict[str, torch.nn.Module] = {"own": module, "compressed": compressed.module}
        self._large = _weight_bytes(module) > _LARGE

    def answers(self, name: str, batches: list[tuple[torch.Tensor, ...]]) -> list[list[torch.Tensor]]:
        """The outputs of the network ``name`` for each batch."""
        wide = name in ("exact", "compressed64")
        network = self._made.get(name)
        if network is None:
            network = self._exact() if name == "exact" else self._compressed64()
        if not (wide and self._large):
            self._made[name] = network
        dtype = torch.float64 if wide else torch.float32
        with torch.no_grad(), evaluating(network):
            return [flat_outputs(network(*_cast(batch, dtype))) for batch in batches]

    def _exact(self) -> torch.nn.Module:
        # What a copy would hold of each tensor, in float64 at once: there is no copy in float32 beside it.
        copies: dict[int, Any] = {}
        for tensor in (*self._module.parameters(), *self._module.buffers()):
            if tensor.is_floating_point():
                wide = tensor.detach().double()
                is_parameter = isinstance(tensor, torch.nn.Parameter)
                copies[id(tensor)] = torch.nn.Parameter(wide, requires_grad=False) if is_parameter else wide
        return copy.deepcopy(self._module, copies).double().eval()

    def _compressed64(self) -> torch.nn.Module:
        if _names_its_type(self._captured):
            captured64 = capture(self._exact(), _cast(first(self._example, 2), torch.float64), share_weights=True)
        else:
            captured64 = in_dtype(self._captured, torch.float64, as_read=True)
        return compress(captured64).module


def _weight_bytes(module: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


class _Differences:
    """Largest output differences over several batches."""

    def __init__(self) -> None:
        self._differences: list[float] = []
        self._sizes: list[float] = []

    def add(self, truth: list[torch.Tensor], other: list[torch.Tensor]) -> None:
        """Take one batch into account; another number or shape of outputs is infinitely far."""
        if [tensor.shape for tensor in truth] == [tensor.shape for tensor in other]:
            differences = [
                float((one.double() - two.double()).abs().max()) for one, two in zip(truth, other, strict=True)
            ]
        else:
            differences = [float("nan")] * len(truth)
        self._differences = _maxima(self._differences, differences)
        self._sizes = _maxima(self._sizes, [float(tensor.double().abs().max()) for tensor in truth])

    @property
    def relative(self) -> float:
        """The largest over the outputs of max |truth - other| / max |truth|; infinite for NaN and other shapes."""
        largest = 0.0
        for difference, size in zip(self._differences, self._sizes, strict=True):
            relative = difference / size if size > 0 else (0.0 if difference == 0 else float("inf"))
            largest = max(largest, relative if relative == relative else float("inf"))
        return largest

    @property
    def largest_output(self) -> float:
        """The largest absolute value of the truth."""
        return max(self._sizes)


def _maxima(seen: list[float], new: list[float]) -> list[float]:
    """The larger of each pair; a NaN is larger than any number."""
    pairs = zip(seen or new, new, strict=True)
    return [one if one != one or one > two else two for one, two in pairs]


def _names_its_type(captured: CapturedModel) -> bool:
    """Whether an operator of the graph hard-codes the floating point type."""
    return any(
        captured.dtype in (*node.args, *node.kwargs.values())
        for node in captured.graph_module.graph.nodes
        if node.op == "call_function" and node.target is not torch.ops.aten._assert_tensor_metadata.default
    )


def relative_difference(truth: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """The largest over the outputs of max |truth - other| / max |truth|; infinite for NaN and other shapes."""
    differences = _Differences()
    differences.add(truth, other)
    return differences.relative


def in_dtype(captured: CapturedModel, dtype: torch.dtype, *, as_read: bool = False) -> CapturedModel:
    """The captured model in another floating point type: weights, and types that the graph names.

    With ``as_read`` the weights are those of ``captured``, and cast when :func:`compress` reads them: its result is the
    same, and no second set of all weights is held.
    """
    old = captured.dtype
    graph_module = copy_graph_module(captured.graph_module, share_weights=True)
    if not as_read:
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
            # It asserts the dtype at capture, which changes here.
            graph_module.graph.erase_node(node)
        elif node.op == "call_function":
            node.args = tuple(argument if isinstance(argument, fx.Node) else cast(argument) for argument in node.args)
            node.kwargs = cast(node.kwargs)
    graph_module.recompile()
    return dataclasses.replace(captured, graph_module=graph_module, reads_as=dtype if as_read else None)
