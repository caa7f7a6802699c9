"""What an error at each layer's output costs at the net's output, to second order (a diagonal Fisher information)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from edgefolio_pruner.calibrating.linear_maps import LinearMap, State
from edgefolio_pruner.calibrating.rows import by_position
from edgefolio_pruner.network_inputs import Samples, by_input, count, pieces
from edgefolio_pruner.refit import NotFiniteError
from edgefolio_pruner.spatial.graph.nodes import operator_name, tensor_inputs

#: Bytes of activations that one backward pass may hold.
_BACKWARD_BYTES = 512 * 1024**2


def output_losses(
    graph: fx.Graph, state: State, chunks: Sequence[Samples], maps: Sequence[LinearMap], *, seed: int
) -> dict[str, torch.Tensor]:
    """Per map the loss [outputs] per sample that a unit mean squared error of each output causes, float64.

    The loss is the divergence between the class probabilities before and after (for outputs that are no logits: the
    squared error). Errors at different positions and outputs are taken to be independent, so that it is the sum over
    the positions of the mean squared gradient; labels are drawn from the net's own probabilities.
    """
    generator = torch.Generator().manual_seed(seed)
    sums = {linear.layer: torch.zeros(linear.groups * linear.outputs, dtype=torch.float64) for linear in maps}
    samples = 0
    per_pass = samples_per_pass(graph)
    for chunk in (part for whole in chunks for part in pieces(whole, per_pass)):
        with torch.enable_grad():
            values = forward_values(graph, state, with_gradients(chunk))
            ends = {linear: values[linear.end] for linear in maps if values[linear.end].requires_grad}
            objective = drawn_objective(values, graph, generator)
            gradients = torch.autograd.grad(objective, list(ends.values()), allow_unused=True)
        for linear, gradient in zip(ends, gradients, strict=True):
            if gradient is not None:
                rows = by_position(gradient, convolution=linear.geometry is not None).double()
                sums[linear.layer] += rows.square().sum((0, 1))
        samples += count(chunk)
    return {layer: total / samples for layer, total in sums.items()}


def with_gradients(chunk: Samples) -> tuple[torch.Tensor, ...]:
    """The samples as values that a backward pass reaches."""
    return tuple(given.detach().clone().requires_grad_() for given in by_input(chunk))


def forward_values(graph: fx.Graph, state: State, chunk: Samples) -> Mapping[fx.Node, Any]:
    """The values of all nodes for one chunk of samples."""
    given = iter(by_input(chunk))
    values: dict[fx.Node, Any] = {}

    def load(source: fx.Node) -> Any:
        return state[str(source.target)] if source.op == "get_attr" else values[source]

    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = next(given)
        elif node.op == "call_function":
            arguments, keywords = fx.map_arg((node.args, node.kwargs), load)
            values[node] = node.target(*arguments, **keywords)
    return values


def drawn_objective(values: Mapping[fx.Node, Any], graph: fx.Graph, generator: torch.Generator) -> torch.Tensor:
    """What is differentiated: the log probability of a class drawn from the net's own; of labels behind a sigmoid that
    of each label.
    """
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    total = torch.zeros(())
    for node in tensor_inputs(output):
        found = values[node]
        if not bool(torch.isfinite(found).all()):
            raise NotFiniteError("outputs of the network are not finite")
        if not found.requires_grad:
            continue
        ends_in = operator_name(node) if node.op == "call_function" else ""
        if ends_in == "sigmoid":
            logits = values[_logits(node)]
            drawn = torch.bernoulli(found.detach(), generator=generator)
            total = total - functional.binary_cross_entropy_with_logits(logits, drawn, reduction="sum")
        elif found.ndim == 2 and found.shape[1] > 1:
            # Probabilities are no logits: these are what they were made of.
            logits = values[_logits(node)] if ends_in in ("softmax", "_softmax") else found
            logs = torch.log_softmax(logits, 1)
            drawn = torch.multinomial(logs.detach().exp(), 1, generator=generator)
            total = total + logs.gather(1, drawn).sum()
        else:
            total = total + (found * torch.randn(found.shape, generator=generator)).sum()
    return total


def _logits(node: fx.Node) -> fx.Node:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source


def samples_per_pass(graph: fx.Graph) -> int:
    """How many samples go through one backward pass."""
    held = 0
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, torch.Tensor):
            held += 4 * value[0].numel() if value.ndim else 4
    return max(1, min(64, _BACKWARD_BYTES // max(1, held)))
