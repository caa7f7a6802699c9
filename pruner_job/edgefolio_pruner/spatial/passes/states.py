"""The forward pass: what is known of each channel before the network sees an input.

``zero < constant(c) < border(c) < live``. A constant channel has one value everywhere; a border channel does not depend
on the input either, but zero padding makes it differ at the edges. States are found per slot of every value, in
float64, by evaluating the operators themselves on the constants.
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
    Barrier,
    Constant,
    Contraction,
    Effect,
    Input,
    Map,
    Mixer,
    Move,
    Operand,
    Zeros,
)
from edgefolio_pruner.spatial.structure import Structure

__all__ = ["State", "States", "propagate"]

Codes = NDArray[np.int8]
Values = NDArray[np.float64]


class State(IntEnum):
    """What is known of a channel, in the order of the lattice."""

    ZERO = 0
    CONSTANT = 1
    BORDER = 2
    LIVE = 3


@dataclass
class States:
    """State and constant value of every slot; a value is meaningful only where the state is ``CONSTANT``."""

    codes: dict[fx.Node, Codes] = field(default_factory=dict)
    values: dict[fx.Node, Values] = field(default_factory=dict)

    def put(self, node: fx.Node, codes: Codes, values: Values) -> None:
        """Store the state of a node's value; a constant that is exactly zero is ``ZERO``."""
        values = np.where(codes == State.CONSTANT, values, 0.0)
        codes = np.where((codes == State.CONSTANT) & (values == 0), np.int8(State.ZERO), codes)
        codes = np.where(np.isfinite(values), codes, np.int8(State.LIVE)).astype(np.int8)
        self.codes[node] = codes
        self.values[node] = np.where(np.isfinite(values), values, 0.0)


def propagate(structure: Structure, matrices: Matrices, *, writers_zeroed: bool = False) -> States:
    """The state of every slot of every value.

    With ``writers_zeroed`` the weights that write channels are taken to be zero (and no use is made of one channel's
    state for another's): a channel that is then not zero somewhere is not made zero by its writers.
    """
    states = States()
    observed = Observed(structure)
    for node, role in structure.roles.items():
        shape = structure.channels[node].shape if node in structure.channels else ()
        if isinstance(role, (Input, Barrier)):
            states.put(node, np.full(shape, State.LIVE, dtype=np.int8), np.zeros(shape))
        elif isinstance(role, Constant):
            codes, values = constant_states(structure.program.constant(node), shape)
            states.put(node, codes, values)
        elif isinstance(role, Move):
            _move(states, node, role)
        elif isinstance(role, Map):
            _map(structure, states, node, role, writers_zeroed)
        elif isinstance(role, Mixer):
            # Of constants alone its result does not depend on the input either.
            fixed = not writers_zeroed and bool((states.codes[role.source] <= State.BORDER).all())
            states.put(node, np.full(shape, State.BORDER if fixed else State.LIVE, dtype=np.int8), np.zeros(shape))
        elif isinstance(role, Contraction):
            if writers_zeroed:
                states.put(node, np.zeros(shape, dtype=np.int8), np.zeros(shape))
            else:
                _contract(states, matrices, node, role, shape)
        if not writers_zeroed and node in states.codes and (states.codes[node] == State.BORDER).any():
            _read_off(states, node, observed.numbers(node, structure.channels[node]))
    return states


def _read_off(states: States, node: fx.Node, numbers: Values | None) -> None:
    """Border channels that have come down to single numbers are constants."""
    if numbers is not None:
        border = states.codes[node] == State.BORDER
        codes = np.where(border, np.int8(State.CONSTANT), states.codes[node])
        states.put(node, codes, np.where(border, numbers, states.values[node]))


def constant_states(tensor: torch.Tensor, lengths: tuple[int, ...]) -> tuple[Codes, Values]:
    """State of a constant tensor at the resolution ``lengths``: border where it is not uniform, zero where it is 0."""
    array = tensor.detach().to(torch.float64).numpy()
    axes = tuple(axis for axis in range(array.ndim) if lengths[axis] == 1 and array.shape[axis] > 1)
    low, high = array.min(axis=axes, keepdims=True), array.max(axis=axes, keepdims=True)
    codes = np.where(low == high, np.int8(State.CONSTANT), np.int8(State.BORDER))
    codes = np.where((low == 0) & (high == 0), np.int8(State.ZERO), codes)
    return np.broadcast_to(codes, lengths), np.broadcast_to(low, lengths)


