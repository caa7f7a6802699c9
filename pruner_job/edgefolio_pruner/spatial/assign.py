"""The forward walk that gives every value of a program its role and its channels."""

from __future__ import annotations

import numpy as np
from torch import fx

from edgefolio_pruner.spatial.graph.program import Program
from edgefolio_pruner.spatial.graph.shapes import LARGEST_STATIC_SIZE
from edgefolio_pruner.spatial.operators.registry import operator_of
from edgefolio_pruner.spatial.positions import UnfollowedError
from edgefolio_pruner.spatial.roles import Input, Output
from edgefolio_pruner.spatial.structure import Structure
from edgefolio_pruner.spatial.structure_builder import Builder

__all__ = ["build_structure"]


def build_structure(program: Program) -> Structure:
    """Assign roles and channels to every node of ``program``."""
    builder = Builder(program)
    for node in program.nodes:
        if node.op == "output":
            outputs = tuple(source for source in node.all_input_nodes if source in builder.channels)
            for source in outputs:
                builder.pin(builder.channels[source], "network output")
            builder.roles[node] = Output(outputs)
        elif node.op == "get_attr" or node not in program.shapes:
            # Constants get a role where they are used; sizes carry no channels.
            continue
        else:
            try:
                _assign_role(builder, node)
            except UnfollowedError as error:
                builder.set_barrier(node, f"operator {node.target}: {error}")
            _keep_rectangular(builder, node)
    return builder.build()


def _keep_rectangular(builder: Builder, node: fx.Node) -> None:
    """Channels spread over several axes: whole slices along the last of them are removed, or nothing."""
    channels = builder.channels[node]
    axes = [axis for axis in range(channels.ndim) if channels.shape[axis] > 1]
    if len(axes) > 1:
        last = [1] * channels.ndim
        last[axes[-1]] = channels.shape[axes[-1]]
        arranged = np.moveaxis(channels, axes[-1], -1).reshape(-1, channels.shape[axes[-1]])
        builder.tie(arranged[:1], arranged)
        builder.channels[node] = np.broadcast_to(arranged[0].reshape(last), channels.shape)


def _assign_role(builder: Builder, node: fx.Node) -> None:
    """Set the role and the channels of ``node``; a barrier where no rule applies."""
    if node.op == "placeholder":
        shape = builder.shape(node)
        lengths = [1] * len(shape)
        if len(shape) > 1 and shape[1] < LARGEST_STATIC_SIZE:
            lengths[1] = shape[1]
        builder.channels[node] = builder.fresh(*lengths)
        builder.pin(builder.channels[node], "network input")
        builder.roles[node] = Input()
        return
    operator = operator_of(node)
    if operator is None:
        builder.set_barrier(node, f"operator {node.target}")
        return
    operator.assign(builder, node)
    if node not in builder.channels:
        raise AssertionError(f"no channels for {node}")
    channels = builder.channels[node]
    assert channels.ndim == len(builder.shape(node)), (node.format_node(), channels.shape)
    assert isinstance(channels, np.ndarray)
