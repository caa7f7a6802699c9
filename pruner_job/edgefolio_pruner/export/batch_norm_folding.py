"""Fold batch norms into the convolution or linear layer that feeds them, on a captured program.

With s = gamma / sqrt(variance + eps), ``batch_norm(W x + b) = (s W) x + s (b - mean) + beta``. The arithmetic is done
in float64 and rounded once, so the folded float32 model is as near to the exact function as the unfolded one.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.export import ExportedProgram

_aten = torch.ops.aten
#: Operators that a batch norm folds into -> (position of the weight, position of the bias, axis of output channels).
#: Transposed convolutions hold their output channels on axis 1, split by groups, and are handled by the shape below.
_CONVOLUTIONS = {
    _aten.conv1d.default,
    _aten.conv2d.default,
    _aten.conv2d.padding,
    _aten.conv3d.default,
    _aten.conv_transpose2d.input,
    _aten.linear.default,
}


def fold_batch_norms(program: ExportedProgram) -> None:
    """Fold, in place, every batch norm whose only input is a layer that nothing else reads.

    The program's own state dictionary is replaced entry by entry: the module it was captured from keeps its weights.
    A batch norm stays when its layer's output has another reader, when either one's parameters are used elsewhere
    (shared modules), or when it does not use running statistics.
    """
    tensors = _Tensors(program)
    folded = False
    for node in list(program.graph.nodes):
        if node.op == "call_function" and node.target is _aten.batch_norm.default and _fold_one(node, tensors):
            folded = True
    if folded:
        program.graph.eliminate_dead_code()
        program.graph_module.recompile()


class _Tensors:
    """The program's parameters and buffers, by the graph's input node that stands for each."""

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        signature = program.graph_signature
        self._names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._uses = Counter(self._names.values())

    def is_private(self, node: object) -> bool:
        """Whether the node is a parameter or buffer that exactly one operator reads, under exactly one name."""
        return (
            isinstance(node, torch.fx.Node)
            and node.op == "placeholder"
            and node.name in self._names
            and self._uses[self._names[node.name]] == 1
            and len(node.users) == 1
        )

    def is_held(self, node: object) -> bool:
        return isinstance(node, torch.fx.Node) and node.op == "placeholder" and node.name in self._names

    def value(self, node: torch.fx.Node) -> torch.Tensor:
        """The tensor in float64."""
        name = self._names[node.name]
        held = self._program.state_dict.get(name)
        if held is None:
            held = self._program.constants[name]
        assert isinstance(held, torch.Tensor)
        return held.detach().to(torch.float64)

    def replace(self, node: torch.fx.Node, value: torch.Tensor) -> None:
        """Give the node another value of the same shape, rounded to the dtype it had."""
        name = self._names[node.name]
        holder: dict[str, Any] = (
            self._program.state_dict if name in self._program.state_dict else self._program.constants
        )
        old = holder[name]
        new = value.to(old.dtype).contiguous()
        holder[name] = torch.nn.Parameter(new, requires_grad=False) if isinstance(old, torch.nn.Parameter) else new


def _fold_one(norm: torch.fx.Node, tensors: _Tensors) -> bool:
    layer, gamma, beta, mean, variance, training, _, epsilon, *_ = norm.args
    if not isinstance(layer, torch.fx.Node) or layer.target not in _CONVOLUTIONS or len(layer.users) != 1:
        return False
    if training or not (tensors.is_private(mean) and tensors.is_held(variance)):
        return False
    if any(given is not None and not tensors.is_held(given) for given in (gamma, beta)):
        return False
    weight = layer.args[1]
    bias = layer.args[2] if len(layer.args) > 2 else None
    if not tensors.is_private(weight) or (bias is not None and not tensors.is_held(bias)):
        return False
    assert isinstance(mean, torch.fx.Node)
    assert isinstance(variance, torch.fx.Node)
    assert isinstance(weight, torch.fx.Node)
    if layer.target is _aten.linear.default and layer.meta["val"].ndim != 2:
        return False  # its features are the last axis, the batch norm's channels axis 1
    assert isinstance(epsilon, float)
    scale = torch.rsqrt(tensors.value(variance) + epsilon)
    if isinstance(gamma, torch.fx.Node):
        scale = scale * tensors.value(gamma)
    shift = -tensors.value(mean)
    if isinstance(bias, torch.fx.Node):
        shift = shift + tensors.value(bias)
    shift = shift * scale
    if isinstance(beta, torch.fx.Node):
        shift = shift + tensors.value(beta)
    tensors.replace(weight, _scaled(layer, tensors.value(weight), scale))
    # The running mean has the bias' shape and no other reader: it becomes the bias, so no new input is needed.
    tensors.replace(mean, shift)
    arguments = list(layer.args)
    arguments[2:3] = [mean]
    layer.args = tuple(arguments)
    norm.replace_all_uses_with(layer)
    norm.graph.erase_node(norm)
    return True


def _scaled(layer: torch.fx.Node, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    if layer.target is not _aten.conv_transpose2d.input:
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    # [in, out / groups, ...]: input channel i belongs to group i // (in / groups) and meets that group's outputs.
    per_group = weight.shape[1]
    groups = scale.numel() // per_group
    return weight * scale.reshape(groups, 1, per_group).expand(groups, weight.shape[0] // groups, per_group).reshape(
        weight.shape[0], per_group, *[1] * (weight.ndim - 2)
    )
