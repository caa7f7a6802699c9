"""Constant propagation, the forward pass: which channels do not depend on the input.

``zero < constant(c) < border(c) < live``. A constant channel has one value everywhere; a border channel does not depend
on the input either, but zero padding makes it differ at the edges. Slots of values are judged one by one,
in float64, by evaluating the operators themselves on the constants.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from edgefolio_pruner.spatial.passes.observed import Observed
from edgefolio_pruner.spatial.passes.weights import Matrices
from edgefolio_pruner.spatial.roles import (
    Attention,
    Barrier,
    Constant,
    Contraction,
    Effect,
    Exchange,
    Input,
    Map,
    Mixer,
    Move,
    Operand,
    Zeros,
)
from edgefolio_pruner.spatial.structure import Structure

__all__ = ["ChannelConstants", "Constancy", "propagate_constants"]

Codes = NDArray[np.int8]
Values = NDArray[np.float64]


class Constancy(IntEnum):
    """The lattice of constant propagation: what is known of a channel."""

    ZERO = 0
    CONSTANT = 1
    BORDER = 2
    LIVE = 3


@dataclass
class ChannelConstants:
    """Constancy and constant value of every slot; a value is meaningful only where the constancy is ``CONSTANT``."""

    codes: dict[fx.Node, Codes] = field(default_factory=dict)
    values: dict[fx.Node, Values] = field(default_factory=dict)

    def put(self, node: fx.Node, codes: Codes, values: Values) -> None:
        """Store what is known of a node's value; a constant that is exactly zero is ``ZERO``."""
        values = np.where(codes == Constancy.CONSTANT, values, 0.0)
        codes = np.where((codes == Constancy.CONSTANT) & (values == 0), np.int8(Constancy.ZERO), codes)
        codes = np.where(np.isfinite(values), codes, np.int8(Constancy.LIVE)).astype(np.int8)
        self.codes[node] = codes
        self.values[node] = np.where(np.isfinite(values), values, 0.0)


def propagate_constants(structure: Structure, matrices: Matrices, *, writers_zeroed: bool = False) -> ChannelConstants:
    """The constancy of every slot of every value.

    With ``writers_zeroed`` the weights that write channels are taken to be zero (and no use is made of one channel's
    constancy for another's): a channel that is then not zero somewhere is not made zero by its writers.
    """
    constants = ChannelConstants()
    observed = Observed(structure)
    for node, role in structure.roles.items():
        shape = structure.channels[node].shape if node in structure.channels else ()
        if isinstance(role, (Input, Barrier)):
            constants.put(node, np.full(shape, Constancy.LIVE, dtype=np.int8), np.zeros(shape))
        elif isinstance(role, Constant):
            codes, values = tensor_constants(structure.program.constant(node), shape)
            constants.put(node, codes, values)
        elif isinstance(role, Move):
            _move(constants, node, role)
        elif isinstance(role, Map):
            _map(structure, constants, node, role, writers_zeroed)
        elif isinstance(role, Exchange):
            constants.put(node, constants.codes[role.source], constants.values[role.source])
        elif isinstance(role, Mixer):
            # With constant inputs only, its result is constant too.
            fixed = not writers_zeroed and bool((constants.codes[role.source] <= Constancy.BORDER).all())
            constants.put(
                node, np.full(shape, Constancy.BORDER if fixed else Constancy.LIVE, dtype=np.int8), np.zeros(shape)
            )
        elif isinstance(role, Attention):
            # A weighted mean of one constant is that constant; of an image that differs by position it is not.
            firm = Constancy.CONSTANT if role.averages else Constancy.ZERO
            codes = constants.codes[role.value]
            constants.put(node, np.where(codes <= firm, codes, np.int8(Constancy.LIVE)), constants.values[role.value])
        elif isinstance(role, Contraction):
            if writers_zeroed:
                constants.put(node, np.zeros(shape, dtype=np.int8), np.zeros(shape))
            else:
                _contract(constants, matrices, node, role, shape)
        if not writers_zeroed and node in constants.codes and (constants.codes[node] == Constancy.BORDER).any():
            _read_off(constants, node, observed.numbers(node, structure.channels[node]))
    return constants


def _read_off(constants: ChannelConstants, node: fx.Node, numbers: Values | None) -> None:
    """Border channels reduced to single numbers are constants."""
    if numbers is not None:
        border = constants.codes[node] == Constancy.BORDER
        codes = np.where(border, np.int8(Constancy.CONSTANT), constants.codes[node])
        constants.put(node, codes, np.where(border, numbers, constants.values[node]))


def tensor_constants(tensor: torch.Tensor, lengths: tuple[int, ...]) -> tuple[Codes, Values]:
    """Constancy of a constant tensor at the resolution ``lengths``: border where it is not uniform."""
    array = tensor.detach().to(torch.float64).numpy()
    axes = tuple(axis for axis in range(array.ndim) if lengths[axis] == 1 and array.shape[axis] > 1)
    low, high = array.min(axis=axes, keepdims=True), array.max(axis=axes, keepdims=True)
    codes = np.where(low == high, np.int8(Constancy.CONSTANT), np.int8(Constancy.BORDER))
    codes = np.where((low == 0) & (high == 0), np.int8(Constancy.ZERO), codes)
    return np.broadcast_to(codes, lengths), np.broadcast_to(low, lengths)