def _move(states: States, node: fx.Node, role: Move) -> None:
    codes = np.concatenate([states.codes[source].ravel() for source in role.sources])
    values = np.concatenate([states.values[source].ravel() for source in role.sources])
    # A slot that is filled reads the entry behind the last.
    codes = np.append(codes, np.int8(State.CONSTANT if role.padding_value else State.ZERO))
    values = np.append(values, role.padding_value)
    taken_codes, taken_values = codes[role.index], values[role.index]
    result, value = taken_codes.max(axis=0), taken_values[0]
    agree = (taken_values == value).all(axis=0)
    result = np.where((result == State.CONSTANT) & ~agree, np.int8(State.BORDER), result)
    if role.effect is Effect.PADS:
        result = np.where((result <= State.CONSTANT) & (value != role.padding_value), np.int8(State.BORDER), result)
    elif role.effect is Effect.KEEPS_ZERO:
        result = np.where(result == State.CONSTANT, np.int8(State.BORDER), result)
    elif role.effect is Effect.BLURS:
        result = np.full_like(result, State.LIVE)
    states.put(node, result.astype(np.int8), value)


def operand_states(
    structure: Structure, states: States, operand: Operand, lengths: tuple[int, ...]
) -> tuple[Codes, Values]:
    """State of an operand at the resolution of the result."""
    if operand.node.op == "get_attr":
        tensor = structure.program.constant(operand.node).reshape(operand.view)
        kept = tuple(length if operand.view[axis] > 1 else 1 for axis, length in enumerate(lengths))
        return constant_states(tensor, kept)
    codes, values = states.codes[operand.node], states.values[operand.node]
    rank = len(operand.view)
    shape = (1,) * (rank - codes.ndim) + codes.shape
    return codes.reshape(shape), values.reshape(shape)


def _map(structure: Structure, states: States, node: fx.Node, role: Map, writers_zeroed: bool) -> None:
    lengths = structure.channels[node].shape
    codes, values = [], []
    for place, operand in enumerate(role.operands):
        code, value = operand_states(structure, states, operand, lengths)
        if writers_zeroed:
            if role.zeros is Zeros.SCALE and operand.node.op == "get_attr" and place in _written(role):
                code, value = np.zeros_like(code), np.zeros_like(value)
            elif operand.node.op != "get_attr" and code.shape != lengths:
                code = np.full_like(code, State.LIVE)
        codes.append(np.broadcast_to(code, lengths))
        values.append(np.broadcast_to(value, lengths))
    result = np.maximum.reduce(codes)
    with torch.no_grad():
        arguments = [torch.from_numpy(np.array(value)) for value in values]
        value = np.broadcast_to(role.function(arguments).to(torch.float64).numpy(), lengths)
    result = np.where(result == State.ZERO, np.int8(State.CONSTANT), result)
    if role.zeros is Zeros.ABSORB:
        absorbed = np.logical_or.reduce([code == State.ZERO for code in codes])
    elif role.zeros is Zeros.NUMERATOR:
        absorbed = codes[0] == State.ZERO
    elif role.zeros is Zeros.SCALE:
        # The first operand is 0 or a constant in ``values`` where it is not live; times zero it does not matter.
        absorbed = scale_is_zero(codes)
    else:
        absorbed = np.zeros(lengths, dtype=bool)
    if role.zeros in (Zeros.ABSORB, Zeros.NUMERATOR):
        value = np.where(absorbed, 0.0, value)
    result = np.where(absorbed, np.int8(State.CONSTANT), result)
    states.put(node, result.astype(np.int8), value)


def scale_is_zero(codes: list[Codes]) -> NDArray[np.bool_]:
    """Where the scale of a normalization (its second operand) is exactly zero."""
    result: NDArray[np.bool_] = codes[1] == State.ZERO
    return result


def _written(role: Map) -> tuple[int, ...]:
    """Scale and shift among the operands of a normalization: they write channels, the statistics do not."""
    return tuple(range(1, len(role.operands) - 2))


def _contract(states: States, matrices: Matrices, node: fx.Node, role: Contraction, shape: tuple[int, ...]) -> None:
    matrix = matrices[role]
    codes = states.codes[role.source].ravel()[role.columns]
    values = states.values[role.source].ravel()[role.columns]

    def reads(entries: NDArray[np.bool_], columns: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if not columns.any():
            return np.zeros(entries.shape[:2], dtype=bool)
        result: NDArray[np.bool_] = (entries & columns[:, None, :]).any(axis=-1)
        return result

    constant = codes == State.CONSTANT
    result = np.full(matrix.bias.shape, State.CONSTANT, dtype=np.int8)
    result[reads(matrix.nonzero, codes == State.BORDER) | reads(matrix.exposed, constant)] = State.BORDER
    result[reads(matrix.nonzero, codes == State.LIVE)] = State.LIVE
    value = matrix.bias + matrix.column_sums(np.where(constant, values, 0.0))
    states.put(node, result.reshape(shape), value.reshape(shape))