def _move(constants: ChannelConstants, node: fx.Node, role: Move) -> None:
    codes = np.concatenate([constants.codes[source].ravel() for source in role.sources])
    values = np.concatenate([constants.values[source].ravel() for source in role.sources])
    # A filled slot (index -1) reads the appended last entry.
    codes = np.append(codes, np.int8(Constancy.CONSTANT if role.padding_value else Constancy.ZERO))
    values = np.append(values, role.padding_value)
    taken_codes, taken_values = codes[role.index], values[role.index]
    result, value = taken_codes.max(axis=0), taken_values[0]
    agree = (taken_values == value).all(axis=0)
    result = np.where((result == Constancy.CONSTANT) & ~agree, np.int8(Constancy.BORDER), result)
    if role.effect is Effect.PADS:
        result = np.where(
            (result <= Constancy.CONSTANT) & (value != role.padding_value), np.int8(Constancy.BORDER), result
        )
    elif role.effect is Effect.KEEPS_ZERO:
        result = np.where(result == Constancy.CONSTANT, np.int8(Constancy.BORDER), result)
    elif role.effect is Effect.BLURS:
        result = np.full_like(result, Constancy.LIVE)
    constants.put(node, result.astype(np.int8), value)


def operand_constants(
    structure: Structure, constants: ChannelConstants, operand: Operand, lengths: tuple[int, ...]
) -> tuple[Codes, Values]:
    """Constancy of an operand at the resolution of the result."""
    if operand.node.op == "get_attr":
        tensor = structure.program.constant(operand.node).reshape(operand.view)
        kept = tuple(length if operand.view[axis] > 1 else 1 for axis, length in enumerate(lengths))
        return tensor_constants(tensor, kept)
    codes, values = constants.codes[operand.node], constants.values[operand.node]
    rank = len(operand.view)
    shape = (1,) * (rank - codes.ndim) + codes.shape
    return codes.reshape(shape), values.reshape(shape)


def _map(structure: Structure, constants: ChannelConstants, node: fx.Node, role: Map, writers_zeroed: bool) -> None:
    lengths = structure.channels[node].shape
    codes, values = [], []
    for place, operand in enumerate(role.operands):
        code, value = operand_constants(structure, constants, operand, lengths)
        if writers_zeroed:
            if role.zeros is Zeros.SCALE and operand.node.op == "get_attr" and place in _written(role):
                code, value = np.zeros_like(code), np.zeros_like(value)
            elif operand.node.op != "get_attr" and code.shape != lengths:
                code = np.full_like(code, Constancy.LIVE)
        codes.append(np.broadcast_to(code, lengths))
        values.append(np.broadcast_to(value, lengths))
    result = np.maximum.reduce(codes)
    with torch.no_grad():
        arguments = [torch.from_numpy(np.array(value)) for value in values]
        value = np.broadcast_to(role.function(arguments).to(torch.float64).numpy(), lengths)
    result = np.where(result == Constancy.ZERO, np.int8(Constancy.CONSTANT), result)
    if role.zeros is Zeros.ABSORB:
        absorbed = np.logical_or.reduce([code == Constancy.ZERO for code in codes])
    elif role.zeros is Zeros.NUMERATOR:
        absorbed = codes[0] == Constancy.ZERO
    elif role.zeros is Zeros.SCALE:
        # The first operand is 0 or a constant in ``values`` where it is not live; times zero it does not matter.
        absorbed = scale_is_zero(codes)
    else:
        absorbed = np.zeros(lengths, dtype=bool)
    if role.zeros in (Zeros.ABSORB, Zeros.NUMERATOR):
        value = np.where(absorbed, 0.0, value)
    result = np.where(absorbed, np.int8(Constancy.CONSTANT), result)
    constants.put(node, result.astype(np.int8), value)


def scale_is_zero(codes: list[Codes]) -> NDArray[np.bool_]:
    """Where the scale of a normalization (its second operand) is exactly zero."""
    result: NDArray[np.bool_] = codes[1] == Constancy.ZERO
    return result


def _written(role: Map) -> tuple[int, ...]:
    """Scale and shift among the operands of a normalization: they write channels, the statistics do not."""
    return tuple(range(1, len(role.operands) - 2))


def _contract(
    constants: ChannelConstants, matrices: Matrices, node: fx.Node, role: Contraction, shape: tuple[int, ...]
) -> None:
    matrix = matrices[role]
    codes = constants.codes[role.source].ravel()[role.columns]
    values = constants.values[role.source].ravel()[role.columns]

    def reads(entries: NDArray[np.bool_], columns: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if not columns.any():
            return np.zeros(entries.shape[:2], dtype=bool)
        result: NDArray[np.bool_] = (entries & columns[:, None, :]).any(axis=-1)
        return result

    constant = codes == Constancy.CONSTANT
    result = np.full(matrix.bias.shape, Constancy.CONSTANT, dtype=np.int8)
    result[reads(matrix.nonzero, codes == Constancy.BORDER) | reads(matrix.exposed, constant)] = Constancy.BORDER
    result[reads(matrix.nonzero, codes == Constancy.LIVE)] = Constancy.LIVE
    value = matrix.bias + matrix.column_sums(np.where(constant, values, 0.0))
    constants.put(node, result.reshape(shape), value.reshape(shape))
